"""Rules about model.vocab; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job


def vocabulary_has_a_use(job: Job) -> Iterator[Problem]:
    """model.vocab is about an existing model, a tokenizer, and our own training."""
    if job.model is None or "vocab" not in job.model.model_fields_set:
        return
    if job.model.from_scratch is not None:
        message = "is for an existing model; a new one gets a row for each entry of the tokenizer"
        yield Problem("model.vocab", message)
    elif job.train.command is not None or job.data is None:
        message = "needs `data` and the built-in training; an own script would not see its work"
        yield Problem("model.vocab", message)


def expected_sizes_go_with_the_mode(job: Job) -> Iterator[Problem]:
    """The pair of expect is one that the mode allows."""
    vocab = job.model.vocab if job.model else None
    if vocab is None or vocab.expect is None:
        return
    rows, entries = vocab.expect
    if rows < 1 or entries < 1:
        message = f"{vocab.expect} are no sizes; write [rows of the model, entries]"
        yield Problem("model.vocab.expect", message)
    elif vocab.mode == "strict" and rows != entries:
        message = f"{vocab.expect} differ, and mode strict allows no difference"
        yield Problem("model.vocab.expect", message)
    elif vocab.mode == "keep" and entries > rows:
        message = f"{entries} entries need as many rows; write mode: resize"
        yield Problem("model.vocab.expect", message)


def vocabulary_fits(job: Job) -> Iterator[Problem]:
    """Rows and entries go together, as far as folders here tell them."""
    if job.model is None or job.data is None or job.model.name is None:
        return
    vocab, tokenizer = job.model.vocab, job.data.tokenizer
    same = tokenizer.name == job.model.name and tokenizer.extend is None
    if same and "vocab" not in job.model.model_fields_set:
        # a model and its own tokenizer: nothing to be read
        return
    from clusterlm.spec.vocabulary import known_entries, misfit, read_config, rows_of

    config = read_config(job.model.name)
    rows = rows_of(config) if config else None
    if rows is None:
        return
    entries = known_entries(tokenizer)
    if entries is not None:
        if message := misfit(vocab, rows, entries):
            yield Problem("model.vocab", message)
    elif vocab.expect is not None and vocab.expect[0] != rows:
        message = f"the model has {rows:,} rows, and {vocab.expect[0]:,} are expected"
        yield Problem("model.vocab.expect", message)


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (vocabulary_has_a_use, ("data", "model", "train")),
    (expected_sizes_go_with_the_mode, ("model",)),
    (vocabulary_fits, ("data", "model")),
)
