"""A real sshd for the tests: own keys, own port, own folder, ended by its pid.

    def test_it_runs(ssh, backend):              # fixtures of `ssh_fixture.py`
        server = ssh.server("plain")

It runs as whoever runs the tests and lets in that user alone, by one key. What the account's shell
is like is a `ForceCommand`: sshd gives the command to a shell of the account, and that runs
`SHELL -c COMMAND` with a home of the test's own, as sshd itself would for such an account.
"""

import os
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.bed.daemons import Daemon
from tests.bed.programs import SYSTEM_PATH

HOST = "127.0.0.1"


def find_sshd() -> str | None:
    """The program; it insists on being started by its whole path."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


@dataclass
class Keys:
    """Key pairs of a test session, made once: `new("user")` is a file and the same with .pub."""

    folder: Path

    def new(self, name: str, kind: str = "ed25519") -> Path:
        path = self.folder / f"{name}-{kind}"
        if not path.exists():
            argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        return path

    def public(self, path: Path) -> str:
        """`ssh-ed25519 AAAA..`, as in known_hosts."""
        return " ".join(Path(f"{path}.pub").read_text().split()[:2])


@dataclass
class Sshd:
    """One server. `host_key` and `certificate` decide what it shows; `shell` what logs in."""

    work: Path
    host_key: Path
    user_key: Path
    certificate: Path | None = None
    shell: str = ""
    """A command that gets `-c COMMAND`; empty: the account's own shell in its own home."""
    home: Path | None = None
    more: str = ""
    """Further lines of sshd_config."""
    port: int = field(default_factory=lambda: free_port())

    def start(self) -> "Sshd":
        (self.work / "log").mkdir(parents=True, exist_ok=True)
        (self.work / "pids").mkdir(exist_ok=True)
        if os.geteuid() == 0:
            # made by the package's service, which is not started here
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        config = self.work / "sshd_config"
        config.write_text(self._config())
        (self.work / "authorized_keys").write_text(Path(f"{self.user_key}.pub").read_text())
        program = find_sshd()
        assert program is not None
        self._daemon = Daemon(
            "sshd", [program, "-D", "-e", "-f", str(config)], work=self.work, env=self._env()
        )
        self._daemon.start()
        self._daemon.wait_until_up(self._answers, timeout_s=20)
        return self

    def stop(self) -> None:
        """End it and the connections it has: they are its children."""
        for pid in self.children():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self._daemon.stop()

    def freeze(self) -> None:
        self._daemon.freeze()

    def thaw(self) -> None:
        self._daemon.thaw()

    def children(self) -> list[int]:
        """Processes that hold one connection each."""
        pid = self._daemon.pid
        if pid is None:
            return []
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]

    def log(self) -> str:
        return (self.work / "log/sshd.out").read_text(errors="replace")

    @property
    def known_host(self) -> str:
        """The line of known_hosts."""
        kind, key, *_ = Path(f"{self.host_key}.pub").read_text().split()
        return f"[{HOST}]:{self.port} {kind} {key}"

    def _env(self) -> dict[str, str]:
        # the test's own virtual environment is not the account's
        return {"PATH": SYSTEM_PATH}

    def _config(self) -> str:
        lines = [
            f"ListenAddress {HOST}",
            f"Port {self.port}",
            f"HostKey {self.host_key}",
            f"HostCertificate {self.certificate}" if self.certificate else "",
            f"AuthorizedKeysFile {self.work}/authorized_keys",
            "PidFile none",
            # files lie below a folder that others may write to
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "PrintMotd no",
            "PrintLastLog no",
            # the first value of a key counts
            self.more,
            "MaxSessions 20",
            "MaxStartups 100",
            "AcceptEnv LANG LC_*",
        ]
        if self.shell:
            home = shlex.quote(str(self.home or "/"))
            lines.append(
                f"ForceCommand cd {home}; exec env HOME={home} {self.shell} "
                '-c "$SSH_ORIGINAL_COMMAND"'
            )
        return "\n".join(line for line in lines if line) + "\n"

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as trial:
                trial.settimeout(2)
                return trial.recv(4) == b"SSH-"
        except OSError:
            return False


def free_port() -> int:
    """Free now; the kernel gives the next asker another."""
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])
