"""What short runs of several sizes say about how a training scales: a table and words. Pure.

Weak scaling: the work of a rank (a GPU, or a process on the CPU) stays the same and the global
batch grows with the ranks, so that a perfect network would leave tokens/s per rank as they are.
Efficiency is against the smallest size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

GOOD, FAIR = 0.9, 0.75
"""Efficiencies from which on nothing, or little, needs to be done."""
BAD = 0.5
"""Below it twice the ranks gain nothing at all."""
IMPLAUSIBLE = 1.1
"""More ranks do not make one of them faster."""
HIGH_WAIT = 0.1
HEADS = ("NODES", "RANKS", "TOK/S", "PER RANK", "EFFICIENCY", "STEP", "MFU", "DATA WAIT", "")
WEAK = (
    "weak scaling: every rank does the same work at each size, the global batch grows; "
    "efficiency is tokens/s per rank against the smallest size"
)


@dataclass(frozen=True, order=True)
class Size:
    """So many nodes with so many ranks each."""

    nodes: int
    ranks_per_node: int

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.nodes * self.ranks_per_node

    @property
    def words(self) -> str:
        """`2 nodes`, or `4 ranks` on one."""
        if self.nodes > 1:
            return f"{self.nodes} nodes"
        return "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"


@dataclass(frozen=True)
class Measured:
    """One size. None where the run has come to nothing."""

    size: Size
    tokens_per_s_per_rank: float | None = None
    step_s: float | None = None
    mfu: float | None = None
    data_wait: float | None = None
    problem: str = ""

    @property
    def tokens_per_s(self) -> float | None:
        """Of all ranks."""
        each = self.tokens_per_s_per_rank
        return None if each is None else each * self.size.ranks


@dataclass(frozen=True)
class Setting:
    """What of a job decides what can be done about a bad efficiency."""

    on_gpu: bool
    strategy: str
    stage: int | str | None = None
    gradient_accumulation: int = 1


def efficiency(measured: Sequence[Measured]) -> list[float | None]:
    """Tokens/s per rank of each size against those of the smallest that came through."""
    known = [one for one in measured if one.tokens_per_s_per_rank]
    if not known:
        return [None] * len(measured)
    base = min(known, key=lambda one: one.size.ranks).tokens_per_s_per_rank or 1.0
    return [
        one.tokens_per_s_per_rank / base if one.tokens_per_s_per_rank else None for one in measured
    ]


def table(measured: Sequence[Measured]) -> list[str]:
    """Aligned columns."""
    rows: list[tuple[str, ...]] = [HEADS]
    for one, share in zip(measured, efficiency(measured), strict=True):
        rows.append(
            (
                str(one.size.nodes),
                str(one.size.ranks),
                _number(one.tokens_per_s, ",.0f"),
                _number(one.tokens_per_s_per_rank, ",.0f"),
                _number(share, ".0%"),
                _number(one.step_s, ".3g", " s"),
                _number(one.mfu, ".1%"),
                _number(one.data_wait, ".0%"),
                one.problem,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def verdict(measured: Sequence[Measured], setting: Setting) -> list[str]:
    """In words: what the table says, and what to look at."""
    known = sorted((m for m in measured if m.tokens_per_s_per_rank), key=lambda m: m.size.ranks)
    if len(known) < 2:
        return ["one size alone says nothing about scaling: two have to come through"]
    shares = dict(zip((m.size for m in measured), efficiency(measured), strict=True))
    lines, worst = [], known[0]
    for one in known[1:]:
        share = shares[one.size] or 0.0
        judged = _judged(share, known[0], one, setting)
        lines.append(f"{one.size.words} run at {share:.0%} per rank: {judged}")
        worst = min(worst, one, key=lambda m: shares[m.size] or 0.0)
    if (shares[worst.size] or 0.0) < GOOD:
        lines += [f"  look at: {text}" for text in _advice(known[0], worst, setting)]
    return lines


def to_json(measured: Sequence[Measured], setting: Setting) -> dict[str, Any]:
    """For programs."""
    sizes = [
        {
            "nodes": one.size.nodes,
            "ranks": one.size.ranks,
            "tokens_per_s": one.tokens_per_s,
            "tokens_per_s_per_rank": one.tokens_per_s_per_rank,
            "efficiency": share,
            "step_s": one.step_s,
            "mfu": one.mfu,
            "data_wait": one.data_wait,
            "problem": one.problem or None,
        }
        for one, share in zip(measured, efficiency(measured), strict=True)
    ]
    return {"scaling": "weak", "sizes": sizes, "verdict": verdict(measured, setting)}


def _judged(share: float, base: Measured, one: Measured, setting: Setting) -> str:
    if share > IMPLAUSIBLE:
        return "more than the smallest size: something slowed that one down; measure again"
    what = "the network" if one.size.nodes > 1 else "the node"
    if share < BAD:
        return f"BAD, {_gain(base, one)}; {_suspect(one, setting)}"
    if share >= GOOD:
        return f"{what} holds"
    if share >= FAIR:
        return f"{what} costs {1 - share:.0%}"
    return f"{what} takes more than a quarter; more of it will not pay"


def _gain(base: Measured, one: Measured) -> str:
    """`4 ranks do 1.2 times the work of 1`."""
    times = (one.tokens_per_s or 0.0) / (base.tokens_per_s or 1.0)
    less = ", less than these alone" if times < 1 else ""
    return f"{one.size.ranks} ranks do {times:.2g} times the work of {base.size.ranks}{less}"


def _suspect(one: Measured, setting: Setting) -> str:
    if one.size.nodes > 1:
        return "do not train at this size before the network between the nodes is mended"
    if setting.on_gpu:
        return "do not train at this size before the links between the GPUs are mended"
    return "do not train at this size: its ranks take each other's cores"


def _advice(base: Measured, worst: Measured, setting: Setting) -> list[str]:
    found = []
    if (worst.data_wait or 0.0) > max(HIGH_WAIT, 2 * (base.data_wait or 0.0)):
        found.append(
            f"data, {worst.data_wait:.0%} of the time is a wait for it: more "
            "train.dataloader_num_workers, a faster file system for the cache"
        )
    if setting.on_gpu and worst.size.nodes > 1:
        found.append(
            "NCCL: env: {NCCL_DEBUG: INFO} says NET/IB or NET/Socket; NCCL_IB_HCA and "
            "NCCL_SOCKET_IFNAME choose the card, and NCCL_IB_DISABLE must not be 1"
        )
    if setting.strategy == "fsdp" or (setting.strategy == "deepspeed" and setting.stage == 3):
        found.append(
            "ZeRO stage: weights are gathered in every pass; where they fit, stage 2 "
            "(fsdp: shard: gradients) sends a third less"
        )
    if setting.gradient_accumulation < 8:
        found.append(
            "global batch: gradients are exchanged once a step; a larger micro_batch_size or "
            f"gradient_accumulation (now {setting.gradient_accumulation}) does so more rarely"
        )
    if not setting.on_gpu:
        found.append("cores: ranks on the CPU of one machine share its cores and memory")
    return found


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
