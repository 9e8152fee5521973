"""The weights of a base written anew with the changes of adapters, one tensor after the other.

In memory is one tensor of the base in float32, the adapters, and what the writer buffers: a model
of any size can be merged on a laptop that has the disk for it.

    tied, both change alike        written once, as the base has it
    tied, they come to differ      both are written, and the model is no longer tied
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from clusterlm.errors import WeightsError
from clusterlm.spec.weight_names import has_same_names
from clusterlm.weights.changes import Changes, LowRank, Whole
from clusterlm.weights.files import Weights
from clusterlm.weights.layout import Layout
from clusterlm.weights.numbers import FLOATS
from clusterlm.weights.writer import WeightsWriter

LARGEST_F16 = 65504.0
STORED_AS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class Plan:
    """What will be written, checked before the first byte is.

    Attributes:
        changes: of all adapters, in order.
        untied: names of tied parameters that come to differ, each written on its own.
        rows: of the embedding, where they are others than those of the base.
    """

    changes: Changes
    untied: frozenset[str]
    rows: int | None


def plan_merge(layout: Layout, adapters: Sequence[Changes]) -> Plan:
    """Put the changes of several adapters behind each other.

    Raises:
        WeightsError: one does not fit, or input and output would get different numbers of rows.
    """
    changes: Changes = {}
    for adapter in adapters:
        for name, steps in adapter.items():
            changes.setdefault(name, []).extend(steps)
    untied = frozenset(
        name
        for group in set(layout.partners.values())
        if not all(_alike(changes.get(group[0], []), changes.get(name, [])) for name in group)
        for name in group
    )
    if strange := sorted(untied - set(layout.embeddings)):
        raise WeightsError(f"{strange[0]} is tied to another weight that is no embedding")
    shapes = {name: _shape_after(layout, name, steps) for name, steps in changes.items()}
    tables = {name: shapes.get(name, layout.parameters[name]) for name in layout.embeddings}
    if len(rows := {shape[0] for shape in tables.values()}) > 1:
        found = ", ".join(f"{name} {shape[0]}" for name, shape in tables.items())
        raise WeightsError(f"the merged tables would have different numbers of rows: {found}")
    before = {layout.parameters[name][0] for name in layout.embeddings}
    return Plan(changes, untied, None if rows == before else next(iter(rows)))


def write_merged(
    base: Path, layout: Layout, plan: Plan, to: Path, *, dtype: str | None, max_shard_bytes: int
) -> int:
    """Write the merged weights into the folder `to`.

    Args:
        base: folder of the base's weights.
        layout: its names.
        plan: what changes.
        to: an existing folder.
        dtype: a key of STORED_AS; None keeps the type of each tensor.
        max_shard_bytes: of a file.

    Returns:
        Number of tensors that were changed.

    Raises:
        WeightsError: the base keeps a changed weight under a name that is not known, or is not
            whole; or a number does not fit into the type.
    """
    with Weights.open(base) as weights:
        names = layout.names_in_model(weights.names)
        if has_same_names(str(base)):
            _refuse_partial_base(layout, {name: weights.shape(own) for own, name in names.items()})
        _refuse_hidden(layout, plan, set(names.values()))
        writer = WeightsWriter(to, max_shard_bytes)
        written: set[str] = set()
        for stored in weights.names:
            for name in _written_from(stored, names, plan, layout, written):
                written.add(name)
                _write_one(writer, weights, stored, name, plan.changes.get(name, []), dtype)
        writer.finish()
    return len(written & set(plan.changes))


def _write_one(
    writer: WeightsWriter,
    weights: Weights,
    stored: str,
    name: str,
    steps: Sequence[Any],
    dtype: str | None,
) -> None:
    kind = _stored_type(weights.dtype(stored), dtype)
    if not steps and kind == weights.dtype(stored):
        writer.add(name, weights.raw(stored), kind, weights.shape(stored))
        return
    # a copy: what lies in the file must stay
    value = _apply(name, torch.from_numpy(weights.read(stored).copy()), steps)
    if kind == "F16" and float(value.abs().max()) > LARGEST_F16:
        raise WeightsError(
            f"{name}: holds {float(value.abs().max()):.3g}, and float16 goes up to "
            f"{LARGEST_F16:,.0f}; --dtype bfloat16 holds it"
        )
    writer.add(name, value.numpy(), kind)


def _apply(name: str, value: torch.Tensor, steps: Sequence[Any]) -> torch.Tensor:
    has_frozen = any(isinstance(step, Whole) and step.is_frozen for step in steps)
    original = value.clone() if has_frozen else value
    for number, step in enumerate(steps):
        if (
            isinstance(step, Whole)
            and step.is_frozen
            and not _is_new_table(name, step, original, steps[:number])
        ):
            continue
        try:
            value = step.applied(value.float())
        except WeightsError as error:
            raise WeightsError(f"{name}: {error}") from error
        if not torch.isfinite(value).all():
            raise WeightsError(f"{name}: the merged weight holds NaN or infinity")
    return value.contiguous()


def _is_new_table(name: str, step: Whole, original: torch.Tensor, before: Sequence[Any]) -> bool:
    """Whether an adapter was trained over another table than the base has.

    # A and B both have a LoRA of the head, and the head of the base beside it: that of B must not
    # take the place of what A made of it

    Raises:
        WeightsError: it is another one, and an adapter before has changed the base's.
    """
    if torch.equal(step.value.float(), original.float()):
        return False
    if any(not (isinstance(one, Whole) and one.is_frozen) for one in before):
        raise WeightsError(
            f"{name}: the adapter was trained over another table than the base has, and an adapter "
            "before it has changed that: what it did would be lost; merge one after the other, "
            "each into the model that it was trained on"
        )
    return True


def _written_from(
    stored: str, names: dict[str, str], plan: Plan, layout: Layout, written: set[str]
) -> Iterator[str]:
    """Names under which a tensor of the base goes out."""
    name = names.get(stored)
    if name is None:
        yield stored
        return
    yield name
    present = set(names.values())
    for partner in layout.partners.get(name, ()):
        if partner in plan.untied and partner not in present | written:
            yield partner


def _refuse_partial_base(layout: Layout, present: dict[str, tuple[int, ...]]) -> None:
    for name, shape in layout.parameters.items():
        if name not in present and not set(present) & set(layout.partners.get(name, ())):
            raise WeightsError(f"the files of the base do not hold {name}; fetch or copy it again")
        if present.get(name, shape) != shape:
            raise WeightsError(
                f"{name}: the base's files have other shapes than its config.json says: "
                f"{present[name]}, not {shape}"
            )


def _refuse_hidden(layout: Layout, plan: Plan, present: set[str]) -> None:
    for name in plan.changes:
        if name not in present and not present & set(layout.partners.get(name, ())):
            raise WeightsError(
                f"the files of the base have no {name}: transformers puts it together while it "
                "loads, so the adapter cannot be merged into them; load the base once and save it "
                "again with this version of transformers"
            )


def _shape_after(layout: Layout, name: str, steps: Sequence[Any]) -> tuple[int, ...]:
    shape = layout.parameters[name]
    for step in steps:
        fits = True
        if isinstance(step, Whole):
            new = tuple(step.value.shape)
            # a table may have got more rows, nothing else
            fits = new == shape or (name in layout.embeddings and new[1:] == shape[1:])
            shape = new if fits else shape
        elif isinstance(step, LowRank):
            ends = (step.b.shape[0], step.a.shape[-1])
            fits = step.a.dim() == 2 and shape == (ends if step.kind == "linear" else ends[::-1])
        if not fits:
            raise WeightsError(
                f"{name}: the base has {shape}, the adapter is for another shape; "
                "is it the model that it was trained on?"
            )
    return shape


def _stored_type(found: str, asked: str | None) -> str:
    return STORED_AS[asked] if asked and found in FLOATS else found


def _alike(steps: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two parameters change in the same way, to the last bit."""
    return len(steps) == len(others) and all(
        type(one) is type(other)
        and all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
        for one, other in zip(steps, others, strict=True)
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return bool(one == other)
