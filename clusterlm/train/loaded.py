"""A target in memory: model and tokenizer, on the device and in the type asked for."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from clusterlm.errors import TrainError
from clusterlm.spec.wording import one_line
from clusterlm.train.attention import choose_attention
from clusterlm.train.hub import how_to_fetch, is_out_of_reach
from clusterlm.train.target import Target
from clusterlm.weights.adapted import put_adapter_on
from clusterlm.weights.whole_load import load_whole

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Loaded:
    """A model that can be asked, in evaluation mode."""

    model: Any
    tokenizer: Any

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device


def load_target(
    target: Target,
    *,
    dtype: str = "auto",
    device: str = "auto",
    load_in: str | None = None,
    trust_remote_code: bool = False,
    keeps_documents_apart: bool = False,
) -> Loaded:
    """Load base, adapter and tokenizer.

    Args:
        target: what `find_target` gave.
        dtype: a key of DTYPES; auto: as the weights are stored.
        device: auto takes a GPU where there is one; else as torch names it.
        load_in: "4bit" or "8bit", through bitsandbytes.
        trust_remote_code: the model may bring Python code, whatever its job says.
        keeps_documents_apart: it will be given blocks of several documents.

    Raises:
        TrainError: it cannot be loaded so.
        WeightsError: weights are missing in its files, or are no numbers.
    """
    trusted = trust_remote_code or target.trust_remote_code
    named: dict[str, Any] = {"revision": target.revision, "trust_remote_code": trusted}
    is_offline = is_out_of_reach(target.model)
    if is_offline:
        named["local_files_only"] = True
    placed = _placement(device, load_in)
    how = {"dtype": _dtype(dtype), **named, **placed}
    try:
        if keeps_documents_apart:
            config = AutoConfig.from_pretrained(target.model, **named)
            how["attn_implementation"] = _attention(config, device)
        tokenizer = AutoTokenizer.from_pretrained(
            target.tokenizer, trust_remote_code=trusted, local_files_only=is_offline
        )
        model = load_whole(AutoModelForCausalLM, target.model, **how)
    except (OSError, ValueError) as error:
        words = how_to_fetch(target.model) if is_offline else one_line(error)
        raise TrainError(f"{target.words}: cannot be loaded: {words}") from error
    if target.adapter is not None:
        model = put_adapter_on(model, target.adapter)
    if "device_map" not in placed:
        model = model.to(choose_device(device))
    return Loaded(model.eval(), tokenizer)


def choose_device(device: str) -> torch.device:
    """The device asked for; auto is the first GPU, or the CPU.

    Raises:
        TrainError: there is no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise TrainError(f"--device {device}: {first}; auto, cpu, cuda, cuda:1 ...") from error
    return chosen


def _attention(config: Any, device: str) -> str:
    # the kernels that are only for 16 bits are no matter here: sdpa is everywhere
    on_cpu = choose_device(device).type == "cpu"
    chosen = choose_attention(
        "auto", on_cpu=on_cpu, isolated=True, precision="fp32", model_class=None, config=config
    )
    return chosen.name


def _placement(device: str, load_in: str | None) -> dict[str, Any]:
    if load_in is None:
        several = device == "auto" and torch.cuda.device_count() > 1
        return {"device_map": "auto"} if several else {}
    if load_in not in ("4bit", "8bit"):
        raise TrainError(f"--load-in {load_in}: 4bit or 8bit")
    if not torch.cuda.is_available():
        raise TrainError(f"--load-in {load_in} needs an NVIDIA GPU, and torch sees none here")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise TrainError(f"--load-in {load_in} needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    asked = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        if load_in == "4bit"
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    place = "auto" if device == "auto" else {"": device}
    return {"quantization_config": asked, "device_map": place}


def _dtype(name: str) -> Any:
    if name not in DTYPES:
        raise TrainError(f"--dtype {name}: {', '.join(DTYPES)}")
    return DTYPES[name]


def quiet_libraries() -> None:
    """Bars and hints of the libraries, which would stand between a person and an answer."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning, module="(peft|transformers|torch)")
