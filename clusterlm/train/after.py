"""What the commands after a training do with a target: merge it, talk with it, measure it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from clusterlm.data.cache import Cache, open_cache, plan_file
from clusterlm.errors import ClusterLMError, TrainError
from clusterlm.train.answer import Answerer
from clusterlm.train.blocks import Batch, collate_blocks
from clusterlm.train.chat import Chat
from clusterlm.train.evaluate import score_batches
from clusterlm.train.history import History
from clusterlm.train.loaded import Loaded, load_target, quiet_libraries
from clusterlm.train.model import choose_dtype
from clusterlm.train.sampling import Sampling
from clusterlm.train.target import Target, data_folder
from clusterlm.train.terminal import take_anything, write_answer
from clusterlm.weights.compare import MOST_TOKENS
from clusterlm.weights.merge_job import MergeJob

BLOCKS_COMPARED = 2


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a split.

    Attributes:
        loss: mean over the supervised tokens, by their weights.
        perplexity: exp of the loss.
        accuracy: share of the supervised tokens that were the first choice.
        tokens: supervised tokens.
        blocks: of how many blocks.
        num_blocks: that the split has.
        seconds: of the passes.
    """

    loss: float
    perplexity: float
    accuracy: float
    tokens: int
    blocks: int
    num_blocks: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def words(self) -> str:
        """For people, some lines."""
        part = "" if self.blocks == self.num_blocks else f" of {self.num_blocks:,}"
        return (
            f"perplexity      {self.perplexity:,.3f}\n"
            f"mean loss       {self.loss:.4f}\n"
            f"token accuracy  {self.accuracy:.2%}\n"
            f"on              {self.tokens:,} supervised tokens in {self.blocks:,}{part} blocks, "
            f"{self.seconds:.1f} s"
        )


def merge_job(target: Target, further: Sequence[Target], **asked: Any) -> MergeJob:
    """What is to be merged for a target and the adapters behind it.

    Args:
        target: the first adapter; its base is the base.
        further: adapters that are put in after it.
        **asked: fields of `MergeJob`.

    Raises:
        TrainError: one of them is no adapter.
    """
    adapters = []
    for one in (target, *further):
        if one.adapter is None:
            raise TrainError(
                f"{one.words} is a whole model in {one.model}: there is no adapter to merge"
            )
        adapters.append(one.adapter)
    return MergeJob(
        base=target.model,
        adapters=adapters,
        tokenizer=target.tokenizer,
        revision=target.revision,
        trust_remote_code=target.trust_remote_code,
        blocks=_held_back(target),
        **asked,
    )


def open_chat(target: Target, sampling: Sampling, *, seed: int | None = None, **how: Any) -> Chat:
    """Load a target to talk with; `how` goes to `load_target`."""
    quiet_libraries()
    loaded = load_target(target, **how)
    if seed is not None:
        set_seed(seed)
    take_anything(sys.stdout)
    return Chat(Answerer(loaded, sampling), History(), write_answer)


def evaluate_target(
    target: Target,
    folder: Path,
    split: str,
    *,
    max_blocks: int | None,
    blocks_at_once: int,
    dtype: str = "auto",
    **how: Any,
) -> Evaluation:
    """Let a target predict a split of prepared data.

    Args:
        target: what is measured.
        folder: the prepared data.
        split: of it.
        max_blocks: only the first so many.
        blocks_at_once: in a forward pass.
        dtype: of the weights; auto: for a run as it was trained, else as they are stored.
        **how: goes to `load_target`.

    Raises:
        CacheNotReady: there is no such data, or no such split in it.
        TrainError: the data was made with another tokenizer.
    """
    quiet_libraries()
    cache = open_cache(folder)
    blocks = cache.split(split)
    isolated = np.load(folder / plan_file(split, "isolated"), mmap_mode="r")
    arithmetic = None
    if target.job is not None and target.job.model is not None and dtype == "auto":
        # as the trainer evaluates it: weights of its type, autocast to its precision
        precision = target.job.train.precision
        dtype = str(choose_dtype(target.job.model, precision)).removeprefix("torch.")
        arithmetic = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    loaded = load_target(target, dtype=dtype, keeps_documents_apart=bool(isolated.any()), **how)
    refuse_other_tokens(loaded, cache)
    count = min(len(blocks), max_blocks or len(blocks))
    started = time.monotonic()
    kind = loaded.device.type
    with torch.autocast(kind, arithmetic) if arithmetic else nullcontext():
        sums = score_batches(loaded.model, _batches(blocks, count, blocks_at_once))
    if not int(sums.tokens):
        raise TrainError(f"{split} of {folder} has no supervised token in {count} blocks")
    return Evaluation(
        loss=sums.mean_loss,
        perplexity=sums.perplexity,
        accuracy=sums.accuracy,
        tokens=int(sums.tokens),
        blocks=count,
        num_blocks=len(blocks),
        seconds=round(time.monotonic() - started, 2),
    )


def refuse_other_tokens(loaded: Loaded, cache: Cache) -> None:
    """Raise when the ids of the prepared data mean something else to the model.

    Raises:
        TrainError: saying how they differ.
    """
    from transformers import AutoTokenizer

    of_data = AutoTokenizer.from_pretrained(cache.tokenizer_dir).get_vocab()
    of_model = loaded.tokenizer.get_vocab()
    if of_data != of_model:
        other = sum(of_model.get(token) != number for token, number in of_data.items())
        raise TrainError(
            f"the prepared data {cache.root.name[:12]} was made with another tokenizer: "
            f"{other:,} of its {len(of_data):,} tokens are others to this model; "
            "prepare it with data.tokenizer.name: of the model, and name that job with --data"
        )
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    if len(of_data) > rows:
        raise TrainError(f"the tokenizer has {len(of_data)} tokens, the model knows {rows}")
    context = Answerer(loaded, Sampling()).context
    size = int(cache.manifest["block_size"])
    if context is not None and size > context:
        raise TrainError(f"blocks of {size} tokens, and the model sees {context} at once")


def _batches(blocks: Any, count: int, blocks_at_once: int) -> Iterator[Batch]:
    for start in range(0, count, blocks_at_once):
        yield collate_blocks(blocks.batch(list(range(start, min(start + blocks_at_once, count)))))


def _held_back(target: Target) -> list[list[int]]:
    """Tokens of some blocks that a run has held back; none where it has none."""
    folder = data_folder(target.run) if target.run else None
    try:
        blocks = open_cache(folder).split("validation") if folder else None
    # they make the comparison better, and are not needed for it
    except ClusterLMError:
        return []
    count = min(BLOCKS_COMPARED, len(blocks)) if blocks else 0
    return [
        torch.from_numpy(blocks[k]["input_ids"])[:MOST_TOKENS].tolist()  # type: ignore[index]
        for k in range(count)
    ]
