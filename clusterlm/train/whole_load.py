"""Files against the model they are loaded into: no weight may begin at random in silence.

transformers and peft fill what a file does not hold with new random numbers, and warn; the training
would run and its model be worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict

from clusterlm.errors import TrainError
from clusterlm.spec.weight_names import DamagedError, read_shapes
from clusterlm.spec.wording import one_line
from clusterlm.weights.files import ADAPTER_WEIGHTS


def load_whole(
    loader: Any, source: str, *, may_miss: bool, say: Callable[[str], None], **how: Any
) -> Any:
    """`loader.from_pretrained`, every weight of which comes from the files.

    Args:
        loader: a class of models.
        source: folder or hub id.
        may_miss: weights may begin at random: a class of the user's own may have new ones.
        say: takes a line for what may surprise.
        how: further arguments of it.

    Raises:
        TrainError: weights are missing in the files, or have another shape.
    """
    try:
        model, found = loader.from_pretrained(source, output_loading_info=True, **how)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error) and "size mismatch" not in str(error):
            raise
        raise TrainError(
            f"model {source}: its weights have other shapes than its config.json says; fetch or "
            "copy the folder again"
        ) from error
    if missing := sorted(found["missing_keys"]):
        text = f"model {source}: its files do not hold {_listed(missing)}"
        if not may_miss:
            raise TrainError(
                f"{text}, which would begin at random; fetch or copy it again, or, if that is "
                "meant, name the class in model.class"
            )
        say(f"WARNING: {text}: these weights begin at random")
    if unknown := sorted(found["unexpected_keys"]):
        say(f"WARNING: model {source}: {_listed(unknown)} in its files is no part of the model")
    return model


def refuse_partial_adapter(adapted: Any, folder: str) -> None:
    """Compare the adapter's file with what the model has of it.

    Raises:
        TrainError: a matrix is missing in the file, or belongs to a layer that is not there.
    """
    path = Path(folder) / ADAPTER_WEIGHTS
    if not path.is_file():
        # a pickle, of an older peft
        return
    there = set(read_shapes(str(path)))
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    problems = []
    if missing := sorted(wanted - there):
        problems.append(f"{ADAPTER_WEIGHTS} does not hold {_listed(missing)}")
    # whole tables may lie beside it
    if unknown := sorted(name for name in there - wanted if ".lora_" in name):
        problems.append(f"the model has no layer for {_listed(unknown)}")
    if problems:
        raise TrainError(
            f"model.adapter.continue_from: the adapter in {folder} does not fit the model: "
            f"{'; '.join(problems)}"
        )


def explain_adapter(folder: str, error: Exception) -> str:
    """Why it could not be read, in words."""
    try:
        read_shapes(str(Path(folder) / ADAPTER_WEIGHTS))
    except DamagedError as damage:
        return str(damage)
    if isinstance(error, KeyError | TypeError):
        return f"adapter_config.json is none of peft ({type(error).__name__}: {one_line(error)})"
    return one_line(error, 600)


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(list(names)[:3])}{more}"
