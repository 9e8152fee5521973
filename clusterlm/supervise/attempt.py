"""One attempt: started, watched, stopped. What it sees goes to `judge` as values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clusterlm.node.files import read_json, write_json
from clusterlm.node.heartbeat import BeatWatch
from clusterlm.node.records import NodeBeat, read_beats, read_exits, read_starts
from clusterlm.paths import AttemptPaths
from clusterlm.spec.recovery import Recovery
from clusterlm.supervise.listener import Listener
from clusterlm.supervise.step import Step
from clusterlm.supervise.views import AttemptView

TAIL_BYTES = 8192
END_LAG_S = 30.0
"""From the end of the last node's agent to that of its step; the client tells it at once."""
WHOLE_BYTES = 512 * 1024
"""Read once a step has ended: each of many nodes may have said why its image did not start."""


@dataclass
class Attempt:
    """A running attempt and what has been seen of it so far (own clock, monotonic seconds)."""

    paths: AttemptPaths
    nodes: Sequence[str]
    num_ranks: int
    recovery: Recovery
    step: Step
    listener: Listener | None = None
    """Network heartbeats; None on one node."""
    started: float = field(default_factory=time.monotonic)
    stop_reason: str | None = None
    _beats: BeatWatch = field(init=False)
    _silence: dict[str, float] = field(default_factory=dict)
    _step_seen: tuple[int, float] | None = None
    _evaluated: object = None
    _usual_step_s: float | None = None
    _failed: float | None = None

    def __post_init__(self) -> None:
        self._beats = BeatWatch(range(len(self.nodes)), self.started)

    def ask_to_stop(self, reason: str, by: str) -> None:
        """Ask every rank to save and end. The first reason stays."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if not self.paths.stop.exists():
                write_json(self.paths.stop, {"reason": reason, "by": by, "time": time.time()})

    def end_now(self, reason: str) -> None:
        """End what is left of it at once: agents see `abort.json`, the step's client is killed."""
        if self.listener:
            self.listener.close()
        if self.step.poll() is not None:
            return
        write_json(self.paths.abort, {"reason": reason, "time": time.time()})
        # agents poll twice a second; srun then ends by itself unless a node is dead
        if self.step.wait(4.0) is None:
            self.step.end_now()

    def view(self, now: float) -> AttemptView:
        """What is to be seen at this moment."""
        self._notice_stop()
        self._notice_step(now)
        exits = read_exits(self.paths.root)
        if self._failed is None and any(not e.ended_well for e in exits):
            self._failed = now
        beats = {beat.node_rank: beat for beat in read_beats(self.paths.root)}
        ages = self._beats.look(beats.values(), now)
        code = self.step.poll()
        if code is None:
            code = self._code_of_nodes(beats, ages)
        return AttemptView(
            exits=exits,
            expected_ranks=self.num_ranks,
            step_code=code,
            step_tail=self._tail(TAIL_BYTES if code is None else WHOLE_BYTES),
            nodes=self.nodes if self.step.has_labels else (),
            stop_reason=self.stop_reason,
            silent=self._silent(beats, ages, now),
            started_s_ago=now - self.started,
            failed_s_ago=now - self._failed if self._failed is not None else 0.0,
            ranks_seen=len(read_starts(self.paths.root)),
            step_s_ago=now - self._step_seen[1] if self._step_seen else None,
            usual_step_s=self._usual_step_s,
            startup_timeout_s=self.recovery.startup_timeout,
            hang_after_s=_seconds(self.recovery.hang_after),
        )

    def silence(self) -> dict[str, float]:
        """Seconds since each node's heartbeat changed, as of the last view."""
        return {host: round(age, 1) for host, age in self._silence.items()}

    def _notice_stop(self) -> None:
        # an agent that got SIGTERM has written it: the nodes are being taken away
        if self.stop_reason is None and (stop := read_json(self.paths.stop)):
            self.stop_reason = str(stop.get("reason", "preempted"))

    def _notice_step(self, now: float) -> None:
        progress = read_json(self.paths.progress) or {}
        step, evaluated = progress.get("step"), progress.get("evaluated")
        if not isinstance(step, int):
            return
        if self._step_seen and self._step_seen[0] == step and self._evaluated == evaluated:
            return
        # a long evaluation is no hang while its batches go by
        self._evaluated = evaluated
        if self._step_seen and step > self._step_seen[0]:
            self._usual_step_s = (now - self._step_seen[1]) / (step - self._step_seen[0])
        self._step_seen = (step, now)

    def _silent(
        self, beats: Mapping[int, NodeBeat], ages: Mapping[int, float], now: float
    ) -> dict[str, float]:
        """Hosts silent for too long; one that has not begun yet gets the start-up time."""
        # the network goes before the files: a cut node may still write to a shared folder, and a
        # file system that hangs silences every node at once
        ages = {**ages, **(self.listener.silence(now) if self.listener else {})}
        self._silence = {self.nodes[r]: age for r, age in ages.items() if r in beats}
        silent = {}
        for rank, age in ages.items():
            begun = beats.get(rank)
            limit = self.recovery.heartbeat_timeout if begun else self.recovery.startup_timeout
            if age > limit and not (begun and begun.state == "exited"):
                silent[self.nodes[rank]] = age
        return silent

    def _code_of_nodes(
        self, beats: Mapping[int, NodeBeat], ages: Mapping[int, float]
    ) -> int | None:
        """The exit code of a step that is over on every node, and whose client does not say so.

        In Slurm 26.05 srun ends when the controller was told so, however long that is away.
        """
        all_exited = len(beats) >= len(self.nodes) and all(
            beat.state == "exited" for beat in beats.values()
        )
        if not all_exited or min(ages.values()) < END_LAG_S:
            return None
        return max(beat.exit_code or 0 for beat in beats.values())

    def _tail(self, num_bytes: int) -> str:
        try:
            with (self.paths.logs / "step.log").open("rb") as handle:
                handle.seek(0, 2)
                handle.seek(max(0, handle.tell() - num_bytes))
                return handle.read().decode(errors="replace")
        except OSError:
            return ""


def _seconds(value: int | str) -> float | None:
    return None if isinstance(value, str) else float(value)
