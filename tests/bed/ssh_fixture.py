"""Real sshds as pytest fixtures, and an ssh_config of the test's own.

    def test_it_runs(ssh, backend):              # once with the ssh program, once with paramiko
        server = ssh.server("plain")
        assert ssh.connect(backend, server).run(["true"]).is_ok

A server is started once a session, by its name. The user's own ~/.ssh is neither read nor written.
"""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterlm.cluster.ssh.connect import connect
from clusterlm.cluster.ssh.talk import SshTransport
from clusterlm.spec.profile import Profile
from tests.bed.sshd import HOST, Keys, Sshd, find_sshd


class SshBed:
    """The servers of a session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = Keys(folder)
        self.servers: dict[str, Sshd] = {}

    def server(self, name: str, **options: object) -> Sshd:
        if name not in self.servers:
            if "shell" not in options:
                # the machine's own account may have slow profiles
                home = self.folder / "home"
                home.mkdir(exist_ok=True)
                options.update(shell="bash", home=home)
            options.setdefault("host_key", self.keys.new(f"host-{name}"))
            options.setdefault("user_key", self.keys.new("user"))
            server = Sshd(self.folder / name, **options)  # type: ignore[arg-type]
            self.servers[name] = server.start()
        return self.servers[name]

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()


class SshHome:
    """What one test sees of SSH: its own ssh_config and known_hosts."""

    def __init__(self, bed: SshBed, folder: Path) -> None:
        self.bed = bed
        self.keys = bed.keys
        self.known_hosts = folder / "known_hosts"
        self.config = folder / "config"
        self.config.write_text("")
        self.known_hosts.write_text("")
        self._opened: list[SshTransport] = []

    def server(self, name: str, **options: object) -> Sshd:
        return self.bed.server(name, **options)

    def know(self, *servers: Sshd) -> None:
        """Put their host keys into known_hosts."""
        with self.known_hosts.open("a") as file:
            file.writelines(f"{server.known_host}\n" for server in servers)

    def alias(self, name: str, server: Sshd, *lines: str, port: int | None = None) -> str:
        """A name of ssh_config for a server. `lines` come first, so they win."""
        block = [
            f"Host {name}",
            *lines,
            f"HostName {HOST}",
            f"Port {port or server.port}",
            f"IdentityFile {server.user_key}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
        ]
        with self.config.open("a") as file:
            file.write("\n  ".join(block) + "\n")
        return name

    def connect(
        self, backend: str, to: Sshd | str, *, setup: list[str] | None = None
    ) -> SshTransport:
        """To a name of ssh_config, or to a server whose key is known."""
        if isinstance(to, Sshd):
            self.know(to)
            to = self.alias("cluster", to)
        profile = Profile(host=to, folder="~/c", transport=backend, setup=setup or [])
        transport = connect(to, profile)
        assert isinstance(transport, SshTransport)
        self._opened.append(transport)
        return transport

    def hang_up(self) -> None:
        for transport in self._opened:
            transport.hang_up()


@pytest.fixture(scope="session")
def ssh_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshBed]:
    """All servers; rather use `ssh`."""
    skip_without_ssh()
    bed = SshBed(tmp_path_factory.mktemp("ssh"))
    yield bed
    bed.stop()


def skip_without_ssh() -> None:
    """Skip the test, or fail it in CI, with a sentence that says what to do."""
    absent = [
        name for name in ("ssh", "ssh-keygen", "ssh-keyscan", "ssh-agent") if not shutil.which(name)
    ]
    if absent or find_sshd() is None:
        lack = f"no {', '.join(absent) or 'sshd'}: run tests/bed/install.sh as root."
        if os.environ.get("CI") == "true":
            pytest.fail(lack, pytrace=False)
        pytest.skip(lack)


@pytest.fixture
def ssh(ssh_bed: SshBed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshHome]:
    """An ssh_config of the test's own, and sockets in a short folder of its own."""
    home = SshHome(ssh_bed, tmp_path)
    monkeypatch.setenv("CLUSTERLM_SSH_CONFIG", str(home.config))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sockets = Path(tempfile.mkdtemp(prefix="clm", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(sockets))
    yield home
    home.hang_up()
    shutil.rmtree(sockets)


@pytest.fixture(params=["openssh", "paramiko"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both transports pass the same tests."""
    if request.param == "paramiko":
        pytest.importorskip("paramiko")
    return str(request.param)


def shell_script(path: Path, *lines: str) -> str:
    """A login shell that does `lines` first, then is bash."""
    path.write_text("\n".join(["#!/bin/bash", *lines, 'exec bash "$@"', ""]))
    path.chmod(0o755)
    return shlex.quote(str(path))
