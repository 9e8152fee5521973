"""`logs -f`: new lines of all files as they come, and between them what happens to the run.

Goes on from attempt to attempt and from the data phase to the training; ends with the run. Polls
files only: the scheduler is asked, seldom, when the run's own records have fallen silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from clusterlm.cluster.event_words import words_of
from clusterlm.cluster.follow_place import Place
from clusterlm.cluster.log_text import ErrorFilter, readable_line, readable_lines
from clusterlm.cluster.logs import (
    LogFile,
    Wanted,
    attempts_of,
    batch_files,
    files_of,
    newest_lines,
    phase_of,
)
from clusterlm.cluster.records import event_of
from clusterlm.cluster.run_status import RunStatus
from clusterlm.cluster.status import StatusReader
from clusterlm.cluster.tail import Tail
from clusterlm.node.files import read_jsonl
from clusterlm.node.records import read_exits
from clusterlm.node.secret_env import redactor_of
from clusterlm.paths import PHASES, AttemptPaths, RunPaths
from clusterlm.supervise.causes import State
from clusterlm.supervise.failure import plain_failure

POLL_S = 0.3
STATUS_EVERY_S = 2.0
_WORTH_SAYING = (State.PENDING, State.STALLED, State.UNKNOWN)


class Follower:
    """What has been shown of a run so far."""

    def __init__(self, run: RunPaths, wanted: Wanted, say: Callable[[str], None]) -> None:
        self._run, self._wanted, self._say = run, wanted, say
        self._tails: dict[Path, tuple[LogFile, Tail, ErrorFilter]] = {}
        self._over: set[Path] = set()
        """Attempts that ended and were shown to the end."""
        self._failed: set[tuple[object, object]] = set()
        """(phase, attempt) whose first failure was told."""
        self._exits_seen: tuple[Path, int] | None = None
        self._events_offset = 0

    def begin(self, num_lines: int) -> None:
        """Show the newest lines; attempts that ended before are left out from here on."""
        _, self._events_offset = read_jsonl(self._run.events)
        attempts = attempts_of(self._run, self._wanted)
        self._over = {a.root for a in attempts[:-1] if a.exit.exists()}
        lines, offsets = newest_lines(self._run, self._wanted, num_lines)
        for line in lines:
            self._say(line)
        for file in self._files(attempts):
            self._add(file, offsets.get(file.path, 0))

    @property
    def place(self) -> Place:
        """How far it has come; another follower can go on from there."""
        root = self._run.root
        files = {
            str(path.relative_to(root)): [tail.whole_offset, tail.is_skipping, errors.is_open]
            for path, (_, tail, errors) in self._tails.items()
        }
        return {
            "events": self._events_offset,
            "over": sorted(str(folder.relative_to(root)) for folder in self._over),
            "failed": sorted(map(list, self._failed), key=str),
            "files": files,
        }

    def go_on_from(self, place: Place) -> None:
        """Show what has come since another follower was there."""
        root = self._run.root
        self._events_offset = place["events"]
        self._failed = {(phase, number) for phase, number in place["failed"]}
        self._over = {root / folder for folder in place["over"]}
        for file in self._files(attempts_of(self._run, self._wanted)):
            # a file that came since is shown from its beginning
            at = place["files"].get(str(file.path.relative_to(root)), [0, False, False])
            self._add(file, at[0])
            _, tail, errors = self._tails[file.path]
            tail.is_skipping, errors.is_open = at[1], at[2]

    def poll(self, now: float, *, is_last: bool = False) -> bool:
        """Show what is new; says whether there is more to read at once."""
        more = self._show_lines(now, is_last)
        attempts = attempts_of(self._run, self._wanted)
        self._drop_ended(attempts)
        self._show_events()
        self._show_failure(attempts)
        for file in self._files(attempts):
            if file.path not in self._tails:
                self._add(file, 0)
                more = True
        return more

    def mark(self, text: str) -> None:
        """A line of our own between those of the logs."""
        self._say(f"--- {text} ---")

    def _files(self, attempts: list[AttemptPaths]) -> list[LogFile]:
        files = batch_files(self._run, self._wanted)
        for attempt in attempts:
            if attempt.root not in self._over:
                files += files_of(attempt, self._wanted)
        return files

    def _add(self, file: LogFile, offset: int) -> None:
        self._tails[file.path] = (file, Tail(file.path, offset), ErrorFilter())

    def _drop_ended(self, attempts: list[AttemptPaths]) -> None:
        ended = {a.root for a in attempts[:-1] if a.root not in self._over and a.exit.exists()}
        # one with lines that were not read yet stays for another round
        ended -= {
            file.attempt.root
            for file, tail, _ in self._tails.values()
            if file.attempt is not None and not tail.has_shown_all
        }
        # and one whose files were not even seen, as it came and went between two looks
        ended = {a for a in ended if all(f.path in self._tails for f in self._files_below(a))}
        self._over |= ended
        for path, (file, _, _) in list(self._tails.items()):
            if file.attempt is not None and file.attempt.root in ended:
                del self._tails[path]

    def _files_below(self, root: Path) -> list[LogFile]:
        return files_of(AttemptPaths(root), self._wanted)

    def _show_lines(self, now: float, is_last: bool) -> bool:
        # read anew at every look: a resume may bring other secrets
        more, hide = False, redactor_of(self._run.secrets)
        for file, tail, errors in self._tails.values():
            lines = readable_lines(tail.read(now, is_last=is_last), hide)
            if self._wanted.errors:
                lines = [line for line in lines if errors.passes(line)]
            label = file.label() if lines else ""
            for line in lines:
                self._say(f"{label} {line}")
            more |= not tail.is_at_end
        return more

    def _show_events(self) -> None:
        events, self._events_offset = read_jsonl(self._run.events, self._events_offset)
        for event in events:
            key = (event.get("phase"), event.get("attempt"))
            if event.get("event") == "rank_failed":
                if key in self._failed:
                    continue
                self._failed.add(key)
            if text := words_of(event):
                self.mark(text)

    def _show_failure(self, attempts: list[AttemptPaths]) -> None:
        """The rank's own record is there before the supervisor's event."""
        if not attempts:
            return
        newest = attempts[-1]
        if phase_of(newest) == "encode":
            # one of many; the run's own record has it when its supervisor has seen it
            return
        seen = (newest.root, sum(1 for _ in newest.exits.glob("rank*.json")))
        phase = phase_of(newest)
        if seen == self._exits_seen or (phase, newest.number) in self._failed:
            return
        self._exits_seen = seen
        failure = plain_failure(read_exits(newest.root))
        if failure is not None:
            self._failed.add((phase, newest.number))
            self.mark(words_of(event_of(failure, phase, newest.number)))


def follow(
    run: RunPaths,
    wanted: Wanted,
    num_lines: int,
    *,
    say: Callable[[str], None],
    reader: StatusReader | None = None,
    place: Place | None = None,
    came_to: Callable[[Place], None] = lambda place: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Show the newest lines, then every new one until the run has ended; gives its last state.

    Args:
        run: which.
        wanted: which of its lines.
        num_lines: how many of those that are there.
        say: gets each line.
        reader: of its state.
        place: go on from there, in place of the newest lines.
        came_to: gets, after each look, the place that the lines so far lead up to.
        clock: by which looks are timed.
        sleep: between them.
    """
    reader = reader or StatusReader(run.root.parent)
    follower = Follower(run, wanted, say)
    if place is None:
        follower.begin(num_lines)
    else:
        follower.go_on_from(place)
    looked, said = float("-inf"), ""
    while True:
        now = clock()
        more = follower.poll(now)
        came_to(follower.place)
        if now - looked >= STATUS_EVERY_S:
            looked = now
            status = reader.glance_at(run)
            if status.state.is_final or _is_over(run, wanted, status):
                break
            text = f"{status.state.value}: {status.evidence}".rstrip(": ")
            if text != said and status.state in _WORTH_SAYING:
                follower.mark(readable_line(text))
            said = text
        if not more:
            sleep(POLL_S)
    # ranks that were killed may still have written a line
    sleep(POLL_S)
    while follower.poll(clock(), is_last=True):
        pass
    came_to(follower.place)
    return status


def _is_over(run: RunPaths, wanted: Wanted, status: RunStatus) -> bool:
    """Whether no wanted line can come any more although the run goes on."""
    order: dict[str, int] = {phase: number for number, phase in enumerate(PHASES)}
    if wanted.phase and order.get(status.phase, 0) > order[wanted.phase]:
        return True
    if wanted.attempt is None:
        return False
    attempts = attempts_of(run, wanted)
    return bool(attempts) and all(attempt.exit.exists() for attempt in attempts)
