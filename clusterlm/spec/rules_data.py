"""Rules about the data: sources, their shares, tokenizer, validation; collected in `rules.py`.

Whether files are there is looked at in `rules_files.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from clusterlm.errors import Problem
from clusterlm.spec.data import Data
from clusterlm.spec.job import Job
from clusterlm.spec.sources import (
    ChatSource,
    ConversationSource,
    Source,
    SourceBase,
    TextSource,
)

OF_CHARACTERS = ("name", "context", "greeting", "example")
RECORDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
"""What ends so, or so and packed, holds records; as in `data/files.py`."""


def named_sources(data: Data | None) -> Iterator[tuple[str, Source]]:
    """All sources with their places, those that are held back too."""
    if data is None:
        return
    for number, source in enumerate(data.sources):
        yield f"data.sources[{number}]", source
    for number, source in enumerate(data.validation.sources):
        yield f"data.validation.sources[{number}]", source


def sources_have_one_origin(job: Job) -> Iterator[Problem]:
    """Exactly one of path and hub; a revision is one of the hub's."""
    for where, source in named_sources(job.data):
        if source.path is None and source.hub is None:
            yield Problem(where, "write path: ... or hub: owner/name")
        elif source.path is not None and source.hub is not None:
            yield Problem(where, "has both path and hub; keep one")
        elif source.revision is not None and source.hub is None:
            yield Problem(f"{where}.revision", "belongs to a hub name; there is none")


def lengths_leave_something(job: Job) -> Iterator[Problem]:
    """min_chars is not above max_chars."""
    for where, source in named_sources(job.data):
        if source.max_chars is not None and source.min_chars > source.max_chars:
            message = f"{source.min_chars} is more than max_chars, {source.max_chars}"
            yield Problem(f"{where}.min_chars", f"{message}; nothing would be left")


def lines_are_of_plain_text(job: Job) -> Iterator[Problem]:
    """Records are documents already; only plain text is parted into lines."""
    for where, source in named_sources(job.data):
        if not isinstance(source, TextSource) or source.documents == "file":
            continue
        name = (source.path or "").lower().removesuffix(".gz").removesuffix(".zst")
        if source.hub is not None or name.endswith(RECORDS):
            message = "line is for plain text, and what is read here holds records; leave it out"
            yield Problem(f"{where}.documents", message)


def mapping_goes_with_its_layout(job: Job) -> Iterator[Problem]:
    """Parts of a character are looked for in characters only."""
    for where, source in named_sources(job.data):
        if not isinstance(source, ChatSource) or source.layout == "character":
            continue
        for part in (part for part in OF_CHARACTERS if part in source.mapping):
            message = "would not be used: it is part of a character; write layout: character"
            yield Problem(f"{where}.mapping.{part}", message)


def loss_has_one_rule(job: Job) -> Iterator[Problem]:
    """role_weights say what is trained; so does only_target_loss: false."""
    for where, source in named_sources(job.data):
        if not isinstance(source, ConversationSource) or not source.role_weights:
            continue
        weights = source.role_weights
        if not source.only_target_loss:
            message = "false trains every token, and role_weights say otherwise; keep one"
            yield Problem(f"{where}.only_target_loss", message)
        # of the roles left out, only the assistant's and its calls have a weight
        elif weights.get("assistant", 1) == 0 and not any(weights.values()):
            message = "are all 0: nothing would be trained; give a role more than 0"
            yield Problem(f"{where}.role_weights", message)


def shares_are_said_one_way(job: Job) -> Iterator[Problem]:
    """Weights, epochs or a temperature; where one source has a weight, the others count as 1."""
    if job.data is None:
        return
    sources = job.data.sources
    has_weights = any(source.weight is not None for source in sources)
    has_epochs = any(_says_epochs(source) for source in sources)
    if job.data.mix.temperature is not None and (has_weights or has_epochs):
        other = "weight" if has_weights else "epochs"
        message = f"makes the shares, and so does {other} of a source; keep one"
        yield Problem("data.mix.temperature", message)
    for number, source in enumerate(sources):
        where = f"data.sources[{number}]"
        if source.weight is not None and _says_epochs(source):
            yield Problem(where, "has both weight and epochs; keep one")
        elif has_weights and _says_epochs(source):
            message = "would not be used: another source has a weight; write a weight here too"
            yield Problem(f"{where}.epochs", message)


def _says_epochs(source: SourceBase) -> bool:
    return "epochs" in source.model_fields_set


def tokenizer_has_one_origin(job: Job) -> Iterator[Problem]:
    """Exactly one of name and train; a revision and extensions are of a name."""
    if job.data is None:
        return
    tokenizer, where = job.data.tokenizer, "data.tokenizer"
    if tokenizer.name is None and tokenizer.train is None:
        yield Problem(where, "write name: ... or train: {vocab_size: 32000}")
    if tokenizer.name is not None and tokenizer.train is not None:
        yield Problem(where, "has both name and train; keep one")
    if tokenizer.revision is not None and tokenizer.name is None:
        yield Problem(f"{where}.revision", "belongs to a name; there is none")
    # without either, the missing name is told already
    if tokenizer.extend is not None and tokenizer.name is None and tokenizer.train is not None:
        message = "adds to the tokenizer of a name; one that is trained takes its vocab_size"
        yield Problem(f"{where}.extend", message)


def validation_has_one_origin(job: Job) -> Iterator[Problem]:
    """A share of the documents, also source by source, or own sources."""
    if job.data is None or not job.data.validation.sources:
        return
    if job.data.validation.fraction > 0:
        yield Problem("data.validation", "has both fraction and sources; keep one")
    for where, source in named_sources(job.data):
        if source.validation is not None:
            message = "is a share to be held back, but data.validation has sources; keep one"
            yield Problem(f"{where}.validation", message)


def decontamination_has_a_validation_set(job: Job) -> Iterator[Problem]:
    """Without something held back there is nothing to give away."""
    if job.data and job.data.dedup.decontaminate is not None and not job.data.holds_back:
        message = "there is no validation data; add data.validation: {fraction: 0.05}"
        yield Problem("data.dedup.decontaminate", message)
