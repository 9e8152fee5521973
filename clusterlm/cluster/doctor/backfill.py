"""How long may a job be that starts now: until waiting jobs, or a reservation, get the idle nodes.

Slurm's own backfill decides so, and `sbatch --test-only` does not show it (`estimate.py`). What is
idle, which nodes a waiting job is to get and when (squeue tells both), and which reservations
begin, say it without using up a job id. Pessimistic: a node counts as idle when nothing runs on it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clusterlm.cluster.doctor.hostlist import expand
from clusterlm.cluster.doctor.words_of_slurm import records, rows, word, words, written
from clusterlm.cluster.host import Host
from clusterlm.cluster.slurm import CLIENT_TIMEOUT_S, last_words
from clusterlm.errors import SlurmUnreachable
from clusterlm.spec.resources import Resources

FOR_EVER = 10.0 * 365 * 86400
MARGIN_S = 120.0
"""Schedulers run in rounds."""
SHORTEST_S = 600
"""A shorter job is no training."""
# planned: idle, and a waiting job is to get it (since 21.08)
_FREE = ("idle", "planned")
IDLE_ARGV = ("sinfo", "-h", "-N", "-o", "%N|%T|%P|%G|%f")
WAITING_ARGV = ("squeue", "-h", "-t", "PD", "-o", "%S|%Y")
RESERVATIONS_ARGV = ("scontrol", "-o", "show", "reservation")


@dataclass(frozen=True)
class Gap:
    """How long each idle node stays so, longest first; seconds."""

    seconds: tuple[float, ...]

    def for_nodes(self, count: int) -> float:
        """The longest job on that many nodes that starts now; 0.0 for none."""
        return self.seconds[count - 1] if 0 < count <= len(self.seconds) else 0.0

    def most_nodes(self, time_s: float) -> int:
        """Nodes of the largest job of this length that starts now."""
        return sum(one >= time_s for one in self.seconds)


def look_for_gaps(host: Host, asked: Resources, partition: str, now: float) -> Gap:
    """Ask Slurm three questions.

    Raises:
        SlurmUnreachable: no answer.
    """
    texts = []
    for argv in (IDLE_ARGV, WAITING_ARGV, RESERVATIONS_ARGV):
        done = host.run(argv, timeout_s=CLIENT_TIMEOUT_S)
        if not done.is_ok:
            raise SlurmUnreachable(f"{argv[0]} does not answer: {last_words(done)}")
        texts.append(done.out)
    return gaps(idle_nodes(texts[0], asked, partition), texts[1], texts[2], now, asked.reservation)


def idle_nodes(text: str, asked: Resources, partition: str) -> list[str]:
    """Nodes of the partition on which nothing runs and that the job could use. Pure."""
    excluded = set(expand(asked.exclude)) if asked.exclude else set()
    found = []
    for name, state, of, gres, features in rows(text, 5):
        fits = not asked.gpus_per_node or re.search(rf"\bgpu:{_kind(asked)}", gres)
        if state in _FREE and of.rstrip("*") == partition and fits and name not in excluded:
            wanted = asked.constraint
            # `a100&nvlink`: only a single word is understood here
            if wanted is None or wanted in words(features):
                found.append(name)
    return found


def _kind(asked: Resources) -> str:
    return rf"{re.escape(asked.gpu_type)}\b" if asked.gpu_type else ""


def gaps(
    idle: Iterable[str], waiting: str, reservations: str, now: float, own: str | None = None
) -> Gap:
    """Until when idle nodes stay so. Pure.

    Args:
        idle: nodes.
        waiting: start and nodes of waiting jobs, as squeue plans them.
        reservations: of `scontrol -o show reservation`.
        now: unix seconds.
        own: reservation that the job uses.
    """
    taken: dict[str, float] = {}
    for start, nodes in rows(waiting, 2):
        if (at := _unix(start)) is not None and word(nodes):
            _take(taken, nodes, at)
    for one in records(reservations, "ReservationName"):
        if one["ReservationName"] != own and _is_ahead(one, now):
            _take(taken, one.get("Nodes", ""), _unix(one.get("StartTime", "")) or now)
    left = [max(0.0, taken.get(node, now + FOR_EVER) - now - MARGIN_S) for node in idle]
    return Gap(tuple(sorted(left, reverse=True)))


def _take(taken: dict[str, float], nodes: str, at: float) -> None:
    for node in expand(nodes):
        taken[node] = min(at, taken.get(node, at))


def _is_ahead(reservation: Mapping[str, str], now: float) -> bool:
    end = _unix(reservation.get("EndTime", ""))
    return end is None or end > now


def _unix(text: str) -> float | None:
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return None


def rounded_s(seconds: float) -> int:
    """A time limit that a person would write: whole ten minutes, or five below an hour."""
    step = 300 if seconds < 3600 else 600
    return int(seconds // step * step)


def smaller_that_starts(gap: Gap, nodes: int, time_s: int) -> Sequence[str]:
    """What would start now in place of a job that would not, in words; best first. Pure."""
    found = []
    longest = rounded_s(min(gap.for_nodes(nodes), time_s))
    if SHORTEST_S <= longest < time_s:
        found.append(f"with resources.time: {written(longest)} it starts now, as things are")
    fewer = min(gap.most_nodes(time_s), nodes - 1)
    if fewer >= 1:
        found.append(
            f"with resources.nodes: {fewer} it starts now for its whole time, as things are"
        )
    most = min(gap.most_nodes(SHORTEST_S), nodes - 1)
    if not found and most >= 1:
        longest = rounded_s(gap.for_nodes(most))
        found.append(
            f"with resources.nodes: {most} and resources.time: {written(longest)} it starts now, "
            "as things are"
        )
    return found
