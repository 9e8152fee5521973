"""The trained model: saved aside, opened again, compared with the one in memory, then put in place.

Only a model that was found whole ever stands in `model/`. What can be lost in a save, and was in
the wild: ZeRO-3 adapters with empty tensors (DeepSpeed #7900, peft #2892), saves of nothing.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

from safetensors import safe_open

from clusterlm.errors import TrainError
from clusterlm.train.adapter_start import stand_on_original_base
from clusterlm.train.checkpoints import CheckpointStore
from clusterlm.train.fsdp import gather_on_save
from clusterlm.train.group import Group

Shapes = dict[str, tuple[int, ...]]


def save_final(trainer: Any, model_dir: Path, store: CheckpointStore, group: Group) -> None:
    """Save model and tokenizer to `model_dir`, on all ranks.

    Raises:
        Fenced: a newer attempt owns the run.
        TrainError: what was written is not the model that was trained.
    """
    aside = model_dir.with_name(f".{model_dir.name}.saving")
    store.refuse_if_fenced()
    if group.is_first:
        shutil.rmtree(aside, ignore_errors=True)
    group.barrier()
    gather_on_save(trainer)
    trainer.save_model(str(aside))
    group.barrier()
    if group.is_first:
        # a pickle of the arguments; of no use to whoever loads the model
        (aside / "training_args.bin").unlink(missing_ok=True)
        verify_saved(aside, expected_shapes(trainer.model))
        stand_on_original_base(aside, trainer.model)
        shutil.rmtree(model_dir, ignore_errors=True)
        aside.rename(model_dir)
    group.barrier()


def expected_shapes(model: Any) -> Shapes:
    """Names and shapes that a save must hold: all weights, or those of the adapter."""
    adapted = hasattr(model, "peft_config")
    return {
        _saved_name(name) if adapted else name: _whole_shape(parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or not adapted
    }


def verify_saved(folder: Path, expected: Shapes) -> None:
    """Open the safetensors in `folder` and compare them with what was trained.

    Raises:
        TrainError: a tensor is missing, empty or of another shape, or the adapter is untrained.
    """
    saved, trained = _read_shapes(folder)
    problems = [f"{name} is empty" for name, shape in saved.items() if 0 in shape]
    problems += [
        f"{name} is {saved[name]}, not {shape}"
        for name, shape in expected.items()
        if name in saved and saved[name] != shape
    ]
    missing = [name for name in expected if name not in saved]
    # transformers 5 may rename and merge weights while it saves (experts): then the sum must agree
    if missing and _num_elements(saved) != _num_elements(expected):
        problems.append(f"{len(missing)} weights are missing, the first is {missing[0]}")
    if trained is False:
        problems.append("every lora_B is zero: the adapter was not trained")
    if problems:
        raise TrainError(f"the model saved in {folder} is not whole: {'; '.join(problems[:5])}")


def _read_shapes(folder: Path) -> tuple[Shapes, bool | None]:
    """Shapes of all tensors, and whether a lora_B is not zero (None when there is no lora_B)."""
    shapes: Shapes = {}
    trained: bool | None = None
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no dict
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
                if ".lora_B." in name and not trained:
                    trained = bool(tensors.get_tensor(name).any())
    return shapes, trained


def _saved_name(name: str) -> str:
    # base_model.model.lm_head.modules_to_save.default.weight -> base_model.model.lm_head.weight
    # ...q_proj.lora_A.default.weight                         -> ...q_proj.lora_A.weight
    # ...q_proj.lora_magnitude_vector.default.weight          -> ...q_proj.lora_magnitude_vector
    name = name.replace(".modules_to_save.default", "").replace(".default", "")
    return name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _whole_shape(parameter: Any) -> tuple[int, ...]:
    # ZeRO-3 leaves an empty tensor in place and keeps the whole shape beside it
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _num_elements(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
