"""Heartbeats of a node: the agent writes them, the supervisor judges them.

The clocks of two nodes may differ by minutes, and a shared file system has a third one. So nobody
compares times: a beat is a counter, and a node is alive when its counter has changed since the
reader looked last, by the reader's own clock.

A beat says that the agent lives *and* that its node can write to the run directory. When the file
system hangs, beats stop although the ranks may still compute: a node that cannot write cannot save
either, so silence is then the right thing to report. Only the beats stop: a thread of their own
writes them, and the agent goes on watching its child.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from clusterlm.node.files import write_json
from clusterlm.node.records import NodeBeat

BEAT_EVERY_S = 5.0
LAST_BEAT_WAIT_S = 10.0
"""How long the end of the agent waits for a beat that hangs in the file system."""


class BeatWriter:
    """Writes `path` every 5 s, and at once when the state changes."""

    def __init__(self, path: Path, *, node_rank: int, host: str) -> None:
        self._path, self._node_rank, self._host = path, node_rank, host
        self._beat, self._state = 0, "running"
        self._ended = False
        self._exit_code: int | None = None
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, daemon=True, name="heartbeat")

    def start(self) -> None:
        self._thread.start()

    def mark(self, state: str) -> None:
        self._state = state
        self._changed.set()

    def finish(self, exit_code: int) -> None:
        """Write the last beat, with state `exited`."""
        self._exit_code, self._ended = exit_code, True
        self.mark("exited")
        if self._thread.ident is None:
            self._thread.start()
        self._thread.join(LAST_BEAT_WAIT_S)

    def _keep_beating(self) -> None:
        while True:
            self._changed.clear()
            is_last = self._ended
            self._write()
            if is_last:
                return
            self._changed.wait(BEAT_EVERY_S)

    def _write(self) -> None:
        self._beat += 1
        beat = NodeBeat(
            node_rank=self._node_rank,
            host=self._host,
            pid=os.getpid(),
            beat=self._beat,
            time=time.time(),
            state=self._state,
            exit_code=self._exit_code,
        )
        try:
            write_json(self._path, beat.to_dict())
        except OSError as error:
            # a full disk must not end the training; the supervisor sees the silence
            print(f"agent: cannot write {self._path.name}: {error}", flush=True)


class BeatWatch:
    """The reader's rule: how long each node has been silent. Pure; time comes in as `now`.

    A node that never wrote counts as silent since the watch began.
    """

    def __init__(self, node_ranks: Iterable[int], now: float) -> None:
        self._last: dict[int, tuple[int | None, float]] = {rank: (None, now) for rank in node_ranks}

    def look(self, beats: Iterable[NodeBeat], now: float) -> dict[int, float]:
        """Take in what the files hold now; seconds of silence by node rank."""
        for beat in beats:
            known, _ = self._last.get(beat.node_rank, (None, now))
            # any change counts, also a lower number: an agent that was started again
            if known != beat.beat:
                self._last[beat.node_rank] = (beat.beat, now)
        return {rank: now - since for rank, (_, since) in self._last.items()}
