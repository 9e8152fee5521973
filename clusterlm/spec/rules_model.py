"""Rules about the model and its vocabulary; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.python_files import definition_problem, is_installed
from clusterlm.spec.wording import shown


def model_has_one_origin(job: Job) -> Iterator[Problem]:
    """Exactly one of name and from_scratch; a revision is one of the hub's."""
    model = job.model
    if model is None:
        return
    if model.name is None and model.from_scratch is None:
        yield Problem("model", "write name: ... or from_scratch: {class: ..., config: {...}}")
    if model.name is not None and model.from_scratch is not None:
        yield Problem("model", "has both name and from_scratch; keep one")
    if model.revision is not None and model.name is None:
        yield Problem("model.revision", "belongs to a name; there is none")


def classes_exist(job: Job) -> Iterator[Problem]:
    """A class of the user's own file is there; nothing of it is run."""
    model = job.model
    if model is None:
        return
    if model.class_ is not None and model.name is None:
        message = "is for model.name; a new model has its class in from_scratch: {class: ...}"
        yield Problem("model.class", message)
        return
    is_here = job.image is None or job.runtime == "none"
    new = model.from_scratch.class_ if model.from_scratch else None
    named: dict[str, str | None] = {"model.class": model.class_, "model.from_scratch.class": new}
    for where, name in named.items():
        if name is not None and (wrong := _class_problem(name, is_here=is_here)):
            yield Problem(where, wrong)


def _class_problem(name: str, *, is_here: bool) -> str | None:
    if ":" in name:
        file, _, found = name.rpartition(":")
        if not file.endswith(".py"):
            return f"{shown(name)} names no Python file; write my_model.py:Class"
        return definition_problem(file, found, "class")
    package = name.partition(".")[0]
    # what an image holds cannot be looked at
    if "." in name and is_here and not is_installed(package):
        return f"there is no {package}.py beside the YAML, and no package of that name"
    return None


def auto_class_knows_its_type(job: Job) -> Iterator[Problem]:
    """AutoModelForCausalLM makes a new model by model_type alone."""
    new = job.model.from_scratch if job.model else None
    if new and new.class_ == "AutoModelForCausalLM" and "model_type" not in new.config:
        message = "AutoModelForCausalLM needs config.model_type, such as llama or qwen3"
        yield Problem("model.from_scratch.class", message)


def vocabulary_comes_from_the_tokenizer(job: Job) -> Iterator[Problem]:
    """A vocab_size in the model's config may only repeat that of a tokenizer to be trained."""
    if job.data is None or job.model is None or job.model.from_scratch is None:
        return
    size = job.model.from_scratch.config.get("vocab_size")
    trained = job.data.tokenizer.train
    if size is None or (trained is not None and size == trained.vocab_size):
        return
    other = f"data.tokenizer.train.vocab_size is {trained.vocab_size}" if trained else "its own"
    message = f"{shown(size)}, but the tokenizer decides ({other}); leave it out"
    yield Problem("model.from_scratch.config.vocab_size", message)


def heads_divide(job: Job) -> Iterator[Problem]:
    """hidden_size by num_attention_heads, and those by num_key_value_heads."""
    if job.model is None or job.model.from_scratch is None:
        return
    config = job.model.from_scratch.config
    pairs = [
        ("num_attention_heads", "hidden_size"),
        ("num_key_value_heads", "num_attention_heads"),
    ]
    for key, whole in pairs:
        if key == "num_attention_heads" and "head_dim" in config:
            continue  # heads of their own size need not divide the width
        heads, width = config.get(key), config.get(whole)
        if type(heads) is int and type(width) is int and (heads < 1 or width % heads):
            message = f"{heads} does not divide {whole}, which is {width}"
            yield Problem(f"model.from_scratch.config.{key}", message)


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (model_has_one_origin, ("model",)),
    (classes_exist, ("model", "image", "cluster")),
    (auto_class_knows_its_type, ("model",)),
    (vocabulary_comes_from_the_tokenizer, ("data", "model")),
    (heads_divide, ("model",)),
)
