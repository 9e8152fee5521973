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
from clusterlm.spec.base import HUB_NAME
from clusterlm.spec.chat_template import BUILT_IN_TEMPLATES, is_file, is_inline
from clusterlm.spec.job import Job
from clusterlm.spec.rules_data import named_sources
from clusterlm.spec.sources import CustomSource
from clusterlm.spec.train import DeepSpeed
from clusterlm.spec.wording import did_you_mean, shown

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
"""What the longest sequence is called, by model family; the first that is there counts."""
LARGEST_JSON = 4 * 2**20
DATA_ENDINGS = (
    *(".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"),
    *(".gz", ".zst", ".md", ".html", ".xml"),
)
"""What ends so is a file and no name on the hub."""


def sources_exist(job: Job) -> Iterator[Problem]:
    """Every source has at least one file, but those of the hub."""
    for where, source in named_sources(job.data):
        path = source.path
        if path is not None and not _has_file(path):
            kind = "no file matches" if glob.has_magic(path) else _absence(path)
            yield Problem(f"{where}.path", f"{kind} {shown(path)}{_on_the_hub(path)}")


def _has_file(path: str) -> bool:
    if os.path.isfile(path):
        return True
    if os.path.isdir(path):
        return any(names for _, _, names in os.walk(path))
    return any(os.path.isfile(found) for found in glob.iglob(path, recursive=True))


def _absence(path: str) -> str:
    return "the folder is empty:" if os.path.isdir(path) else "there is no file or folder"


def _on_the_hub(path: str) -> str:
    """A hint, where what was written may be a hub id.

    # owner/name -> /folder/of/the/yaml/owner/name, and there is no owner in that folder
    """
    above, name = os.path.split(path)
    folder, owner = os.path.split(above)
    name = f"{owner}/{name}"
    is_one = re.fullmatch(HUB_NAME.strip("^$"), name) and not name.endswith(DATA_ENDINGS)
    if not is_one or os.path.exists(above) or not os.path.isdir(folder):
        return ""
    return f"; if it is a dataset on the hub, write hub: {name}"


def converters_exist(job: Job) -> Iterator[Problem]:
    """A converter's file is there and defines the function; nothing of it is run."""
    is_here = job.image is None or job.runtime == "none"
    for where, source in named_sources(job.data):
        if not isinstance(source, CustomSource):
            continue
        module, _, name = source.converter.rpartition(":" if ":" in source.converter else ".")
        if os.path.isabs(module):
            message = _function_problem(module, name)
        elif not module or source.converter.endswith(".py"):
            file = source.converter if source.converter.endswith(".py") else "conv.py"
            found = shown(source.converter)
            message = f"{found} is no function of a file or module; write {file}:function"
        elif is_here and not _is_installed(module.partition(".")[0]):
            file = f"{module.replace('.', '/')}.py"
            message = f"there is no {file} beside the YAML, and no package of that name"
        else:
            # what an image holds cannot be looked at
            continue
        if message:
            yield Problem(f"{where}.converter", message)


def _function_problem(path: str, name: str) -> str | None:
    import ast  # few jobs have a converter

    if not os.path.isfile(path):
        return f"there is no file {shown(path)}"
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{os.path.basename(path)}, line {line}" if line else os.path.basename(path)
        return f"{shown(place)} cannot be read as Python"
    names = _defined(tree)
    if name in names:
        return None
    file = shown(os.path.basename(path))
    return f"{file} has no function {shown(name)}; {did_you_mean(name, names)}"


def _defined(tree: Any) -> list[str]:
    """Names that a module defines or imports at its top level, also within `if` and `try`."""
    import ast

    names: dict[str, None] = {}
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = None
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= dict.fromkeys(t.id for t in targets if isinstance(t, ast.Name))
        else:
            for part in ("body", "orelse", "finalbody", "handlers"):
                waiting += getattr(node, part, [])
    return list(names)


def _is_installed(package: str) -> bool:
    from importlib.util import find_spec  # finds, and imports nothing of it

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def tokenizer_exists(job: Job) -> Iterator[Problem]:
    """A tokenizer's folder holds one; the chat template is a file, a known name or Jinja."""
    if job.data is None:
        return
    tokenizer = job.data.tokenizer
    if tokenizer.name is not None:
        yield from _named("data.tokenizer.name", tokenizer.name, TOKENIZER_FILES)
    template = tokenizer.chat_template
    if template is not None and (message := _template_problem(template)):
        yield Problem("data.tokenizer.chat_template", message)


def _template_problem(template: str) -> str | None:
    if is_inline(template):
        return _jinja_problem(template)
    if not is_file(template) or os.path.isfile(template):
        return None
    guess = did_you_mean(os.path.basename(template), BUILT_IN_TEMPLATES)
    return f"there is no file {shown(template)}; of the built-in ones, {guess}"


def _jinja_problem(template: str) -> str | None:
    try:
        import jinja2  # 20 ms, and few jobs bring a template
    except ImportError:
        return None
    # those of transformers: generation marks, break and continue
    extensions = ["jinja2.ext.loopcontrols"]
    try:
        jinja2.Environment(extensions=extensions).parse(_without_generation(template))
    except jinja2.TemplateSyntaxError as error:
        return f"is no valid Jinja, line {error.lineno}: {error.message}"
    return None


def _without_generation(template: str) -> str:
    """The template without {% generation %} marks, which only transformers knows."""
    return re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)


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
    elif not re.fullmatch(HUB_NAME.strip("^$"), name):
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
    yield "fp16.enabled", train.precision == "fp16", "train.precision"


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
