"""Rules that look at the disk: what a job names must be there; collected in `rules.py`.

The paths are absolute, so a rule gives the same answer from every folder.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.base import HUB_NAME
from clusterlm.spec.chat_template import BUILT_IN_TEMPLATES, is_file, is_inline
from clusterlm.spec.job import Job
from clusterlm.spec.json_files import NoJsonError, read_json_file
from clusterlm.spec.python_files import definition_problem, is_installed
from clusterlm.spec.rules_data import named_sources
from clusterlm.spec.sources import CustomSource
from clusterlm.spec.wording import did_you_mean, shown

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
"""What the longest sequence is called, by model family; the first that is there counts."""
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
            message = definition_problem(module, name, "function")
        elif not module or source.converter.endswith(".py"):
            file = source.converter if source.converter.endswith(".py") else "conv.py"
            found = shown(source.converter)
            message = f"{found} is no function of a file or module; write {file}:function"
        elif is_here and not is_installed(module.partition(".")[0]):
            file = f"{module.replace('.', '/')}.py"
            message = f"there is no {file} beside the YAML, and no package of that name"
        else:
            # what an image holds cannot be looked at
            continue
        if message:
            yield Problem(f"{where}.converter", message)


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
            message = f"{shown(name)} has none of {', '.join(files)}"
            if os.path.isfile(os.path.join(name, "adapter_config.json")):
                message = (
                    f"{shown(name)} is an adapter; write the name of its base here, and "
                    "model.adapter: {continue_from: that folder}"
                )
            yield Problem(where, message)
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
        return read_json_file(path)
    except NoJsonError:
        return None


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
