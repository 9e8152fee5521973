"""ssh_config read by us says what the ssh program says of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from clusterlm.cluster.ssh.address import Address
from clusterlm.cluster.ssh.ssh_config import read_config
from clusterlm.cluster.ssh.ssh_errors import Target, explain_openssh
from clusterlm.errors import SshError

CONFIG = """
# comment
Include {folder}/more-*
Host login1 login2 !login2
  HostName %h.example.org
  User = "anna"
  Port=2201
Host login2
  hostname 10.0.0.2
  ProxyJump bob@gate:2222,gate2
Match host *.example.org user anna
  IdentityFile ~/.ssh/id_anna
  ConnectTimeout 7
Match originalhost inner !localuser nobody-here
  ProxyCommand nc -x proxy %h %p
  ProxyJump never
Host *.cs.??.edu
  Port 2203
Host *
  User everyone
  Port 2299
"""


@pytest.mark.parametrize("host", ["login1", "login2", "inner", "a.cs.cm.edu", "incl", "LOGIN1"])
def test_it_is_read_as_ssh_reads_it(host: str, tmp_path: Path) -> None:
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no ssh here")
    (tmp_path / "more-1").write_text("Host incl\n  HostName included\nHost x\n  Port 1\n")
    config = tmp_path / "config"
    config.write_text(CONFIG.format(folder=tmp_path))
    done = subprocess.run([ssh, "-F", str(config), "-G", host], capture_output=True, text=True)
    told = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    read = read_config(Address(host), [config])
    assert (read.host, str(read.port), read.user) == (told["hostname"], told["port"], told["user"])
    assert ",".join(map(str, read.jumps)) == told.get("proxyjump", "")
    assert (read.proxy_command is None) == ("proxycommand" not in told)
    if host == "login1":
        assert [path.name for path in read.keys] == ["id_anna"]
        assert read.connect_s == 7


def test_what_only_openssh_can_do_is_refused(tmp_path: Path) -> None:
    for line in ("Match exec true", "CanonicalizeHostname yes", "RevokedHostKeys /etc/revoked"):
        (tmp_path / "config").write_text(f"{line}\n")
        with pytest.raises(SshError, match="transport: openssh"):
            read_config(Address("a"), [tmp_path / "config"])


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("ssh: connect to host a port 22: No route to host", "no route"),
        ("ssh: connect to host a port 22: Network is unreachable", "no route"),
        ("ssh: connect to host a port 22: Connection timed out", "no answer"),
        ("ssh: connect to host a port 22: Connection refused", "nothing listens"),
        ("Connection timed out during banner exchange", "does not speak SSH"),
        ("ssh: Could not resolve hostname a: Name or service not known", "no machine has the name"),
        ("something new", "something new"),
    ],
)
def test_what_ssh_says_in_our_words(said: str, text: str) -> None:
    assert text in explain_openssh(Target(Address("a"), "a", 22), said, person=False)
