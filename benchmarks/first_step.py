"""From submit to the first training step on two nodes of the test bed, and where the time goes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.on_bed import Place, bed
from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import RunPaths

ROUNDS = 3
JOB: dict[str, Any] = {
    "name": "bench",
    "cluster": "slurm",
    "resources": {"nodes": 2, "time": "10m"},
    "data": {
        "tokenizer": {"train": {"vocab_size": 300}},
        "block_size": 32,
    },
    "model": {
        "from_scratch": {
            "class": "LlamaForCausalLM",
            "config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "max_position_embeddings": 32},
        }
    },
    "train": {"strategy": "deepspeed", "deepspeed": {"stage": 2}, "max_steps": 3,
              "logging_steps": 1, "micro_batch_size": 2},
}  # fmt: skip


def _run(place: Place, name: str) -> RunPaths:
    """Submit, and wait for the end."""
    corpus = place.folder / "corpus.jsonl"
    corpus.write_text(
        "".join(json.dumps({"text": f"some words {i} " * 40}) + "\n" for i in range(200))
    )
    JOB["data"]["sources"] = [{"kind": "text", "path": str(corpus)}]
    file = place.folder / "job.yaml"
    file.write_text(yaml.safe_dump(JOB))
    clusterlm = str(Path(sys.executable).with_name("clusterlm"))
    argv = [clusterlm, "submit", str(file), "--name", name, "--watch"]
    subprocess.run(argv, env=place.env, check=True, capture_output=True)
    return RunPaths(place.folder / "runs" / name)


def _legs(run: RunPaths) -> dict[str, float]:
    """Seconds from one mark to the next, as the records have them."""
    times: dict[str, float] = {}
    for event in read_jsonl(run.events)[0]:
        if event.get("phase") == "train":
            times.setdefault(event["event"], event["time"])
    attempt = run.attempt("train", 1)
    rank = read_json(attempt.heartbeats / "rank0.json") or {}
    first = read_jsonl(run.metrics)[0][0]["time"]
    return {
        "sbatch -> supervisor runs": times["phase_started"] - times["submitted"],
        "supervisor -> srun": times["attempt_started"] - times["phase_started"],
        "srun -> rank started (srun, agent, torchrun)": rank["time"] - times["attempt_started"],
        "rank -> first step": first - rank["time"],
        "srun -> first step": first - times["attempt_started"],
    }


def main() -> None:
    """Print the table, and the trainer's own account of its part."""
    with bed() as place:
        runs = []
        for number in range(ROUNDS):
            # the first prepares the data and may compile DeepSpeed's part, the others find both
            runs.append(_legs(run := _run(place, f"bench-{number}")))
            text = run.attempt("train", 1).rank_log(0).read_text()
            time.sleep(1)
    print("\nUp to the first step, 2 nodes, DeepSpeed stage 2, CPU (seconds, one column a run)")
    for leg in runs[0]:
        print(f"  {leg:<46}" + "".join(f"{run[leg]:>8.1f}" for run in runs))
    if line := re.search(r"first step after.*", text):
        print(f"  the trainer's own account of the last: {line[0]}")


if __name__ == "__main__":
    main()
