"""The one connection to a host, which all programs share: `ssh -M`, kept ten idle minutes.

Whoever asks first logs in, at a terminal with the password, code or touch that the site wants;
every later command, also of another clusterlm, goes over the same connection. Commands never
connect by themselves: without a master they fail before anything is sent, and one is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from clusterlm.cluster.ssh.address import Address, config_files
from clusterlm.cluster.ssh.private_folder import socket_folder
from clusterlm.cluster.ssh.ssh_errors import Target, explain_openssh
from clusterlm.errors import SshError

CONNECT_S = 15
KEPT = "10m"
# a silent connection is given up after 30 s: one interval after the last question. What was asked
# over it must be known within a minute, new login and all
ALIVE_EVERY_S, ALIVE_TIMES = 10, 2
# unused for longer than this, a master is asked whether the other end still answers
FRESH_S = 60.0
PROBE_S = 10.0
# without a person: all jumps and a slow name server; with one: until the phone is found
LOGIN_S, PERSON_S = 60.0, 300.0

FORCED = f"""\
# Made by clusterlm: what it insists on, then your own files. The first value of a key counts.
StrictHostKeyChecking yes
ForwardAgent no
ForwardX11 no
ClearAllForwardings yes
PermitLocalCommand no
ServerAliveInterval {ALIVE_EVERY_S}
ServerAliveCountMax {ALIVE_TIMES}
"""
DEFAULTS = f"""\
Host *
ConnectTimeout {CONNECT_S}
"""


class Master:
    """The shared connection to one address."""

    def __init__(self, address: Address) -> None:
        self.address = address
        folder = socket_folder()
        text = FORCED + "".join(f"Include {_quoted(path)}\n" for path in config_files())
        text += DEFAULTS
        key = hashlib.sha256(f"{address!r}\n{text}".encode()).hexdigest()[:16]
        self._socket = folder / key
        self._lock = folder / f"{key}.lock"
        # jumps are programs of their own that get this file and no option: so all stands in it
        self._config = folder / f"{key}.config"
        if not self._config.exists() or self._config.read_text() != text:
            aside = self._config.with_suffix(f".{os.getpid()}")
            aside.write_text(text)
            aside.rename(self._config)

    def command_argv(self, command: str) -> list[str]:
        """What runs `command` over the master, and only over it."""
        return [
            *self._base(),
            *("-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"),
            *("-o", "RemoteCommand=none", "-T", "-e", "none", "-x", "-a"),
            *("--", self.address.host, command),
        ]

    def ensure(self) -> None:
        """Connect if there is no connection.

        Raises:
            SshError: it cannot be made; the text says what to do.
        """
        with self._locked():
            if self._listens():
                if time.time() - self._lock.stat().st_mtime < FRESH_S or self._answers():
                    os.utime(self._lock)
                    return
                self._kill()
            self._socket.unlink(missing_ok=True)
            self._connect()
            os.utime(self._lock)

    def close(self) -> None:
        """End the connection for everyone who shares it."""
        with self._locked():
            if self._listens():
                self._control("exit")
            self._socket.unlink(missing_ok=True)

    def _base(self) -> list[str]:
        argv = [_ssh(), "-F", str(self._config), "-S", str(self._socket)]
        if self.address.user:
            argv += ["-l", self.address.user]
        if self.address.port:
            argv += ["-p", str(self.address.port)]
        return argv

    def _listens(self) -> bool:
        """Whether a process takes calls there; a socket that a killed one left does not."""
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(2)
            try:
                trial.connect(str(self._socket))
            except OSError:
                return False
        return True

    def _answers(self) -> bool:
        """Whether the other end does; a laptop that slept has a connection that is none."""
        try:
            done = subprocess.run(
                self.command_argv("exit 0"),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PROBE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _kill(self) -> None:
        # Master running (pid=4711)
        if found := re.search(r"pid=(\d+)", self._control("check")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(found[1]), signal.SIGTERM)

    def _control(self, verb: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(
                [*self._base(), "-O", verb, "--", self.address.host],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=PROBE_S,
                check=False,
            ).stdout
        return ""

    def _connect(self) -> None:
        person = sys.stdin.isatty() and sys.stderr.isatty()
        argv = [
            *self._base(),
            *("-o", "ControlMaster=yes", "-o", f"ControlPersist={KEPT}"),
            *("-o", f"BatchMode={'no' if person else 'yes'}", "-o", "RemoteCommand=none"),
            *("-o", f"LogLevel={'INFO' if person else 'ERROR'}"),
            *("-T", "-x", "-a", "-N", "-f", "--", self.address.host),
        ]
        # a file: the master keeps its errors open as long as it lives
        with tempfile.TemporaryFile() as errors:
            code = _run_login(argv, errors.fileno(), PERSON_S if person else LOGIN_S, person)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        if code is None:
            said += f"\nConnection timed out after {PERSON_S if person else LOGIN_S:.0f} s of login"
        if code != 0:
            if not person and not self._target().is_direct:
                said += self._said_on_the_way()
            raise SshError(explain_openssh(self._target(), said, person=person))
        if not self._listens():
            raise SshError(
                f"{self.address}: connected, but ssh made no control socket at {self._socket}"
                f"\n{said}".rstrip()
            )

    def _said_on_the_way(self) -> str:
        """What a host before this one objects to: ssh hides it while it makes a master."""
        argv = [*self._base(), "-o", "ControlPath=none", "-o", "ControlMaster=no"]
        argv += ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-T", "--", self.address.host]
        with contextlib.suppress(subprocess.TimeoutExpired):
            return subprocess.run(
                [*argv, "exit 0"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=2 * CONNECT_S,
                check=False,
            ).stderr
        return ""

    def _target(self) -> Target:
        """What ssh_config makes of the address, as `ssh` itself reads it."""
        done = subprocess.run(
            [*self._base(), "-G", "--", self.address.host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        lines = [line.partition(" ")[::2] for line in done.stdout.splitlines()]
        told = dict(lines)
        port = told.get("port", "22")
        return Target(
            self.address,
            told.get("hostname", self.address.host),
            int(port) if port.isdecimal() else 22,
            is_direct=not {"proxyjump", "proxycommand"} & set(told),
            keys=tuple(Path(v).expanduser() for key, v in lines if key == "identityfile"),
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One at a time: two masters for one socket would leave one that nobody can end."""
        with self._lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _run_login(argv: Sequence[str], errors: int, limit_s: float, person: bool) -> int | None:
    """Exit code; None when it took too long. A person sees on the terminal what ssh says."""
    shown = 0
    # without a person, Ctrl-C is ours alone to handle; with one, ssh must reach the terminal
    child = subprocess.Popen(
        list(argv),
        stdin=None if person else subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        start_new_session=not person,
    )
    until = time.monotonic() + limit_s
    try:
        while (code := child.poll()) is None and time.monotonic() < until:
            time.sleep(0.02)
            if person:
                shown += os.write(2, os.pread(errors, 65536, shown))
        return code
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise SshError("no `ssh` program on PATH: install OpenSSH, or set `transport: paramiko`")
    return found


def _quoted(path: Path) -> str:
    text = str(path)
    if '"' in text or "\n" in text:
        raise SshError(f"{text!r}: ssh_config cannot name such a path")
    # Include takes wildcards, a path of ours has none
    escaped = "".join(f"\\{c}" if c in "*?[\\" else c for c in text)
    return f'"{escaped}"'
