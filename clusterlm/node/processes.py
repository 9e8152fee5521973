"""Start a child that cannot outlive us, sleep until something happens, and end whole families.

Four facts of Linux this rests on:

- `PR_SET_PDEATHSIG`: the kernel signals a child when its parent dies, also by SIGKILL.
- `PR_SET_CHILD_SUBREAPER`: orphans below us become our children, so a walk of /proc from us finds
  them all, whatever sessions and process groups they made for themselves.
- A signal that is ignored stays ignored across exec. Slurm sends SIGTERM to *every* process of a
  step; a rank must live on to save. A script that installs a handler of its own still gets it.
- `time.sleep` goes on after a signal (PEP 475), so `Wakeup` sleeps on a pipe instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_ROUND_S = 0.05

_libc = ctypes.CDLL(None, use_errno=True)


class Process(NamedTuple):
    """One row of /proc."""

    pid: int
    parent: int
    state: str
    """R, S, D, Z ... as `ps` prints it."""


class Wakeup:
    """A sleep that any handled signal cuts short, the end of a child too."""

    def __init__(self) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _do_nothing)

    def sleep(self, seconds: float) -> None:
        if select.select([self._read], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)


class Watched:
    """A process whose end is the end of us: our parent, or, in a container, some process outside.

    Known by its start time as well: pids are used again.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started = _start_time(pid)

    def lives(self) -> bool:
        return self._started is not None and _start_time(self._pid) == self._started


def adopt_orphans() -> None:
    """Become the parent of every process below us whose own parent dies."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def let_parent_die() -> None:
    """Undo `PR_SET_PDEATHSIG` for ourselves: we look after our family before we go."""
    _libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)


def start(
    command: Sequence[str], *, env: Mapping[str, str], log: Path, own_session: bool
) -> subprocess.Popen[bytes]:
    """Start `command` with stdout and stderr appended to `log`, SIGTERM ignored, tied to our life.

    Call it before any thread is started: it runs Python between fork and exec.
    """
    parent = os.getpid()

    def prepare() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            # the parent died before the line above; nobody will signal us
            os.kill(os.getpid(), signal.SIGKILL)

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=own_session,
            preexec_fn=prepare,
        )
    finally:
        os.close(output)


def reap(child: subprocess.Popen[bytes]) -> int | None:
    """The return code of `child`, None while it runs; buries adopted orphans on the way."""
    with contextlib.suppress(ChildProcessError):
        while True:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None or dead.si_pid == child.pid:
                break
            os.waitpid(dead.si_pid, 0)
    return child.poll()


def living_below(pid: int) -> list[Process]:
    """All living descendants of `pid`, parents before children."""
    children: dict[int, list[Process]] = {}
    for process in _all_processes():
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:
        found.extend(children.get(process.pid, ()))
    return [process for process in found if process.state not in "ZX"]


def signal_below(signum: int) -> None:
    """Send `signum` once to every process below us."""
    for process in living_below(os.getpid()):
        send_signal(process.pid, signum)


def send_signal(pid: int, signum: int) -> None:
    """As `os.kill`; a process that has just gone, or is not ours, is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def kill_below(child: subprocess.Popen[bytes], *, within_s: float) -> list[Process]:
    """SIGKILL everything below us, again until nothing is left; returns what did not die.

    A process in uninterruptible sleep (state D) does not: it hangs in a driver or a file system.
    """
    deadline = time.monotonic() + within_s
    while True:
        signal_below(signal.SIGKILL)
        reap(child)
        left = living_below(os.getpid())
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(KILL_ROUND_S)


def ignores_sigterm(pid: int) -> bool:
    """Whether `pid` has SIGTERM set to be ignored."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    # SigIgn:  0000000000005000   bit n-1 stands for signal n
    masks = [line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")]
    return bool(masks) and bool(int(masks[0], 16) >> (signal.SIGTERM - 1) & 1)


def _start_time(pid: int) -> str | None:
    """Clock ticks from boot to its start; None when it is gone, or dead and not yet buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # 4242 (a name) S 17 ...   the 3rd field is the state, the 22nd the start
    fields = stat.rpartition(")")[2].split()
    return fields[19] if fields[0] not in "ZX" else None


def _all_processes() -> list[Process]:
    rows = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as handle:
                stat = handle.read()
        except OSError:
            continue
        # 4242 (a name) with) any) S 17 ...   the name may hold spaces and brackets
        state, parent = stat.rpartition(")")[2].split()[:2]
        rows.append(Process(pid=int(entry), parent=int(parent), state=state))
    return rows


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """A handler in Python, so that the signal reaches the wakeup pipe."""
