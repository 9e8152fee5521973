"""Rules that look at the disk: what a job names must be there; collected in `rules.py`.

The paths are absolute, so a rule gives the same answer from every folder.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.train import DeepSpeed
from clusterlm.spec.wording import shown

HUB_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
"""What the longest sequence is called, by model family; the first that is there counts."""
LARGEST_JSON = 4 * 2**20


def sources_exist(job: Job) -> Iterator[Problem]:
    """Every source has at least one file."""
    if job.data is None:
        return
    held_back = job.data.validation.sources
    places = [(f"data.sources[{n}].path", s) for n, s in enumerate(job.data.sources)]
    places += [(f"data.validation.sources[{n}].path", s) for n, s in enumerate(held_back)]
    for where, source in places:
        if not _has_file(source.path):
            kind = "no file matches" if glob.has_magic(source.path) else _absence(source.path)
            yield Problem(where, f"{kind} {shown(source.path)}")


def _has_file(path: str) -> bool:
    if os.path.isfile(path):
        return True
    if os.path.isdir(path):
        return any(names for _, _, names in os.walk(path))
    return any(os.path.isfile(found) for found in glob.iglob(path, recursive=True))


def _absence(path: str) -> str:
    return "the folder is empty:" if os.path.isdir(path) else "there is no file or folder"


def tokenizer_exists(job: Job) -> Iterator[Problem]:
    """A tokenizer's folder holds one; the chat template is a file."""
    if job.data is None:
        return
    tokenizer = job.data.tokenizer
    if tokenizer.name is not None:
        yield from _named("data.tokenizer.name", tokenizer.name, TOKENIZER_FILES)
    if tokenizer.chat_template is not None and not os.path.isfile(tokenizer.chat_template):
        message = f"there is no file {shown(tokenizer.chat_template)}"
        yield Problem("data.tokenizer.chat_template", message)


def model_exists(job: Job) -> Iterator[Problem]:
    """A model's folder holds one."""
    if job.model is not None and job.model.name is not None:
        yield from _named("model.name", job.model.name, ("config.json",))


def _named(where: str, name: str, files: tuple[str, ...]) -> Iterator[Problem]:
    """A folder with one of the files, or the id of something on the hub."""
    if os.path.isabs(name):
        if not os.path.isdir(name):
            yield Problem(where, f"there is no folder {shown(name)}")
        elif not any(os.path.isfile(os.path.join(name, file)) for file in files):
            yield Problem(where, f"{shown(name)} has none of {', '.join(files)}")
    elif not re.fullmatch(HUB_ID, name):
        message = f"{shown(name)} is neither a folder here nor a hub id such as owner/name"
        yield Problem(where, message)


def block_fits_the_model(job: Job) -> Iterator[Problem]:
    """A block is no longer than what the model can attend to."""
    if job.data is None or job.model is None:
        return
    if job.model.from_scratch is not None:
        config, origin = job.model.from_scratch.config, "model.from_scratch.config"
    else:
        path = os.path.join(job.model.name or "", "config.json")
        config, origin = _read_json(path), path
    context = _context(config)
    if context is not None and job.data.block_size > context:
        message = (
            f"{job.data.block_size} is longer than the model's context of {context} tokens "
            f"({origin}); write at most {context}"
        )
        yield Problem("data.block_size", message)


def _context(config: Any) -> int | None:
    if not isinstance(config, dict):
        return None
    for level in (config, config.get("text_config")):
        for key in CONTEXT_KEYS:
            if isinstance(level, dict) and type(level.get(key)) is int:
                return int(level[key])
    return None


def _read_json(path: str) -> Any:
    """What the file holds; None when it is not there or no JSON."""
    try:
        if not os.path.isabs(path) or os.path.getsize(path) > LARGEST_JSON:
            return None
        import json  # few jobs have such a file

        return json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def deepspeed_json_agrees(job: Job) -> Iterator[Problem]:
    """A DeepSpeed JSON says "auto", or the same as the job."""
    path = job.train.deepspeed
    if path is None or isinstance(path, DeepSpeed):
        return
    where = "train.deepspeed"
    if not os.path.isfile(path):
        yield Problem(where, f"there is no file {shown(path)}")
        return
    config = _read_json(path)
    if not isinstance(config, dict):
        yield Problem(where, f"{shown(path)} is no JSON object")
        return
    for key, wanted, ours in _deepspeed_pairs(job):
        found = _value_at(config, key)
        if found not in (None, "auto", wanted):
            message = f"{key} is {shown(found)} there, but {shown(wanted)} here ({ours})"
            yield Problem(where, f'{message}; write "auto" there')
    # else what is saved at the end are shards that only DeepSpeed can read
    gather = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    if _value_at(config, "zero_optimization.stage") == 3 and not _value_at(config, gather):
        yield Problem(where, f"stage 3 saves no whole model without {gather}: true")


def _deepspeed_pairs(job: Job) -> Iterator[tuple[str, Any, str]]:
    train = job.train
    yield "train_batch_size", job.global_batch_size, "micro_batch_size x accumulation x ranks"
    yield "train_micro_batch_size_per_gpu", train.micro_batch_size, "train.micro_batch_size"
    yield "gradient_accumulation_steps", job.gradient_accumulation, "train.gradient_accumulation"
    yield "gradient_clipping", train.max_grad_norm, "train.max_grad_norm"
    yield "optimizer.params.lr", train.learning_rate, "train.learning_rate"
    yield "optimizer.params.weight_decay", train.weight_decay, "train.weight_decay"
    yield "bf16.enabled", train.precision == "bf16", "train.precision"
    yield "fp16.enabled", False, "train.precision is bf16 or fp32"


def _value_at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def program_exists(job: Job) -> Iterator[Problem]:
    """A script named by its path is there; in an image, unless the path is the image's own."""
    if job.train.command is None:
        return
    program = job.train.command[0]
    if not os.path.isabs(program) or os.path.isfile(program):
        return
    # /opt/team/train.py in an image: no such folder here, so it cannot be looked at
    if job.image is not None and not os.path.isdir(os.path.dirname(program)):
        return
    yield Problem("train.command[0]", f"there is no file {shown(program)}")
