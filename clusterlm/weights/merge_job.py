"""What `merge` is asked for, and what it tells when it is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.weights.compare import Comparison
from clusterlm.weights.writer import MAX_SHARD_BYTES


@dataclass(frozen=True)
class MergeJob:
    """What is to be merged, and how.

    Attributes:
        base: folder or hub id.
        adapters: folders, in the order in which they are put in.
        tokenizer: folder or hub id.
        revision: of a base on the hub.
        scale: multiplies the low-rank updates.
        dtype: a key of STORED_AS; None keeps what the base has.
        max_shard_bytes: of a file.
        compares: logits of both are compared.
        bound: largest difference; see `Comparison`.
        texts: prompts; None takes the built-in ones.
        blocks: further prompts as token ids.
        device: where the models are compared.
        trust_remote_code: the model may bring Python code.
    """

    base: str
    adapters: Sequence[Path]
    tokenizer: str
    revision: str | None = None
    scale: float = 1.0
    dtype: str | None = None
    max_shard_bytes: int = MAX_SHARD_BYTES
    compares: bool = True
    bound: float = 0.05
    texts: Sequence[str] | None = None
    blocks: Sequence[Sequence[int]] = ()
    device: str = "cpu"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Merged:
    """What was written."""

    folder: Path
    num_changed: int
    is_untied: bool
    rows: int | None
    comparison: Comparison | None
