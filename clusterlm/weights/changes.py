"""What an adapter changes: its folder read as a list of changes, each of one parameter of the base.

    LowRank    lora_A, lora_B (lora_embedding_*), with a magnitude where it is DoRA
    Whole      a tensor that takes the place of the base's: modules_to_save, biases, resized tables
    Rows       single rows that do: trainable_token_indices
    AddBias    lora_bias

A feature of peft that is not known here is refused by its name: merged wrongly it would do harm
in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from clusterlm.errors import WeightsError
from clusterlm.node.files import read_json
from clusterlm.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_header
from clusterlm.weights.layout import Kind, Layout

PREFIX = "base_model.model."
LOW_RANK = re.compile(r"(.+)\.lora_(embedding_)?(A|B|magnitude_vector)(\.weight|\.bias)?")
ROWS = ".token_adapter.trainable_tokens_delta"

# these leave no trace in the weights, or are read here
KNOWN = frozenset(
    {
        *("task_type", "peft_type", "peft_version", "auto_mapping", "inference_mode"),
        *("base_model_name_or_path", "revision", "runtime_config", "megatron_core"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
        *("lora_dropout", "lora_bias", "bias", "fan_in_fan_out", "qalora_group_size"),
        *("modules_to_save", "trainable_token_indices", "ensure_weight_tying"),
        *("init_lora_weights", "eva_config", "corda_config", "loftq_config", "lora_ga_config"),
    }
)
# they change the base when they begin; what is saved unconverted fits that changed base alone
CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")


@dataclass(frozen=True)
class LowRank:
    """`scaling * b @ a` on a weight; with a magnitude, the sum is brought to that length."""

    kind: Kind
    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    magnitude: torch.Tensor | None = None

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed weight, float32."""
        update = self.b.float() @ self.a.float()
        if self.kind != "linear":
            # the weight has its inputs first
            update = update.T
        if update.shape != weight.shape:
            raise WeightsError(f"the adapter is for {tuple(update.shape)}")
        changed = weight.add_(update, alpha=self.scaling)
        if self.magnitude is None:
            return changed
        inputs = 1 if self.kind == "linear" else 0
        lengths = torch.linalg.norm(changed, dim=inputs, keepdim=True)
        return changed.mul_(self.magnitude.float().flatten().view_as(lengths) / lengths)


@dataclass(frozen=True)
class Whole:
    """Another tensor in place of the base's.

    `is_frozen`: the table of the base that the adapter was trained over, which peft saves beside a
    LoRA of it. It is a change only where it is another one: with more rows.
    """

    value: torch.Tensor
    is_frozen: bool = False

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The new weight, float32; the old one does not matter."""
        return self.value.float()


@dataclass(frozen=True)
class Rows:
    """Other rows in a table."""

    indices: tuple[int, ...]
    value: torch.Tensor

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The table with its new rows, float32."""
        if max(self.indices) >= len(weight):
            raise WeightsError(
                f"the adapter trains row {max(self.indices)} and the base has {len(weight)} rows; "
                "name the resized model it was trained on: --base"
            )
        weight[torch.tensor(self.indices)] = self.value.float()
        return weight


@dataclass(frozen=True)
class AddBias:
    """The bias of an adapter, added to that of the layer."""

    value: torch.Tensor
    scaling: float

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed bias, float32."""
        return weight.add_(self.value.float(), alpha=self.scaling)


Change = LowRank | Whole | Rows | AddBias
Changes = dict[str, list[Change]]
"""By name of the parameter in the model, in the order in which they are applied."""


def read_changes(folder: Path, layout: Layout, *, scale: float = 1.0) -> Changes:
    """Read an adapter against the names of its base.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        layout: of the base.
        scale: multiplies every low-rank update.

    Raises:
        WeightsError: it uses what is not known here, or is of another model.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    weights = folder / ADAPTER_WEIGHTS
    if config is None or not weights.is_file():
        raise WeightsError(f"{folder}: an adapter has adapter_config.json and {weights.name}")
    refuse_unknown(folder, config, scale)
    # a file that was cut off is told here, in words
    read_header(weights)
    changes: Changes = {}
    for name, change in _find_changes(config, load_file(weights), layout, scale):
        if name not in layout.parameters:
            raise WeightsError(
                f"{folder}: the base has no {name}; is it the model of this adapter?"
            )
        changes.setdefault(name, []).append(change)
    if not changes:
        raise WeightsError(f"{folder}: the adapter changes nothing")
    return spread_over_tied(folder, changes, config, layout)


def refuse_unknown(folder: Path, config: Mapping[str, Any], scale: float) -> None:
    """Refuse what could only be merged wrongly.

    Raises:
        WeightsError: naming it.
    """
    kind = config.get("peft_type")
    if kind != "LORA":
        raise WeightsError(f"{folder}: peft_type {kind} cannot be merged here; LORA can, with DoRA")
    if unknown := sorted(key for key, value in config.items() if value and key not in KNOWN):
        raise WeightsError(f"{folder}: merging does not know {', '.join(unknown)} of peft")
    begun = str(config.get("init_lora_weights")).lower()
    if begun.startswith(CHANGES_BASE):
        raise WeightsError(
            f"{folder}: init_lora_weights is {begun}, which changed the base when it began, and "
            "the adapter was not converted to an ordinary one when it was saved "
            "(path_initial_model_for_weight_conversion of peft)"
        )
    if config.get("use_dora") and scale != 1.0:
        raise WeightsError(
            f"--scale {scale}: DoRA learns lengths, which have no other scale than 1"
        )


def spread_over_tied(
    folder: Path, changes: Changes, config: Mapping[str, Any], layout: Layout
) -> Changes:
    """Give tied tables the changes that peft makes to both.

    Rows always go to both; a table saved whole does where peft was asked to keep them tied.
    """
    spread = {name: list(steps) for name, steps in changes.items()}
    for name, steps in changes.items():
        for partner in layout.partners.get(name, ()):
            if partner in changes:
                continue
            common: list[Change] = [step for step in steps if isinstance(step, Rows)]
            if config.get("ensure_weight_tying"):
                if any(isinstance(step, LowRank) for step in steps):
                    raise WeightsError(
                        f"{folder}: merging does not know ensure_weight_tying of peft over a LoRA "
                        f"of the tied {name}"
                    )
                common = steps
            if common:
                spread[partner] = list(common)
    return spread


def _plainly_named(
    saved: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The tensors by the names that the base has for them: tables that were frozen, and the others.

    Of a table that grew, peft saves every copy it holds: the frozen one (original_module) counts
    only where there is no trained one.
    """
    frozen, found = {}, {}
    for key, tensor in saved.items():
        name = key.removeprefix(PREFIX)
        if ".token_adapter.base_layer." in name:
            continue
        if ".original_module." in name or ".base_layer." in name:
            frozen[name.replace(".original_module.", ".").replace(".base_layer.", ".")] = tensor
        else:
            found[name.replace(".modules_to_save.", ".")] = tensor
    return {name: tensor for name, tensor in frozen.items() if name not in found}, found


def _find_changes(
    config: Mapping[str, Any], saved: Mapping[str, torch.Tensor], layout: Layout, scale: float
) -> Iterator[tuple[str, Change]]:
    frozen, tensors = _plainly_named(saved)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    rows: list[tuple[str, Change]] = []
    for name, tensor in frozen.items():
        yield name, Whole(tensor, is_frozen=True)
    for name, tensor in tensors.items():
        if match := LOW_RANK.fullmatch(name):
            part = match[3] + (match[4] or "").removesuffix(".weight").replace(".weight", "")
            parts.setdefault(match[1], {})[part] = tensor
        elif name.endswith(ROWS):
            module = name.removesuffix(ROWS)
            rows.append((f"{module}.weight", Rows(_row_indices(config, module, layout), tensor)))
        else:
            # before the low-rank updates: a resized table may have both
            yield name, Whole(tensor)
    yield from rows
    for module, found in parts.items():
        yield from _low_rank(config, module, found, layout, scale)


def _low_rank(
    config: Mapping[str, Any],
    module: str,
    found: Mapping[str, torch.Tensor],
    layout: Layout,
    scale: float,
) -> Iterator[tuple[str, Change]]:
    kind = layout.kinds.get(module)
    if kind is None:
        raise WeightsError(f"the base has no linear layer or embedding {module} for this adapter")
    if not {"A", "B"} <= set(found):
        raise WeightsError(f"{module}: the adapter lacks lora_A or lora_B")
    a, b = found["A"], found["B"]
    scaling = scale * scaling_of(config, module, rank=a.shape[0])
    magnitude = found.get("magnitude_vector")
    if config.get("use_dora") and magnitude is None:
        raise WeightsError(f"{module}: DoRA without lora_magnitude_vector")
    yield f"{module}.weight", LowRank(kind, a, b, scaling, magnitude)
    if (bias := found.get("B.bias")) is not None:
        yield f"{module}.bias", AddBias(bias, scaling)


def scaling_of(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """What the update of a layer is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA."""
    alpha = float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        # the first that fits, at the end of the name, as peft looks for it
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = float(value)
            break
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _row_indices(config: Mapping[str, Any], module: str, layout: Layout) -> tuple[int, ...]:
    asked = config.get("trainable_token_indices")
    if isinstance(asked, dict):
        names = [name for name in asked if f".{module}".endswith(f".{name}")]
        asked = asked[names[0]] if names else None
    if not asked:
        raise WeightsError(f"{module}: the adapter has rows, its config does not say which")
    return tuple(int(index) for index in asked)
