"""How a model is built and how its file names its weights, seen without any memory for weights.

The model is made on torch's meta device: its modules and their names are there, its numbers not.

    name in the file       wte.weight                 (GPT-2 as it lies on the hub)
    name in the model      transformer.wte.weight     what adapters go by
    tied                   lm_head.weight = transformer.wte.weight, of which the file has one
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from clusterlm.errors import WeightsError
from clusterlm.spec.wording import one_line

Kind = Literal["linear", "transposed", "embedding"]


@dataclass(frozen=True)
class Layout:
    """The names of a model.

    Attributes:
        kinds: of the modules an adapter may change, by name.
        parameters: their shapes, by name in the model; tied ones under each of their names.
        partners: names of the parameters that are one and the same, for those that are tied.
        prefix: of the names in the model that a file may leave out.
        embeddings: names of the tables of input and output.
    """

    kinds: dict[str, Kind]
    parameters: dict[str, tuple[int, ...]]
    partners: dict[str, tuple[str, ...]]
    prefix: str
    embeddings: tuple[str, ...]

    def names_in_model(self, stored: Iterable[str]) -> dict[str, str]:
        """Name in the model of each tensor of a file; what the model does not have is left out."""
        found = {}
        for name in stored:
            short = name.removeprefix(f"{self.prefix}.")
            for candidate in (name, f"{self.prefix}.{name}", short):
                if candidate in self.parameters:
                    found[name] = candidate
                    break
        return found


def read_layout(folder: Path, *, trust_remote_code: bool = False) -> Layout:
    """Build the model of `folder` without its weights.

    Raises:
        WeightsError: transformers does not know such a model.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        words = one_line(error)
        raise WeightsError(f"{folder}: transformers cannot build this model: {words}") from error
    model.tie_weights()
    return layout_of(model)


def layout_of(model: Any) -> Layout:
    """The names of a model that is there."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    by_identity: dict[int, list[str]] = {}
    for name, parameter in parameters.items():
        by_identity.setdefault(id(parameter), []).append(name)
    groups = [tuple(names) for names in by_identity.values() if len(names) > 1]
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    modules = dict(model.named_modules())
    return Layout(
        kinds={name: kind for name, module in modules.items() if (kind := _kind(module))},
        parameters={name: tuple(parameter.shape) for name, parameter in parameters.items()},
        partners={name: group for group in groups for name in group},
        prefix=model.base_model_prefix,
        embeddings=tuple(
            f"{name}.weight"
            for table in tables
            for name, module in modules.items()
            if module is table
        ),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder.

    Raises:
        WeightsError: it is not there, or no JSON.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    return config


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, nn.Linear):
        return "linear"
    # GPT-2's linear layers keep their weight the other way round
    return "transposed" if type(module).__name__ == "Conv1D" else None
