"""The model that is trained: loaded or new, in the right type, fitting tokenizer and blocks.

What does not fit is said before the first step. The number of embedding rows is never changed here:
under ZeRO-3 that goes wrong (transformers #41959), and it belongs before the training.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import deepspeed as hf_deepspeed

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.model import FromScratch, Model, Vocab
from clusterlm.spec.vocabulary import misfit, rows_of
from clusterlm.train.adapter import add_adapter

POSITIONS = "max_position_embeddings"
# accepted by config classes without being among the keys they list
FURTHER_CONFIG_KEYS = {"rope_theta", "rope_scaling", "attn_implementation", "partial_rotary_factor"}


def make_model(job: Job, *, block_size: int, tokenizer: Any) -> Any:
    """The model of the spec, ready to be wrapped by the trainer.

    Under ZeRO-3 its weights are split while it is made: the TrainingArguments must exist.
    """
    asked = job.model
    if asked is None:
        raise TrainError("model: is missing; only train.command can do without one")
    dtype = choose_dtype(asked, job.train.precision)
    if asked.from_scratch is not None:
        model = new_model(asked.from_scratch, tokenizer, block_size, dtype, seed=job.train.seed)
    else:
        model = load_model(asked, dtype, num_tokens=len(tokenizer), block_size=block_size)
    if job.train.mode == "adapter":
        if asked.adapter is None:
            raise TrainError("train.mode is adapter, but model.adapter is missing")
        return add_adapter(
            model, asked.adapter, checkpointed=bool(job.train.activation_checkpointing)
        )
    return model


def choose_dtype(asked: Model, precision: str) -> torch.dtype:
    """Type of the weights: float32 while they are trained, else what they are read in."""
    frozen_in_bf16 = asked.adapter is not None and precision == "bf16"
    name = asked.dtype or ("bfloat16" if frozen_in_bf16 else "float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def new_model(
    asked: FromScratch, tokenizer: Any, block_size: int, dtype: torch.dtype, *, seed: int
) -> Any:
    """A model with random weights; the same ones on every rank, for the seed is."""
    model_class = getattr(transformers, asked.class_, None)
    config_class = getattr(model_class, "config_class", None)
    if config_class is None:
        known = [name for name in dir(transformers) if name.endswith("ForCausalLM")]
        raise TrainError(
            f"model.from_scratch.class: transformers {transformers.__version__} has no model "
            f"{asked.class_}{_did_you_mean(asked.class_, known)}"
        )
    config = _new_config(asked, config_class, tokenizer, block_size)
    transformers.set_seed(seed)
    return _build(model_class, config, dtype)


def load_model(asked: Model, dtype: torch.dtype, *, num_tokens: int, block_size: int) -> Any:
    """A model from a folder or the hub; its small config is read and checked first."""
    name = asked.name
    assert name is not None, "the spec has neither model.name nor model.from_scratch"
    source = find_model(name)
    try:
        config = AutoConfig.from_pretrained(source, revision=asked.revision)
        check_fit(config, f"model {name}", num_tokens=num_tokens, block_size=block_size)
        check_vocabulary(asked.vocab, config, num_tokens)
        return AutoModelForCausalLM.from_pretrained(source, revision=asked.revision, dtype=dtype)
    except OSError as error:
        raise TrainError(_explain_missing(name, error)) from error


def find_model(name: str) -> str:
    """The folder `name`, or the same text when it can only be a hub id."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TrainError(f"model.name: {folder} holds no config.json, so it is no model")
        return str(folder)
    # a hub id is `name` or `owner/name`
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise TrainError(f"model.name: the folder {folder} is not on this node")
    return name


def check_fit(config: Any, what: str, *, num_tokens: int, block_size: int) -> None:
    """Refuse a tokenizer larger than the embedding, and blocks longer than the positions."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rows = getattr(text, "vocab_size", None)
    if rows is not None and num_tokens > rows:
        raise TrainError(
            f"{what} knows {rows} tokens, the tokenizer of the data has {num_tokens}; "
            "write model.vocab: resize, or give the model's own in data.tokenizer.name"
        )
    longest = getattr(text, POSITIONS, None)
    if longest is not None and block_size > longest:
        raise TrainError(
            f"data.block_size {block_size} is more than the {longest} positions of {what}; "
            f"set it to {longest} or less"
        )


def check_vocabulary(vocab: Vocab, config: Any, num_tokens: int) -> None:
    """Refuse sizes that model.vocab does not allow; what was resized has passed before."""
    rows = rows_of(config.to_dict())
    why = None if rows is None else misfit(vocab, rows, num_tokens)
    if why:
        raise TrainError(f"model.vocab: {why}")


def _new_config(asked: FromScratch, config_class: Any, tokenizer: Any, block_size: int) -> Any:
    standard = config_class()
    aliases = dict(config_class.attribute_map)
    known = set(standard.to_dict()) | set(aliases) | FURTHER_CONFIG_KEYS
    for key in asked.config:
        if key not in known:
            raise TrainError(
                f"model.from_scratch.config: {config_class.__name__} has no key "
                f"{key}{_did_you_mean(key, known)}"
            )
    positions = getattr(standard, POSITIONS, None) or block_size
    values = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # GPT-2 calls its width n_embd: the same key must not come under two names
        **{aliases.get(key, key): value for key, value in asked.config.items()},
    }
    if positions < block_size:
        values.setdefault(aliases.get(POSITIONS, POSITIONS), block_size)
    what = f"the {asked.class_} of model.from_scratch"
    try:
        config = config_class(**values)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise TrainError(f"model.from_scratch.config: {_one_line(error)}") from error
    check_fit(config, what, num_tokens=len(tokenizer), block_size=block_size)
    return config


def _build(model_class: Any, config: Any, dtype: torch.dtype) -> Any:
    can_start_split_weights = hasattr(hf_deepspeed, "initialize_weights_zero3")
    if hf_deepspeed.is_deepspeed_zero3_enabled() and not can_start_split_weights:
        # transformers 4 fails on them: there each rank makes the whole model, DeepSpeed splits it
        return model_class(config).to(dtype)
    # the door through which AutoModel goes too: it builds a model that is split (ZeRO-3)
    return model_class._from_config(config, dtype=dtype)


def _explain_missing(name: str, error: OSError) -> str:
    text = _one_line(error)
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    if offline or "couldn't connect" in text:
        return (
            f"model {name}: no network on this node and no copy in its hub cache; on a login node: "
            f"`hf download {name} --local-dir FOLDER`, then give FOLDER in model.name"
        )
    return f"model {name}: {text}"


def _did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
