"""A daemon that is known by its pid: started, frozen and ended by it, also by a later process.

The pid is written down with the process's start time (clock ticks since boot, /proc/PID/stat), so
that a number which now belongs to somebody else is never signalled.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tests.bed.network import send
from tests.bed.waiting import BedError, wait_until

# slurmctld writes its state down in this time, after threads that wait for silent nodes.
TERM_GRACE_S = 10.0
KILL_GRACE_S = 5.0


class Daemon:
    """One program in the foreground, its output in `log/NAME.out`, its pid in `pids/NAME`."""

    def __init__(
        self, name: str, argv: Sequence[str], *, work: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Nothing runs yet; a daemon of this name that an earlier process started is recognised."""
        self.name = name
        self._argv = list(argv)
        self._work = work
        self._env = dict(env or os.environ)
        self._pid_file = work / "pids" / name
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it does not run."""
        if self.is_alive():
            return
        with (self._work / "log" / f"{self.name}.out").open("ab") as output:
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=self._env,
                start_new_session=True,
            )
        self._pid_file.write_text(f"{self._child.pid} {_start_time(self._child.pid)}\n")

    @property
    def pid(self) -> int | None:
        """None if it does not run."""
        if self._child is not None:
            self._child.poll()  # reaps it, or it would stay as a zombie
        return _living_pid(self._pid_file)

    def is_alive(self) -> bool:
        """Frozen counts as alive."""
        return self.pid is not None

    def send(self, signum: int) -> None:
        """Signal it; nothing happens if it does not run."""
        if pid := self.pid:
            send(pid, signum)

    def freeze(self) -> None:
        """Stop it in its tracks: its port takes connections and never answers."""
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run on; fine if it was not frozen."""
        self.send(signal.SIGCONT)

    def stop(self) -> None:
        """TERM, wait, KILL."""
        stop_daemons([self])

    def collect(self) -> None:
        """Take the exit code of one that has ended; else Python warns of a process left running."""
        if self._child is not None:
            self._child.wait(KILL_GRACE_S)

    def log_tail(self) -> str:
        """The last lines of what it printed and of its own log."""
        texts = []
        for path in (self._work / "log").glob(f"{self.name}.*"):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            texts.append("\n  ".join([f"{path}:", *lines]))
        return "\n".join(texts)

    def wait_until_up(self, is_up: Callable[[], bool], *, timeout_s: float = 60) -> None:
        """Wait for the sign that it serves.

        Raises:
            BedError: it ended or gave no sign; the message holds the end of its logs.
        """
        try:
            wait_until(
                lambda: not self.is_alive() or is_up(), timeout_s=timeout_s, what="it answers"
            )
        except BedError as error:
            raise BedError(f"{self.name}: {error}\n{self.log_tail()}") from error
        if not self.is_alive():
            raise BedError(f"{self.name} ended at once\n{self.log_tail()}")


def stop_daemons(daemons: Iterable[Daemon], *, grace_s: float = TERM_GRACE_S) -> None:
    """TERM to all, wait for all, KILL what is left after `grace_s`."""
    running = [daemon for daemon in daemons if daemon.is_alive()]
    for daemon in running:
        daemon.send(signal.SIGTERM)
        daemon.thaw()  # a frozen process cannot end
    try:
        wait_until(lambda: not _any_alive(running), timeout_s=grace_s, what="they ended")
    except BedError:
        for daemon in running:
            daemon.send(signal.SIGKILL)
        wait_until(lambda: not _any_alive(running), timeout_s=KILL_GRACE_S, what="they were killed")
    for daemon in running:
        daemon.collect()


def kill_recorded(work: Path) -> None:
    """KILL every daemon that an earlier process left in this work folder."""
    for pid_file in work.glob("pids/*"):
        if pid := _living_pid(pid_file):
            send(pid, signal.SIGKILL)
            wait_until(
                lambda pid_file=pid_file: _living_pid(pid_file) is None,  # type: ignore[misc]
                timeout_s=KILL_GRACE_S,
                what=f"{pid_file.name} was killed",
            )


def _any_alive(daemons: Iterable[Daemon]) -> bool:
    return any(daemon.is_alive() for daemon in daemons)


def _living_pid(pid_file: Path) -> int | None:
    try:
        pid, start_time = pid_file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == start_time else None


def _start_time(pid: int) -> str | None:
    """None for a process that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # 4711 (name, may hold blanks) S 1 ...: fields count from after the last bracket, from 3
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
