"""The parent of one rank: its log, its exit record, and an end it can be proud of.

    torchrun -> python -m clusterlm.node.rank -- COMMAND      (preprocess: agent -> rank)

COMMAND writes to `logs/rank<k>.log`; how it ended is in `exits/rank<k>.json` before this process
ends, so whoever sees the process gone can read why. Code 85 (saved, go on later) is passed on as 0:
torchrun would take it for a failure and tear the other ranks down in the middle of their save.

SIGTERM can mean four things, and only one of them deserves patience:

    a sibling on this node has failed    torchrun tears the gang down     SIGKILL now
    `abort.json`, or torchrun has died   the attempt is lost              SIGKILL now
    no `stop.json` within 5 s            torchrun ends for its own reason SIGTERM, SIGKILL 3 s later
    `stop.json`                          preemption: the child is saving  wait

Patience ends after 22 s, because torchrun sends SIGKILL 30 s after its SIGTERM. Nobody hurries us
when torchrun ignores SIGTERM (the agent asks for that, a newer torch obeys), or when there is no
torchrun: then the agent ends the save after `CLUSTERLM_STOP_GRACE`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from clusterlm.node.codes import (
    EXIT_FENCED,
    EXIT_NOT_STARTED,
    EXIT_RESUME,
    EXIT_USAGE,
    shell_code,
)
from clusterlm.node.files import has_appeared, write_json
from clusterlm.node.last_error import LastError, read_last_error
from clusterlm.node.oom import count_kills, has_struck
from clusterlm.node.processes import (
    Wakeup,
    adopt_orphans,
    ignores_sigterm,
    kill_below,
    let_parent_die,
    reap,
    signal_below,
    start,
)
from clusterlm.node.progress import Fenced, refuse_if_fenced
from clusterlm.node.records import ExitRecord, RankStart
from clusterlm.node.scrub import Scrubber
from clusterlm.node.secret_env import printable_argv, redactor_in

LOOK_EVERY_S = 0.5
SAVE_PATIENCE_S = 22.0
STOP_FILE_WAIT_S = 5.0
TERM_TO_KILL_S = 3.0
KILL_WAIT_S = 2.0


@dataclass(frozen=True)
class Place:
    """Which rank this is, as torchrun says; without torchrun it is rank 0 of 1."""

    attempt_dir: Path
    rank: int
    local_rank: int
    local_size: int
    node_rank: int
    host: str

    @classmethod
    def from_environ(cls) -> Place:
        environ = os.environ
        return cls(
            attempt_dir=Path(environ["CLUSTERLM_ATTEMPT_DIR"]),
            rank=int(environ.get("RANK", 0)),
            local_rank=int(environ.get("LOCAL_RANK", 0)),
            local_size=int(environ.get("LOCAL_WORLD_SIZE", 1)),
            node_rank=int(environ.get("CLUSTERLM_NODE_RANK") or environ.get("GROUP_RANK") or 0),
            # the name Slurm knows the node by; it is the one to exclude
            host=environ.get("SLURMD_NODENAME") or os.uname().nodename,
        )

    @property
    def log_name(self) -> str:
        return f"logs/rank{self.rank}.log"

    def exit_of(self, rank: int) -> Path:
        return self.attempt_dir / "exits" / f"rank{rank}.json"

    def siblings(self) -> list[int]:
        """The other ranks of this node; torchrun numbers a node's ranks in one go."""
        first = self.rank - self.local_rank
        return [rank for rank in range(first, first + self.local_size) if rank != self.rank]


class RankParent:
    """Starts the command, waits for it, and writes down how it ended."""

    def __init__(self, place: Place, command: Sequence[str]) -> None:
        self._place, self._command = place, list(command)
        self._launcher = os.getppid()
        self._wakeup = Wakeup()
        self._sigterm_at: float | None = None
        self._sigterm_sent_at: float | None = None
        self._ended_by: str | None = None
        self._started = self._ended = time.time()
        self._kills = count_kills()
        self._hide = redactor_in(os.environ)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note_sigterm)

    def run(self) -> int:
        """The code to exit with."""
        log = self._place.attempt_dir / self._place.log_name
        try:
            refuse_if_fenced()
            offset = self._write_header(log)
            self._scrubber = Scrubber(log, self._hide, offset)
            self._child = start(self._command, env=_child_env(), log=log, own_session=False)
        except Fenced as error:
            self._ended_by = "fence"
            return self._record(EXIT_FENCED, LastError(str(error), None))
        except OSError as error:
            return self._record(EXIT_NOT_STARTED, LastError(f"cannot start: {error}", None))
        self._record_start()
        returncode = self._wait()
        self._scrubber.look(to_the_end=True)
        if returncode in (0, EXIT_RESUME):
            return self._record(returncode, LastError(None, None))
        return self._record(returncode, read_last_error(log, offset=offset))

    def _wait(self) -> int:
        # a child that has ended is seen before any reason to end it: its own end counts
        while (returncode := reap(self._child)) is None:
            reason = self._reason_to_end()
            if reason is not None:
                self._end_child(reason)
            self._scrubber.look()
            self._wakeup.sleep(LOOK_EVERY_S)
        self._ended = time.time()
        if self._sigterm_at is not None and returncode in (-signal.SIGKILL, -signal.SIGTERM):
            # the agent or Slurm was quicker than our own patience
            was_stop = has_appeared(self._place.attempt_dir / "stop.json")
            self._ended_by = self._ended_by or ("stop" if was_stop else "agent")
        return returncode

    def _reason_to_end(self) -> str | None:
        """Why the child must end now (see the head of this file), or None."""
        if os.getppid() != self._launcher:
            return "launcher gone"
        if self._sigterm_at is None:
            return None
        if has_appeared(self._place.attempt_dir / "abort.json"):
            return "abort"
        if self._sibling_has_failed():
            return "sibling"
        waited = time.monotonic() - self._sigterm_at
        if not has_appeared(self._place.attempt_dir / "stop.json"):
            return "launcher" if waited > STOP_FILE_WAIT_S else None
        return "stop" if waited > self._patience_s() else None

    def _patience_s(self) -> float:
        agent = os.environ.get("CLUSTERLM_AGENT_PID")
        if agent == str(self._launcher) or ignores_sigterm(self._launcher):
            return float("inf")
        return SAVE_PATIENCE_S

    def _sibling_has_failed(self) -> bool:
        place = self._place
        found = (ExitRecord.read(place.exit_of(rank)) for rank in place.siblings())
        return any(record is not None and not record.ended_well for record in found)

    def _end_child(self, reason: str) -> None:
        if self._ended_by is None:
            self._ended_by = reason.split()[0]
            self._say(f"ending {self._child.pid}: {reason}")
        if reason in ("launcher", "stop"):
            # the script may have a handler of its own; without one SIGTERM is ignored
            if self._sigterm_sent_at is None:
                self._sigterm_sent_at = time.monotonic()
                signal_below(signal.SIGTERM)
            if time.monotonic() - self._sigterm_sent_at < TERM_TO_KILL_S:
                return
        # a child that does not die hangs in a driver: leave it to the agent and to Slurm
        for process in kill_below(self._child, within_s=KILL_WAIT_S):
            self._say(f"{process.pid} does not die (state {process.state})")

    def _record_start(self) -> None:
        place = self._place
        start_record = RankStart(
            rank=place.rank,
            local_rank=place.local_rank,
            node_rank=place.node_rank,
            host=place.host,
            pid=os.getpid(),
            child_pid=self._child.pid,
            time=self._started,
        )
        path = place.attempt_dir / "heartbeats" / f"rank{place.rank}.json"
        _write(path, start_record.to_dict())

    def _record(self, returncode: int, found: LastError) -> int:
        """Write the exit record; the code to exit with."""
        place = self._place
        record = ExitRecord(
            rank=place.rank,
            local_rank=place.local_rank,
            node_rank=place.node_rank,
            host=place.host,
            pid=os.getpid(),
            started=self._started,
            time=self._ended,
            code=returncode if returncode >= 0 else None,
            signal=signal.Signals(-returncode).name if returncode < 0 else None,
            error=found.error and self._hide(found.error),
            traceback=found.traceback and self._hide(found.traceback),
            log=place.log_name,
            ended_by=self._ended_by,
            out_of_memory=(
                has_struck(self._kills, count_kills()) if returncode == -signal.SIGKILL else None
            ),
        )
        _write(place.exit_of(place.rank), record.to_dict())
        self._say(f"ended with {record.signal or record.code}: {record.error or 'no error'}")
        return 0 if returncode == EXIT_RESUME else shell_code(returncode)

    def _write_header(self, log: Path) -> int:
        """Head this start in the log; the offset behind it, where the child's output begins."""
        place = self._place
        log.parent.mkdir(parents=True, exist_ok=True)
        shown = " ".join(printable_argv(self._command, os.environ))
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as handle:
            handle.write(
                f"=== {time.strftime('%Y-%m-%d %H:%M:%S %z')} rank {place.rank} on {place.host}"
                f" pid {os.getpid()} attempt {os.environ.get('CLUSTERLM_ATTEMPT', '?')}: {shown}\n"
            )
            handle.flush()
            return handle.tell()

    def _note_sigterm(self, signum: int, frame: FrameType | None) -> None:
        if self._sigterm_at is None:
            self._sigterm_at = time.monotonic()

    def _say(self, text: str) -> None:
        print(f"rank {self._place.rank}: {text}", flush=True)


def _child_env() -> dict[str, str]:
    # a rank that is killed has printed what it wanted to; a crash in C shows its Python stack
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


def _write(path: Path, value: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    except OSError as error:
        # the real code must go on to torchrun even when the disk is full
        print(f"cannot write {path}: {error}", flush=True)


def main(argv: Sequence[str]) -> int:
    """Run one rank to its end; the exit code."""
    command = list(argv[1:] if argv[:1] == ["--"] else argv)
    if not command or "CLUSTERLM_ATTEMPT_DIR" not in os.environ:
        print("usage: CLUSTERLM_ATTEMPT_DIR=... python -m clusterlm.node.rank -- COMMAND...")
        return EXIT_USAGE
    let_parent_die()
    adopt_orphans()
    return RankParent(Place.from_environ(), command).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
