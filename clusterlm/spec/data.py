"""Sources, tokenizer, blocks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from clusterlm.spec.base import LEFT_OUT, Line, Revision, Spec
from clusterlm.spec.units import Count, Flag


class TextSource(Spec):
    """Documents: .jsonl/.json lines and .parquet with a text field; other files are one each."""

    kind: Literal["text"]
    """Which kind of source this is."""
    path: Line
    """File, folder or glob (`**` too), relative to the YAML; `{stdlib}` is Python's own library."""
    exclude: list[Line] = []
    """Globs to leave out, matched against the path below the folder that `path` starts in."""
    field: Line = "text"
    """Field that holds the text, in .jsonl and .parquet."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often the source is seen in one pass: 2 doubles it, 0.5 takes half of its documents."""
    max_documents: Count | None = Field(None, ge=1)
    """Take no more documents than this."""


class ChatSource(Spec):
    """Conversations: a `messages` column of {role, content}; the assistant's turns are trained."""

    kind: Literal["chat"]
    """Which kind of source this is."""
    path: Line
    """.jsonl or .parquet file, folder or glob, relative to the YAML."""
    exclude: list[Line] = []
    """Globs to leave out."""
    field: Line = "messages"
    """Field that holds the turns."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often the source is seen in one pass."""
    max_documents: Count | None = Field(None, ge=1)
    """Take no more conversations than this."""


class InstructSource(Spec):
    """Prompt and answer in two fields; the answer is trained."""

    kind: Literal["instruct"]
    """Which kind of source this is."""
    path: Line
    """.jsonl or .parquet file, folder or glob, relative to the YAML."""
    exclude: list[Line] = []
    """Globs to leave out."""
    prompt: Line = "prompt"
    """Field of the user's turn."""
    response: Line = "response"
    """Field of the assistant's turn."""
    system: Line | None = None
    """Field of a system turn, if there is one."""
    weight: float = Field(1.0, gt=0, le=1000)
    """How often the source is seen in one pass."""
    max_documents: Count | None = Field(None, ge=1)
    """Take no more records than this."""


Source = Annotated[TextSource | ChatSource | InstructSource, Field(discriminator="kind")]


class TrainTokenizer(Spec):
    """A byte-level BPE tokenizer trained on the sources."""

    vocab_size: Count = Field(ge=260, le=1_000_000)
    """Entries, special tokens and the 256 bytes included."""
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
    chat_template: Line | None = None
    """File with a Jinja chat template; default: the tokenizer's own, else ChatML."""


class Dedup(Spec):
    """Which repeated documents are dropped."""

    exact: Flag = False
    """Drop documents whose text was seen before, whatever source it came from."""


class Validation(Spec):
    """What is held back from training to measure the loss. Not both of the two."""

    fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the documents, chosen by content: the same document is always on the same side."""
    sources: list[Source] = []
    """Own sources."""

    @property
    def is_on(self) -> bool:
        """There is something to measure the loss on."""
        return self.fraction > 0 or bool(self.sources)


class Data(Spec):
    """What is trained on."""

    tokenizer: Tokenizer
    """How text becomes tokens."""
    sources: list[Source] = Field(min_length=1)
    """What is read, in this order."""
    block_size: int = Field(ge=8, le=1_048_576)
    """Tokens in a training sequence."""
    packing: Literal["concat", "document_start"] = "concat"
    """`concat`: one stream, cut every block_size tokens. `document_start`: a block starts where a
    document starts, and the rest of a document that does not fit goes on in blocks of its own."""
    overlong: Literal["drop", "truncate", "error"] = "drop"
    """A conversation longer than a block: drop it, cut it, or stop."""
    on_bad_record: Literal["stop", "skip"] = "stop"
    """A record that is no UTF-8, no JSON, or lacks its field: stop with file and line, or skip and
    count."""
    dedup: Dedup = LEFT_OUT
    """Which repeated documents are dropped."""
    validation: Validation = LEFT_OUT
    """What is held back."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the order of documents and blocks."""
