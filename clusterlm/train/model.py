"""The model that is trained: loaded or new, in the right type, fitting tokenizer and blocks.

What does not fit is said before the first step. The number of embedding rows is never changed here:
under ZeRO-3 that goes wrong (transformers #41959), and it belongs before the training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations import deepspeed as hf_deepspeed
from transformers.integrations.fsdp import is_fsdp_enabled

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.spec.model import FromScratch, Model, Vocab
from clusterlm.spec.vocabulary import misfit, rows_of
from clusterlm.spec.wording import one_line, or_nearest
from clusterlm.train.adapter import Sample, add_adapter
from clusterlm.train.attention import choose_attention
from clusterlm.train.classes import AUTO, auto_class, find_model_class
from clusterlm.train.hub import how_to_fetch, is_out_of_reach
from clusterlm.train.new_tokens import choose_tokens
from clusterlm.train.quantized import bits_and_bytes, prepare_quantized, refuse_without_gpu
from clusterlm.train.trainable import choose_trainable
from clusterlm.weights.whole_load import load_whole

POSITIONS = "max_position_embeddings"
# accepted by config classes without being among the keys they list
FURTHER_CONFIG_KEYS = {"rope_theta", "rope_scaling", "attn_implementation", "partial_rotary_factor"}
Say = Callable[[str], None]


def make_model(
    job: Job,
    *,
    block_size: int,
    tokenizer: Any,
    on_cpu: bool = True,
    say: Say = lambda line: None,
    sample: Sample | None = None,
) -> Any:
    """The model of the spec, ready to be wrapped by the trainer.

    Under ZeRO-3 its weights are split while it is made: the TrainingArguments must exist.

    Args:
        job: the spec.
        block_size: tokens of a block.
        tokenizer: of the prepared data.
        on_cpu: there is no GPU to train on.
        say: takes the lines that tell what was chosen.
        sample: gives some batches of the data, the same on every rank; for model.adapter.init: eva.
    """
    asked = job.model
    if asked is None:
        raise TrainError("model: is missing; only train.command can do without one")
    if asked.quantization is not None:
        refuse_without_gpu(asked.quantization, on_cpu=on_cpu)
    if asked.from_scratch is not None:
        model = _new(job, asked.from_scratch, tokenizer, block_size, on_cpu, say)
    else:
        model = _load(job, asked, len(tokenizer), block_size, on_cpu, say)
    if job.train.mode == "adapter":
        model = _adapted(job, asked, model, tokenizer, on_cpu, say, sample)
    say(choose_trainable(model, job.train.mode, job.train.trainable).words)
    return model


def choose_dtype(asked: Model, precision: str) -> torch.dtype:
    """Type of the weights: float32 while they are trained, else what they are read in."""
    frozen_in_bf16 = asked.adapter is not None and precision == "bf16"
    name = asked.dtype or ("bfloat16" if frozen_in_bf16 else "float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def splits_weights() -> bool:
    """Whether the weights will be split over the ranks."""
    return bool(hf_deepspeed.is_deepspeed_zero3_enabled() or is_fsdp_enabled())


def _new(
    job: Job, asked: FromScratch, tokenizer: Any, block_size: int, on_cpu: bool, say: Say
) -> Any:
    """A model with random weights; the same ones on every rank, for the seed is."""
    place = "model.from_scratch"
    assert job.model is not None
    if asked.class_ == AUTO:
        model_class, keys = auto_class(asked.config, place)
    else:
        model_class, keys = find_model_class(asked.class_, f"{place}.class"), asked.config
    config = _new_config(asked.class_, keys, model_class.config_class, tokenizer, block_size)
    attention = _attention(job, model_class, config, on_cpu, say)
    transformers.set_seed(job.train.seed)
    return _build(model_class, config, choose_dtype(job.model, job.train.precision), attention)


def _load(job: Job, asked: Model, num_tokens: int, block_size: int, on_cpu: bool, say: Say) -> Any:
    """A model from a folder or the hub; its small config is read and checked first."""
    name = asked.name
    assert name is not None, "the spec has neither model.name nor model.from_scratch"
    source = find_model(name)
    origin: dict[str, Any] = {
        "revision": asked.revision,
        "trust_remote_code": asked.trust_remote_code,
    }
    # its client would try for a minute in each rank, and again for each file
    is_offline = is_out_of_reach(source)
    if is_offline:
        origin["local_files_only"] = True
    model_class = find_model_class(asked.class_, "model.class") if asked.class_ else None
    dtype = choose_dtype(asked, job.train.precision)
    further: dict[str, Any] = {}
    if asked.quantization is not None:
        split = splits_weights()
        precision = job.train.precision
        quantization = bits_and_bytes(asked.quantization, precision=precision, splits_weights=split)
        further["quantization_config"] = quantization
    try:
        config = (model_class.config_class if model_class else AutoConfig).from_pretrained(
            source, **origin
        )
        check_fit(config, f"model {name}", num_tokens=num_tokens, block_size=block_size)
        check_vocabulary(asked.vocab, config, num_tokens)
        further["attn_implementation"] = _attention(job, model_class, config, on_cpu, say)
        loader = model_class or AutoModelForCausalLM
        how = {"config": config, "dtype": dtype, **origin, **further}
        model = load_whole(loader, source, may_miss=model_class is not None, say=say, **how)
    except (OSError, ValueError) as error:
        raise TrainError(_explain_unloaded(name, error, is_offline=is_offline)) from error
    if asked.quantization is not None:
        model = prepare_quantized(model, splits_weights=splits_weights())
    return model


def _attention(job: Job, model_class: Any, config: Any, on_cpu: bool, say: Say) -> str:
    assert job.model is not None
    chosen = choose_attention(
        job.model.attention,
        on_cpu=on_cpu,
        # a padded block holds one document
        isolated=job.data is None or (job.data.isolate_documents and job.data.packing != "padded"),
        precision=job.train.precision,
        model_class=model_class,
        config=config,
    )
    say(f"attention: {chosen.name} ({chosen.why})")
    return chosen.name


def _adapted(
    job: Job,
    asked: Model,
    model: Any,
    tokenizer: Any,
    on_cpu: bool,
    say: Say,
    sample: Sample | None,
) -> Any:
    if asked.adapter is None:
        raise TrainError("train.mode is adapter, but model.adapter is missing")
    # how an adapter begins is computed from the weights, or drawn: alike on every rank
    transformers.set_seed(job.train.seed)
    begins_from_weights = asked.adapter.init not in ("default", "gaussian", "orthogonal")
    if begins_from_weights and not on_cpu and not splits_weights():
        # minutes on the CPU; the Trainer would move it anyway
        model = model.to(torch.device("cuda", torch.cuda.current_device()))
    return add_adapter(
        model,
        asked.adapter,
        checkpointed=bool(job.train.activation_checkpointing),
        tokens=choose_tokens(asked, model, tokenizer),
        splits_weights=splits_weights(),
        sample=sample,
        say=say,
    )


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


def _new_config(
    name: str, keys: dict[str, Any], config_class: Any, tokenizer: Any, block_size: int
) -> Any:
    standard = config_class()
    aliases = dict(config_class.attribute_map)
    known = set(standard.to_dict()) | set(aliases) | FURTHER_CONFIG_KEYS
    for key in keys:
        if key not in known:
            raise TrainError(
                f"model.from_scratch.config: {config_class.__name__} has no key "
                f"{key}{or_nearest(key, known)}"
            )
    positions = getattr(standard, POSITIONS, None) or block_size
    values = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        # GPT-2 calls its width n_embd: the same key must not come under two names
        **{aliases.get(key, key): value for key, value in keys.items()},
    }
    if positions < block_size:
        values.setdefault(aliases.get(POSITIONS, POSITIONS), block_size)
    what = f"the {name} of model.from_scratch"
    try:
        config = config_class(**values)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise TrainError(f"model.from_scratch.config: {one_line(error)}") from error
    check_fit(config, what, num_tokens=len(tokenizer), block_size=block_size)
    return config


def _build(model_class: Any, config: Any, dtype: torch.dtype, attention: str) -> Any:
    can_start_split_weights = hasattr(hf_deepspeed, "initialize_weights_zero3")
    if hf_deepspeed.is_deepspeed_zero3_enabled() and not can_start_split_weights:
        # transformers 4 fails on them: there each rank makes the whole model, DeepSpeed splits it
        config._attn_implementation = attention
        return model_class(config).to(dtype)
    # the door through which AutoModel goes too: it builds a model that is split (ZeRO-3)
    return model_class._from_config(config, dtype=dtype, attn_implementation=attention)


def _explain_unloaded(name: str, error: Exception, *, is_offline: bool) -> str:
    text = one_line(error)
    if isinstance(error, OSError) and (is_offline or "couldn't connect" in text):
        return f"model.name: {how_to_fetch(name)}"
    if "trust_remote_code" in text:
        return (
            f"model {name} brings Python code of its own; read it, and if it may run here write "
            "model.trust_remote_code: true"
        )
    return f"model {name}: {text}"
