"""What the plan predicts against what torch's CPU allocator held at most, in real trainings.

Each training runs in processes of its own, two steps of it. The profiler reports allocations and
frees of torch's CPU allocator; most bytes at once are the peak. What the whole process grew by is
shown beside it. What is offloaded lies in the same memory here, and is added to the plan's figure.

    python -m benchmarks.memory
"""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.memory_ranks import WatchedRanks
from benchmarks.page import Page
from clusterlm.plan.memory import memory_per_rank
from clusterlm.plan.setup import setup_of
from clusterlm.plan.shape import scratch_config, shape_of
from clusterlm.spec.job import Job

BLOCK_SIZE, VOCAB_SIZE = 256, 4000
MIB = 2**20
SIZES: dict[str, dict[str, Any]] = {
    "8M": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8,
           "num_attention_heads": 4},
    "44M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 14,
            "num_attention_heads": 8, "num_key_value_heads": 2},
    "60M": {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 11,
            "num_attention_heads": 10},
}  # fmt: skip
ADAPTER = {"mode": "adapter"}
DORA = {"mode": "adapter", "dora": True}
TWO = {"micro_batch_size": 2}
ZERO2 = TWO | {"strategy": "deepspeed", "deepspeed": {"stage": 2}}
ZERO3 = ZERO2 | {"deepspeed": {"stage": 3}}
ZERO3_ADAPTER = ZERO3 | ADAPTER
FSDP = TWO | {"strategy": "fsdp"}
BF16 = {"precision": "bf16"}
# size, what is trained and how, ranks
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("8M", ZERO3, 2),
    ("8M", FSDP, 2),
    ("8M", DORA, 1),
    ("8M", ZERO3 | {"deepspeed": {"stage": 3, "offload_optimizer": True}}, 2),
    ("8M", ZERO2 | {"deepspeed": {"stage": 2, "offload_optimizer": True}}, 2),
    ("8M", ZERO3 | BF16, 2),
    ("8M", FSDP | BF16, 2),
    ("8M", FSDP | {"fsdp": {"shard": "gradients"}}, 2),
    ("8M", FSDP | {"fsdp": {"offload": True}}, 2),
    ("8M", DORA | BF16, 1),
    ("8M", ZERO3_ADAPTER, 2),
    ("8M", {}, 1),
    ("44M", ZERO3, 2),
    ("44M", FSDP, 2),
    ("44M", {}, 1),
    ("44M", TWO, 2),
    ("44M", BF16, 1),
    ("44M", {"activation_checkpointing": True}, 1),
    ("44M", ADAPTER, 1),
    ("44M", ADAPTER | BF16, 1),
    ("44M", ZERO2, 2),
    ("44M", ZERO2 | BF16, 2),
)


def prepare(folder: Path) -> Path:
    """Prepared data of a part of Python's own library."""
    from clusterlm.data.preprocess import preprocess
    from clusterlm.spec.data import Data

    preprocess(Data.model_validate(_data()), folder, workers=1, report=lambda progress: None)
    return folder


def job_of(size: str, train: dict[str, Any], ranks: int) -> Job:
    """A job with a Llama of this size."""
    positions = {"max_position_embeddings": BLOCK_SIZE}
    scratch = {"class": "LlamaForCausalLM", "config": SIZES[size] | positions}
    model: dict[str, Any] = {"from_scratch": scratch}
    train = dict(train)
    if train.get("mode") == "adapter":
        model["adapter"] = {"r": 16, "method": "dora" if train.pop("dora", False) else "lora"}
    standard = {"precision": "fp32", "max_steps": 2, "logging_steps": 1, "micro_batch_size": 4}
    resources = {"processes_per_node": ranks}
    values = {"name": "t", "resources": resources, "model": model, "data": _data()}
    return Job.model_validate(values | {"train": standard | train})


def predict(job: Job) -> float:
    """Bytes of a rank by the plan, with what it offloads."""
    assert job.model is not None
    assert job.model.from_scratch is not None
    asked = job.model.from_scratch
    shape = shape_of(scratch_config(asked.class_, asked.config, vocab_size=VOCAB_SIZE) or {})
    assert shape is not None
    memory = memory_per_rank(setup_of(job, shape, block_size=BLOCK_SIZE))
    offloaded = sum(size for name, size in memory.host.items() if name.startswith("offloaded"))
    return memory.peak + offloaded / job.resources.ranks_per_node


def main() -> None:
    """Print the table."""
    page = Page()
    rows = []
    with tempfile.TemporaryDirectory() as folder, WatchedRanks() as ranks_of:
        cache = prepare(Path(folder) / "cache")
        for number, (size, train, ranks) in enumerate(CASES):
            job = job_of(size, train, ranks)
            start = [f"{size} {words_of(train)}", str(ranks)]
            try:
                found = ranks_of.measure(Path(folder) / str(number), cache, job)
            except AssertionError as error:
                rows.append([*start, "does not run", "", f"{predict(job) / MIB:,.0f}", ""])
                print(*rows[-1], str(error)[-1500:], flush=True)
                continue
            expected = predict(job)
            cells = (found["allocator"], found["process"], expected)
            off = expected / found["allocator"] - 1
            rows.append([*start, *(f"{cell / MIB:,.0f}" for cell in cells), f"{off:+.1%}"])
            print(*rows[-1], flush=True)
    head = ["training", "ranks", "allocator", "process", "plan", "off"]
    page.table("Peak memory of rank 0, MiB", head, rows)


def words_of(train: dict[str, Any]) -> str:
    """What differs from all weights in fp32 under ddp."""
    parts = ["DoRA" if "dora" in train else "LoRA" if train.get("mode") == "adapter" else "full"]
    if "deepspeed" in train:
        parts.append(f"ZeRO-{train['deepspeed']['stage']}")
        parts += ["optimizer offloaded"] * ("offload_optimizer" in train["deepspeed"])
    else:
        parts.append(str(train.get("strategy", "ddp")))
    parts += [f"{key} {value}" for key, value in train.get("fsdp", {}).items()]
    parts += ["activation checkpointing"] * ("activation_checkpointing" in train)
    return ", ".join([*parts, str(train.get("precision", "fp32"))])


def _data() -> dict[str, Any]:
    library = Path(sysconfig.get_path("stdlib"))
    sources = [{"kind": "text", "path": str(library / name)} for name in ("json", "asyncio")]
    tokenizer = {"train": {"vocab_size": VOCAB_SIZE}}
    return {"tokenizer": tokenizer, "block_size": BLOCK_SIZE, "sources": sources}


if __name__ == "__main__":
    main()
