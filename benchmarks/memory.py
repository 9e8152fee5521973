"""What the plan predicts against what torch's CPU allocator held at most, in real trainings.

Each training runs under torchrun as on a node, with a few steps. The profiler reports every
allocation and every free of torch's CPU allocator; their highest sum is the peak. What the whole
process grew by is shown beside it.

    python -m benchmarks.memory
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.folder import ROOT
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
ZERO2 = {"strategy": "deepspeed", "deepspeed": {"stage": 2}, "micro_batch_size": 2}
ZERO3 = ZERO2 | {"deepspeed": {"stage": 3}}
# size, what is trained and how, ranks
CASES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("8M", {}, 1),
    ("44M", {}, 1),
    ("60M", {}, 1),
    ("44M", {"micro_batch_size": 2}, 2),
    ("44M", {"precision": "bf16"}, 1),
    ("44M", {"activation_checkpointing": True}, 1),
    ("44M", ADAPTER, 1),
    ("44M", ADAPTER | {"precision": "bf16"}, 1),
    ("44M", ZERO2, 2),
    ("44M", ZERO2 | {"precision": "bf16"}, 2),
    ("44M", ZERO3, 2),
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
    if train.get("mode") == "adapter":
        model["adapter"] = {"r": 16}
    standard = {"precision": "fp32", "max_steps": 2, "logging_steps": 1, "micro_batch_size": 4}
    resources = {"processes_per_node": ranks}
    values = {"name": "t", "resources": resources, "model": model, "data": _data()}
    return Job.model_validate(values | {"train": standard | train})


def predict(job: Job) -> float:
    """Bytes of a rank by the plan."""
    assert job.model is not None
    assert job.model.from_scratch is not None
    asked = job.model.from_scratch
    shape = shape_of(scratch_config(asked.class_, asked.config, vocab_size=VOCAB_SIZE) or {})
    assert shape is not None
    return memory_per_rank(setup_of(job, shape, block_size=BLOCK_SIZE)).peak


def measure(folder: Path, cache: Path, job: Job) -> dict[str, int]:
    """Bytes at the peak of rank 0: of torch's allocator, and of the whole process above its start.

    Args:
        folder: of the run, to be made.
        cache: prepared data.
        job: to be trained.
    """
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(job.model_dump_json(by_alias=True))
    (folder / "LEASE").write_text(json.dumps({"attempt": 1}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = job.resources.ranks_per_node
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--max-restarts=0"]
    launch += [f"--nproc-per-node={ranks}", f"--master-port={port}", "-m", "benchmarks.memory"]
    done = subprocess.run(
        [*launch, str(folder)],
        env=_environment(folder, cache),
        capture_output=True,
        text=True,
        timeout=400,
    )
    if done.returncode:
        raise AssertionError(done.stdout[-3000:] + done.stderr[-3000:])
    measured: dict[str, int] = json.loads((folder / "memory0.json").read_text())
    return measured


def train_and_watch(run_dir: Path) -> None:
    """As one rank: train, and leave the peak beside the run."""
    import torch
    import transformers.trainer  # noqa: F401 - so that importing it is not measured

    from clusterlm.train.loop import run_training

    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        code = run_training(run_dir)
    assert code == 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    recorder: Any = profile.profiler
    found = {"allocator": _peak(recorder.kineto_results.events()), "process": grown * 1024}
    (run_dir / f"memory{os.environ['RANK']}.json").write_text(json.dumps(found))


def main() -> None:
    """Print the table."""
    page = Page()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = prepare(Path(folder) / "cache")
        for number, (size, train, ranks) in enumerate(CASES):
            job = job_of(size, train, ranks)
            found, expected = measure(Path(folder) / str(number), cache, job), predict(job)
            off = expected / found["allocator"] - 1
            words = ", ".join(f"{key} {value}" for key, value in train.items()) or "full, fp32, ddp"
            cells = (found["allocator"], found["process"], expected)
            numbers = [f"{cell / MIB:,.0f}" for cell in cells]
            rows.append([f"{size} {words}", str(ranks), *numbers, f"{off:+.1%}"])
            print(*rows[-1], flush=True)
    head = ["training", "ranks", "allocator", "process", "plan", "off"]
    page.table("Peak memory of rank 0, MiB", head, rows)


def _data() -> dict[str, Any]:
    library = Path(sysconfig.get_path("stdlib"))
    sources = [{"kind": "text", "path": str(library / name)} for name in ("json", "asyncio")]
    tokenizer = {"train": {"vocab_size": VOCAB_SIZE}}
    return {"tokenizer": tokenizer, "block_size": BLOCK_SIZE, "sources": sources}


def _environment(folder: Path, cache: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        # large blocks go back to the system when they are freed, so the process tells something
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "131072",
        "CLUSTERLM_RUN_DIR": str(folder),
        "CLUSTERLM_ATTEMPT": "1",
        "CLUSTERLM_STOP_FILE": str(folder / "stop.json"),
        "CLUSTERLM_PROGRESS_FILE": str(folder / "progress.json"),
        "CLUSTERLM_CACHE": str(cache),
    }


def _peak(events: Any) -> int:
    """Highest sum of allocations (positive) and frees (negative), in the order of time."""
    held = peak = 0
    memory = [event for event in events if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train_and_watch(Path(sys.argv[1]))
    else:
        main()
