"""An adapter put into its base: weights, config, tokenizer, a card; compared; then named.

    base + adapters -> .FOLDER.merging-*/ -> logits compared -> FOLDER

Whatever goes wrong, FOLDER does not come to be: it is renamed into place at the very end.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.weights.aside import filled_aside, refuse_used, sized
from clusterlm.weights.card import write_card
from clusterlm.weights.changes import read_changes
from clusterlm.weights.compare import (
    PROMPTS,
    Comparison,
    compare_logits,
    encode_prompts,
    merged_logits,
    reference_logits,
)
from clusterlm.weights.files import Weights
from clusterlm.weights.layout import read_config, read_layout
from clusterlm.weights.merge_job import Merged, MergeJob
from clusterlm.weights.numbers import FLOATS, NUM_BYTES
from clusterlm.weights.rewrite import STORED_AS, Plan, plan_merge, write_merged
from clusterlm.weights.sources import base_folder, copy_beside
from clusterlm.weights.whole_load import faults_on_layout

Say = Callable[[str], None]


def merge(job: MergeJob, folder: Path, *, say: Say) -> Merged:
    """Merge into a new folder.

    Raises:
        WeightsError: it cannot be merged, or says something else than base and adapter; then there
            is no folder.
    """
    refuse_used(folder)
    if job.dtype is not None and job.dtype not in STORED_AS:
        raise WeightsError(f"--dtype {job.dtype}: {', '.join(STORED_AS)}")
    base = base_folder(job.base, job.revision)
    refuse_quantised(base, job.base)
    refuse_full_disk(base, folder, job.dtype)
    layout = read_layout(base, trust_remote_code=job.trust_remote_code)
    adapters = [read_changes(adapter, layout, scale=job.scale) for adapter in job.adapters]
    for adapter in job.adapters:
        refuse_partial(base, adapter, trust_remote_code=job.trust_remote_code)
    plan = plan_merge(layout, adapters)
    with filled_aside(folder, "merging") as aside:
        say(f"merging into {job.base}")
        shards = job.max_shard_bytes
        changed = write_merged(base, layout, plan, aside, dtype=job.dtype, max_shard_bytes=shards)
        write_config(base, aside, plan, job.dtype)
        copy_beside(base, job.tokenizer, job.adapters[-1], aside)
        comparison = compare(job, base, aside, say) if job.compares else None
        merged = Merged(folder, changed, bool(plan.untied), plan.rows, comparison)
        write_card(aside, base, replace(job, texts=None, blocks=()), merged)
    return merged


def refuse_quantised(base: Path, name: str) -> None:
    """Raise when the base is stored in few bits: nothing can be added to them without harm."""
    about = read_config(base).get("quantization_config")
    if about:
        method = about.get("quant_method", "?") if isinstance(about, dict) else "?"
        raise WeightsError(
            f"{name} is stored quantised ({method}); merge into the model that it was made from: "
            "--base NAME"
        )


def refuse_partial(base: Path, adapter: Path, *, trust_remote_code: bool) -> None:
    """Raise when peft would fill what the adapter's file lacks with numbers of its own."""
    if faults := faults_on_layout(base, adapter, trust_remote_code=trust_remote_code):
        raise WeightsError(f"{adapter}: is no whole adapter of {base}: {'; '.join(faults)}")


def refuse_full_disk(base: Path, folder: Path, dtype: str | None) -> None:
    """Raise when the merged weights cannot fit where `folder` is to be."""
    with Weights.open(base) as weights:
        sizes = (
            math.prod(weights.shape(name)) * NUM_BYTES[STORED_AS[dtype]]
            if dtype and weights.dtype(name) in FLOATS
            else len(weights.raw(name))
            for name in weights
        )
        needed = sum(sizes)
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise WeightsError(
            f"{place}: {sized(free)} are free, the merged weights have {sized(needed)}; make room "
            "there, or name a folder on another disk"
        )


def compare(job: MergeJob, base: Path, merged: Path, say: Say) -> Comparison:
    """Compare the logits of both.

    Raises:
        WeightsError: they differ by more than the bound.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged, trust_remote_code=job.trust_remote_code)
    prompts = [*encode_prompts(tokenizer, job.texts or PROMPTS), *map(list, job.blocks)]
    how = {"device": job.device, "trust_remote_code": job.trust_remote_code}
    say(f"comparing the logits of {len(prompts)} prompts")
    reference = reference_logits(str(base), job.adapters, prompts, scale=job.scale, **how)
    found = merged_logits(merged, prompts, **how)
    is_relative = (job.dtype or stored_dtype(read_config(base))) != "float32"
    comparison = compare_logits(reference, found, bound=job.bound, is_relative=is_relative)
    if not comparison.is_within:
        raise WeightsError(
            f"the merged model differs from base and adapter, so it is not kept: "
            f"{comparison.words()}\n  --bound N allows more"
        )
    return comparison


def write_config(base: Path, to: Path, plan: Plan, dtype: str | None) -> None:
    """config.json of the merged model: that of the base, but for what has changed."""
    config = read_config(base)
    for part in (config, config.get("text_config")):
        if not isinstance(part, dict):
            continue
        is_top = part is config
        if plan.untied and (is_top or "tie_word_embeddings" in part):
            part["tie_word_embeddings"] = False
        if plan.rows is not None and "vocab_size" in part:
            part["vocab_size"] = plan.rows
        if dtype is not None:
            for key in {"dtype", "torch_dtype"} & set(part) or ({"dtype"} if is_top else set()):
                part[key] = dtype
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (to / "config.json").write_text(text, encoding="utf-8")


def stored_dtype(config: dict[str, Any]) -> str:
    """Type of the weights as config.json names it; float32 when it does not."""
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    name = name.removeprefix("torch.")
    return name if name in STORED_AS else "float32"
