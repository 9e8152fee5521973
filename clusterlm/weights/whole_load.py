"""Files against the model they are loaded into: no weight may begin at random in silence.

transformers and peft fill what a file does not hold with new random numbers, and warn; a training
would run and its model be worth nothing, an answer or a measure would be of no model at all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.spec.weight_names import DamagedError, read_shapes
from clusterlm.spec.wording import one_line
from clusterlm.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

# where peft keeps a weight of the base, in its modules and in its files
COPIES = ("default", "base_layer", "modules_to_save", "original_module", "token_adapter")


def load_whole(
    loader: Any,
    source: str,
    *,
    may_miss: bool = False,
    say: Callable[[str], None] = lambda line: None,
    **how: Any,
) -> Any:
    """`loader.from_pretrained`, every weight of which comes from the files.

    Args:
        loader: a class of models.
        source: folder or hub id.
        may_miss: weights may begin at random: a class of the user's own may have new ones.
        say: takes a line for what may surprise.
        how: further arguments of it.

    Raises:
        WeightsError: weights are missing in the files, have another shape, or cannot be read.
    """
    from safetensors import SafetensorError

    try:
        model, found = loader.from_pretrained(source, output_loading_info=True, **how)
    except SafetensorError as error:
        raise WeightsError(
            f"model {source}: its files cannot be read ({one_line(error)}); fetch or copy it again"
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error) and "size mismatch" not in str(error):
            raise
        raise WeightsError(
            f"model {source}: its weights have other shapes than its config.json says; fetch or "
            "copy the folder again"
        ) from error
    if missing := sorted(found["missing_keys"]):
        text = f"model {source}: its files do not hold {_listed(missing)}"
        if not may_miss:
            raise WeightsError(
                f"{text}, which would begin at random; fetch or copy it again, or, if that is "
                "meant in a training, name the class in model.class"
            )
        say(f"WARNING: {text}: these weights begin at random")
    if unknown := sorted(found["unexpected_keys"]):
        say(f"WARNING: model {source}: {_listed(unknown)} in its files is no part of the model")
    return model


def faults_of_adapter(adapted: Any, folder: Path) -> list[str]:
    """What an adapter's file lacks, has for no layer, or holds that is no number.

    Args:
        adapted: the model with it; on the meta device, too.
        folder: of the adapter.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        # a pickle, of an older peft
        return []
    there, needed = set(read_shapes(str(path))), _needed(adapted)
    faults = []
    if missing := sorted(needed - there):
        faults.append(f"{ADAPTER_WEIGHTS} does not hold {_listed(missing)}")
    known = {_plain(name) for name in (*needed, *adapted.state_dict())}
    unknown = sorted(name for name in there if _plain(name) not in known)
    # other kinds have names of their own in a file
    if unknown and adapted.active_peft_config.peft_type == "LORA":
        faults.append(f"the model has no layer for {_listed(unknown)}")
    if broken := _not_finite(path):
        faults.append(f"NaN or infinity in {_listed(broken)}")
    return faults


def faults_on_layout(base: Path, folder: Path, *, trust_remote_code: bool) -> list[str]:
    """The same, before any weight of the base is read.

    Args:
        base: folder of the model.
        folder: of the adapter.
        trust_remote_code: the model may bring Python code.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    asked = LoraConfig.from_pretrained(str(folder))
    # how it began is no matter, and would be computed from weights that are not there
    asked.init_lora_weights = True
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        return faults_of_adapter(get_peft_model(model, asked), folder)


def explain_adapter(folder: str, error: Exception) -> str:
    """Why it could not be read, in words."""
    try:
        read_shapes(str(Path(folder) / ADAPTER_WEIGHTS))
    except DamagedError as damage:
        return str(damage)
    if isinstance(error, KeyError) and "base_model." in str(error):
        return f"{ADAPTER_WEIGHTS} does not hold {error}"
    if isinstance(error, KeyError | TypeError):
        return f"{ADAPTER_CONFIG} is none of peft ({type(error).__name__}: {one_line(error)})"
    return one_line(error, 600)


def _needed(adapted: Any) -> set[str]:
    from peft import get_peft_model_state_dict

    # whole tables may lie beside it
    return set(get_peft_model_state_dict(adapted, save_embedding_layers=False))


def _plain(name: str) -> str:
    # ...embed_tokens.modules_to_save.default.weight -> ...embed_tokens.weight
    return ".".join(part for part in name.split(".") if part not in COPIES)


def _not_finite(path: Path) -> list[str]:
    from safetensors import safe_open

    broken = []
    with safe_open(path, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            # torch does not ask that of numbers in 8 bits
            if tensor.itemsize > 1 and not tensor.isfinite().all():
                broken.append(name)
    return broken


def _listed(names: Collection[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(list(names)[:3])}{more}"
