"""Does it fit, and if not, the nearest setting that does.

Changes are tried one after the other, each on top of those before, from what costs least to what
changes the training most; then those that were not needed after all are taken back. Only changes of
the plan's own making are proposed, with the `--set` to type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from clusterlm.plan.memory import MARGIN, Memory, memory_per_rank
from clusterlm.plan.setup import Setup, with_adapter
from clusterlm.plan.zero import Zero, zero_stage

MOST_NODES = 1024
RANK = 16


@dataclass(frozen=True)
class Machine:
    """What there is; None where it is not known.

    Attributes:
        gpu: bytes of one GPU.
        host: bytes of one node.
        disk: free bytes where the runs lie.
    """

    gpu: float | None = None
    host: float | None = None
    disk: float | None = None


@dataclass(frozen=True)
class Limit:
    """One thing that may be too small."""

    name: str
    need: float
    have: float | None
    # bytes that are there whatever the estimate of the rest is worth
    at_least: float = 0.0

    @property
    def fits(self) -> bool:
        return self.have is None or self.need <= self.have

    @property
    def is_certain(self) -> bool:
        """Too small by more than the error of the estimate, or by what is no estimate."""
        if self.have is None:
            return False
        return max(self.need * (1 - MARGIN), self.at_least) > self.have


@dataclass(frozen=True)
class Change:
    """A step of the search: the setups it gives, and what to type for it."""

    words: str
    apply: Callable[[Setup], Setup | None]
    typed: Callable[[Setup], list[str]]


@dataclass(frozen=True)
class Proposal:
    """A setting that fits."""

    settings: tuple[str, ...]
    words: tuple[str, ...]
    setup: Setup
    memory: Memory


def limits_of(setup: Setup, machine: Machine, *, disk: float = 0.0) -> list[Limit]:
    """All of them, those that are not known too."""
    memory = memory_per_rank(setup)
    offloaded = sum(n for name, n in memory.host.items() if name.startswith("offloaded"))
    host = Limit("host", memory.host_peak, machine.host, at_least=offloaded)
    limits = [] if setup.on_cpu else [Limit("GPU", memory.peak, machine.gpu, memory.standing)]
    return [*limits, host, *([Limit("disk", disk, machine.disk)] if disk else [])]


def fits(setup: Setup, machine: Machine) -> bool:
    """Whether GPU and host are large enough, as far as they are known."""
    return all(limit.fits for limit in limits_of(setup, machine))


def nearest_that_fits(setup: Setup, machine: Machine) -> Proposal | None:
    """The least change that fits; None when nothing tried does."""
    taken: list[Change] = []
    for change in _changes(setup):
        if _apply(setup, [*taken, change]) is None:
            continue
        taken.append(change)
        made = _apply(setup, taken)
        if made is not None and fits(made, machine):
            return _proposal(setup, _needed(setup, taken, machine))
    return None


def _needed(setup: Setup, taken: list[Change], machine: Machine) -> list[Change]:
    for change in list(taken[:-1]):
        fewer = [other for other in taken if other is not change]
        made = _apply(setup, fewer)
        if made is not None and fits(made, machine):
            taken = fewer
    return taken


def _apply(setup: Setup, changes: list[Change]) -> Setup | None:
    made: Setup | None = setup
    for change in changes:
        made = change.apply(made) if made is not None else None
    return made


def _proposal(setup: Setup, changes: list[Change]) -> Proposal:
    made, settings = setup, {}
    for change in changes:
        following = change.apply(made)
        assert following is not None
        made = following
        for line in change.typed(made):
            # a later stage goes before an earlier one
            settings[line.partition("=")[0]] = line
    for key, before, after in (
        ("micro_batch_size", setup.micro_batch, made.micro_batch),
        ("gradient_accumulation", setup.accumulation, made.accumulation),
    ):
        if before != after:
            settings[key] = f"train.{key}={after}"
    kept = {c.words.partition(" ")[0]: c.words for c in changes}
    return Proposal(tuple(settings.values()), tuple(kept.values()), made, memory_per_rank(made))


def _changes(setup: Setup) -> Iterator[Change]:
    yield Change("micro batch 1", _one_block, lambda s: [])
    yield Change(
        "activation checkpointing",
        lambda s: replace(s, recompute_every=1) if s.recompute_every != 1 else None,
        lambda s: ["train.activation_checkpointing=true"],
    )
    if setup.ranks > 1 or not setup.on_cpu:
        yield from _stages(setup)
    for nodes in _more_nodes(setup):
        yield Change(
            f"nodes {nodes}",
            lambda s, nodes=nodes: _on_nodes(s, nodes),  # type: ignore[misc]
            lambda s: [f"resources.nodes={s.nodes}"],
        )
    if setup.mode == "full":
        yield Change(
            f"adapter of rank {RANK} on frozen weights in place of all weights",
            lambda s: with_adapter(s, RANK),
            lambda s: ["train.mode=adapter", f"model.adapter={{r: {RANK}}}"],
        )


def _stages(setup: Setup) -> Iterator[Change]:
    for stage, optimizer, weights in ((2, 0, 0), (3, 0, 0), (3, 1, 0), (3, 1, 1)):
        zero = zero_stage(
            stage,
            hidden=setup.shape.hidden,
            offload_optimizer=bool(optimizer),
            offload_parameters=bool(weights),
        )
        yield Change(f"stage {zero.words}", lambda s, z=zero: _staged(s, z), _type_zero)  # type: ignore[misc]


def _staged(setup: Setup, zero: Zero) -> Setup | None:
    before = setup.zero
    if before is not None and not before.is_own:
        ranks = (before.stage, before.offload_optimizer, before.offload_parameters)
        if (zero.stage, zero.offload_optimizer, zero.offload_parameters) <= ranks:
            return None
    if setup.quantized:
        return None
    return replace(setup, zero=zero, fsdp="", fsdp_offload=False)


def _one_block(setup: Setup) -> Setup | None:
    if setup.micro_batch == 1:
        return None
    return replace(setup, micro_batch=1, accumulation=setup.accumulation * setup.micro_batch)


def _on_nodes(setup: Setup, nodes: int) -> Setup:
    accumulation = max(1, setup.accumulation * setup.nodes // nodes)
    return replace(setup, nodes=nodes, accumulation=accumulation)


def _more_nodes(setup: Setup) -> Iterator[int]:
    nodes = setup.nodes
    is_split = setup.on_cpu or setup.ranks > 1 or setup.ranks_per_node >= 1
    while is_split and (nodes := nodes * 2) <= MOST_NODES:
        yield nodes


def _type_zero(setup: Setup) -> list[str]:
    zero = setup.zero
    assert zero is not None
    parts = [f"stage: {zero.stage}"]
    parts += ["offload_optimizer: true"] * zero.offload_optimizer
    parts += ["offload_parameters: true"] * zero.offload_parameters
    return ["train.strategy=deepspeed", f"train.deepspeed={{{', '.join(parts)}}}"]
