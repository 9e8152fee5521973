"""The way to a host: jumps, proxies, agents, and in words what is wrong where it is barred."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterlm.errors import ConnectionLost, SshError
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.ssh_fixture import SshHome
from tests.bed.sshd import HOST, Sshd, free_port
from tests.bed.waiting import wait_until


@pytest.fixture
def server(ssh: SshHome) -> Sshd:
    return ssh.server("plain")


def _refusal(ssh: SshHome, backend: str, name: str) -> str:
    with pytest.raises(SshError) as caught:
        ssh.connect(backend, name).run(["true"])
    assert not isinstance(caught.value, ConnectionLost)
    return str(caught.value)


def test_a_chain_of_jumps(ssh: SshHome, backend: str, server: Sshd) -> None:
    first, second = ssh.server("jump1"), ssh.server("jump2")
    ssh.know(first, second, server)
    ssh.alias("jump1", first)
    ssh.alias("jump2", second, "ProxyJump jump1")
    ssh.alias("cluster", server, "ProxyJump jump2")
    before = [len(s.log()) for s in (first, second)]
    there = ssh.connect(backend, "cluster")
    assert there.run(["true"], timeout_s=60).is_ok
    assert all("Accepted" in s.log()[n:] for s, n in zip((first, second), before, strict=True))


def test_a_list_of_jumps(ssh: SshHome, backend: str, server: Sshd) -> None:
    first, second = ssh.server("jump1"), ssh.server("jump2")
    ssh.know(first, second, server)
    ssh.alias("jump1", first)
    ssh.alias("jump2", second)
    ssh.alias("cluster", server, "ProxyJump jump1,jump2")
    assert ssh.connect(backend, "cluster").run(["true"], timeout_s=60).is_ok


def test_an_unknown_jump_is_refused(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.know(server)
    ssh.alias("jump1", ssh.server("jump1"), "StrictHostKeyChecking no")
    ssh.alias("cluster", server, "ProxyJump jump1")
    assert "not in your known_hosts" in _refusal(ssh, backend, "cluster")


def test_a_proxy_command(
    ssh: SshHome, backend: str, server: Sshd, capfd: pytest.CaptureFixture[str]
) -> None:
    relay = Path(ssh.config).parent / "relay.py"
    relay.write_text(RELAY)
    ssh.know(server)
    ssh.alias("cluster", server, f"ProxyCommand {sys.executable} {relay} '%h' %p")
    assert ssh.connect(backend, "cluster").run(["echo", "through"]).out == "through\n"
    assert ("ssh_config starts" in capfd.readouterr().err) == (backend == "paramiko")


RELAY = """
import socket, sys, threading, os
wire = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        wire.sendall(data)
    wire.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := wire.recv(65536):
    os.write(1, data)
"""


@pytest.fixture
def agent(ssh: SshHome, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(os.environ["XDG_RUNTIME_DIR"]) / "agent"
    child = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    while not path.exists():
        time.sleep(0.02)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    child.terminate()
    child.wait()


def test_a_key_of_an_agent(ssh: SshHome, backend: str, server: Sshd, agent: Path) -> None:
    for key in (ssh.keys.new("useless"), server.user_key):
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
    ssh.know(server)
    ssh.alias("cluster", server)
    text = ssh.config.read_text().replace(f"IdentityFile {server.user_key}", "IdentityFile none")
    ssh.config.write_text(text.replace("IdentitiesOnly yes", ""))
    assert ssh.connect(backend, "cluster").run(["true"]).is_ok


def test_a_users_certificate(ssh: SshHome, backend: str) -> None:
    authority, key = ssh.keys.new("user-authority"), ssh.keys.new("certified")
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    if not Path(f"{key}-cert.pub").exists():
        argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", user, f"{key}.pub"]
        subprocess.run(argv, check=True)
    server = ssh.server("user-ca", more=f"TrustedUserCAKeys {authority}.pub")
    ssh.know(server)
    ssh.alias("cluster", server)
    text = ssh.config.read_text().replace(str(server.user_key), str(key))
    ssh.config.write_text(text)
    assert ssh.connect(backend, "cluster").run(["true"]).is_ok


def test_keys_that_do_not_fit_are_named(ssh: SshHome, backend: str, server: Sshd) -> None:
    stranger = ssh.keys.new("stranger")
    ssh.know(server)
    ssh.alias("cluster", server)
    ssh.config.write_text(ssh.config.read_text().replace(str(server.user_key), str(stranger)))
    text = _refusal(ssh, backend, "cluster")
    assert "did not let you in" in text
    assert str(stranger) in text
    assert "publickey" in text
    assert "ssh-copy-id" in text


def test_nothing_listens(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.alias("cluster", server, port=free_port())
    assert "nothing listens" in _refusal(ssh, backend, "cluster")


def test_no_such_name(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.alias("cluster", server, "HostName no-such-host.invalid")
    text = _refusal(ssh, backend, "cluster")
    assert "no machine has the name no-such-host.invalid" in text


def test_something_else_answers(ssh: SshHome, backend: str, server: Sshd) -> None:
    with socket.create_server((HOST, 0)) as silent:
        ssh.alias("cluster", server, "ConnectTimeout 2", port=silent.getsockname()[1])
        ssh.know(server)
        assert "does not speak SSH" in _refusal(ssh, backend, "cluster")


def test_it_hangs_up(ssh: SshHome, backend: str, server: Sshd) -> None:
    with socket.create_server((HOST, 0)) as rude:

        def serve() -> None:
            while True:
                try:
                    rude.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        ssh.alias("cluster", server, port=rude.getsockname()[1])
        text = _refusal(ssh, backend, "cluster")
        rude.shutdown(socket.SHUT_RDWR)
        thread.join(5)
    assert "hung up before the login" in text or "does not speak SSH" in text


def test_a_site_that_allows_one_session_says_so_and_loses_none(
    ssh: SshHome, backend: str, tmp_path: Path
) -> None:
    there = ssh.connect(backend, ssh.server("one-session", more="MaxSessions 1"))
    said: list[str] = []
    script = f"touch {tmp_path}/up; while [ -e {tmp_path}/up ]; do sleep 0.1; done; echo whole"
    first = threading.Thread(target=lambda: said.append(there.run(["sh", "-c", script]).out))
    first.start()
    wait_until((tmp_path / "up").exists, timeout_s=30, what="the first session is there")
    with pytest.raises(SshError, match="no further session") as caught:
        there.run(["true"])
    (tmp_path / "up").unlink()
    first.join()
    assert not isinstance(caught.value, ConnectionLost)
    assert said == ["whole\n"]
    assert there.run(["true"]).is_ok


def test_a_slow_link_works(ssh: SshHome, backend: str, server: Sshd) -> None:
    with CuttingProxy(server.port) as proxy:
        proxy.delay(0.1)
        ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
        ssh.alias("cluster", server, port=proxy.port)
        there = ssh.connect(backend, "cluster")
        assert there.run(["echo", "slow"]).out == "slow\n"
        there.hang_up()
