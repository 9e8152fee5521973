"""Tokenizer, blocks, and what is kept of the sources."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from clusterlm.spec.base import ARGUMENT, LEFT_OUT, Line, Revision, Spec
from clusterlm.spec.sources import Source
from clusterlm.spec.units import Count, Flag


class TrainTokenizer(Spec):
    """A byte-level BPE tokenizer trained on the sources."""

    vocab_size: Count = Field(ge=260, le=1_000_000)
    """Entries, special tokens and the 256 bytes included."""
    min_frequency: int = Field(2, ge=1)
    """A pair that occurs less often is never merged."""


class ExtendTokenizer(Spec):
    """New entries for an existing tokenizer. Old ids stay what they are."""

    tokens: list[str] = []
    """Words that become one token each."""
    special_tokens: list[str] = []
    """Marks that are never split and never part of a text."""
    learn: Count = Field(0, ge=0, le=1_000_000)
    """How many entries to learn from the sources (byte-level BPE only)."""
    min_frequency: int = Field(2, ge=1)
    """A pair that occurs less often is never merged."""


class Tokenizer(Spec):
    """An existing tokenizer, or one trained on the sources. Exactly one of `name` and `train`."""

    name: Line | None = None
    """Folder (relative to the YAML) or hub id."""
    revision: Revision | None = None
    """Commit or tag on the hub."""
    train: TrainTokenizer | None = None
    """Train one on the sources."""
    extend: ExtendTokenizer | None = None
    """Entries to add to the one that `name` means."""
    chat_template: str | None = Field(None, pattern=ARGUMENT, max_length=200_000)
    """File with a Jinja chat template, the name of a built-in one (chatml, llama2, llama3, qwen,
    gemma, mistral, vicuna, alpaca), or the template itself; default: the tokenizer's own, else
    chatml."""


class NearDuplicates(Spec):
    """Documents that share most of their words. MinHash over shingles of tokens."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Least share of common shingles (Jaccard) of what is dropped."""
    permutations: int = Field(128, ge=16, le=512, multiple_of=16)
    """Length of a signature: more is more exact and slower."""
    shingle: int = Field(8, ge=1, le=64)
    """Tokens in a shingle."""


class Decontaminate(Spec):
    """Training documents that hold passages of the validation set are dropped."""

    ngram: int = Field(13, ge=3, le=100)
    """Tokens of a passage that must be the same."""
    share: float = Field(0.5, gt=0, le=1)
    """Least share of a validation document's passages that one training document may hold."""


class Dedup(Spec):
    """Which repeated documents are dropped.

    What is held back is kept first, then the sources in the order of the YAML, then the order of
    reading.
    """

    exact: Flag = False
    """Drop documents whose content was seen before, whatever source it came from."""
    near: NearDuplicates | None = None
    """Drop documents that nearly repeat one seen before."""
    decontaminate: Decontaminate | None = None
    """Drop training documents that give away the validation set."""


class Validation(Spec):
    """What is held back from training to measure the loss. Not both of the two."""

    fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the documents, chosen by content: the same document is always on the same side."""
    sources: list[Source] = []
    """Own sources."""


class Mix(Spec):
    """How the sources share a pass; see also `weight` and `epochs` of a source."""

    temperature: float | None = Field(None, ge=1, le=100)
    """Shares follow tokens ** (1 / temperature): 1 keeps the sizes, more evens them out."""


class Data(Spec):
    """What is trained on."""

    tokenizer: Tokenizer
    """How text becomes tokens."""
    sources: list[Source] = Field(min_length=1)
    """What is read, in this order."""
    block_size: int = Field(ge=8, le=1_048_576)
    """Tokens in a training sequence."""
    packing: Literal["concat", "document_start", "paragraph_start", "best_fit", "padded"] = "concat"
    """How texts fill blocks. `concat`: one stream, cut every block_size tokens. `document_start`,
    `paragraph_start`: a block begins where a document (or paragraph) does; what lies between two
    blocks is lost. `best_fit`: whole documents, the gaps padded. `padded`: one document a block.
    Conversations are never cut: best_fit, or padded."""
    isolate_documents: Flag = True
    """Attention never crosses documents, and positions begin anew with each."""
    overlong: Literal["drop", "truncate", "error"] = "drop"
    """A conversation longer than a block: drop it, cut it, or stop."""
    on_bad_record: Literal["stop", "skip", "quarantine"] = "stop"
    """A record that cannot be used (no UTF-8, no JSON, lacks its field, nothing to train in it):
    stop with file and line, skip and count, or copy it into a file beside the prepared data."""
    dedup: Dedup = LEFT_OUT
    """Which repeated documents are dropped."""
    validation: Validation = LEFT_OUT
    """What is held back."""
    mix: Mix = LEFT_OUT
    """How the sources share a pass."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the order of documents and blocks."""
    engine: Literal["auto", "tokenizers", "gigatoken", "fastokens"] = "auto"
    """What tokenizes. `auto`: the fastest that is installed and gives the same ids on a trial."""
    tasks: int = Field(1, ge=1, le=1000)
    """Jobs that tokenize side by side (a Slurm array), each with `resources.preprocess`; a small
    one behind them makes the blocks. Only a job that fails is tried again, and the result is the
    same as with 1."""

    @property
    def holds_back(self) -> bool:
        """There is something to measure the loss on."""
        per_source = any(source.validation for source in self.sources)
        return self.validation.fraction > 0 or bool(self.validation.sources) or per_source
