"""From one YAML to a trained model on a real Slurm: the chain, the cache, real DeepSpeed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterlm.paths import CachePaths
from tests.slurm.conftest import User, wait_until

TEXT = "the quick brown fox jumps over the lazy dog and runs into the night. " * 4


def tiny_job(user: User, name: str, **changes: Any) -> dict[str, Any]:
    corpus = user.home / "corpus.jsonl"
    if not corpus.exists():
        lines = [json.dumps({"text": f"{TEXT} number {i}"}) for i in range(400)]
        corpus.write_text("\n".join(lines) + "\n")
    return {
        "name": name,
        "cluster": "slurm",
        "resources": {"nodes": 2, "time": "10m", "preprocess": {"cpus": 2}},
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_size": 32,
            "sources": [{"kind": "text", "path": str(corpus)}],
            **changes.pop("data", {}),
        },
        "model": {
            "from_scratch": {
                "class": "LlamaForCausalLM",
                "config": {
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "max_position_embeddings": 32,
                },
            }
        },
        "train": {
            "strategy": "deepspeed",
            "deepspeed": {"stage": 2},
            "max_steps": 6,
            "micro_batch_size": 2,
            "logging_steps": 1,
            "save_steps": 3,
            "learning_rate": 1e-3,
            **changes.pop("train", {}),
        },
        **changes,
    }


def test_one_yaml_becomes_a_model_and_the_second_finds_the_cache(user: User) -> None:
    first = user.submits(tiny_job(user, "first"))
    assert set(first["job_ids"]) == {"preprocess", "train"}
    assert not first["cache_hit"]
    end = user.wait_for_end("first", timeout=180)
    assert end["state"] == "DONE", user.types("why", "first").stdout
    # the data phase ran once, on one node; the training on two, each with one torchrun
    started = user.events("first", "attempt_started")
    assert [(e["phase"], len(e["nodes"])) for e in started] == [("preprocess", 1), ("train", 2)]
    run = user.run("first")
    assert (run.model / "model.safetensors").stat().st_size > 0
    losses = [json.loads(line)["loss"] for line in run.metrics.read_text().splitlines()]
    assert losses[-1] < losses[0]
    logs = user.types("logs", "first", "--tail", "500").stdout
    assert "rank 0" in logs
    assert "rank 1" in logs

    again = user.submits(tiny_job(user, "again", train={"deepspeed": {"stage": 0}}))
    assert again["cache_hit"]
    assert set(again["job_ids"]) == {"train"}
    assert user.wait_for_end("again", timeout=180)["state"] == "DONE"

    for stage in (1, 3):
        name = f"stage{stage}"
        user.submits(tiny_job(user, name, train={"deepspeed": {"stage": stage}}))
        end = user.wait_for_end(name, timeout=180)
        assert end["state"] == "DONE", user.types("why", name).stdout

    other = user.submits(tiny_job(user, "other", data={"block_size": 16}))
    assert not other["cache_hit"]
    assert other["fingerprint"] != first["fingerprint"]
    assert user.types("cancel", "other", "--now").returncode == 0


def test_a_cancelled_deepspeed_run_saves_and_goes_on_where_it_was(user: User) -> None:
    job = tiny_job(user, "goes-on", train={"max_steps": 2000, "save_steps": 1000})
    user.submits(job)
    wait_until(lambda: (user.status("goes-on")["step"] or 0) >= 5, 180, "step 5", user)
    done = user.types("cancel", "goes-on")
    assert done.returncode == 0
    assert "saved" in done.stdout
    assert user.status("goes-on")["state"] == "CANCELLED"
    saved = user.events("goes-on", "attempt_ended")[-1]["newest_step"]
    assert saved
    # saying it twice changes nothing
    assert "already" in user.types("cancel", "goes-on").stdout
    done = user.types("resume", "goes-on")
    assert done.returncode == 0, done.stderr
    second = user.wait_for_event("goes-on", "attempt_started", count=3, timeout=120)
    assert second["resume_step"] == saved
    wait_until(lambda: (user.status("goes-on")["step"] or 0) > saved, 120, "a new step", user)
    user.types("cancel", "goes-on", "--now")
    steps = [json.loads(r)["step"] for r in user.run("goes-on").metrics.read_text().splitlines()]
    assert steps == sorted(set(steps)), "a step was logged twice"


def test_two_submits_at_once_share_one_data_job(user: User) -> None:
    answers: dict[str, dict[str, Any]] = {}
    jobs = [tiny_job(user, name) for name in ("one", "two")]
    # nothing runs yet: the data job must still be in flight when the second submit looks
    for node in ("node1", "node2", "node3", "node4"):
        user.bed.drain(node)
    threads = [
        threading.Thread(target=lambda j=j: answers.update({j["name"]: user.submits(j)}))
        for j in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    owners = [a for a in answers.values() if "preprocess" in a["job_ids"]]
    sharers = [a for a in answers.values() if a["shares_with"]]
    assert len(owners) == len(sharers) == 1
    assert sharers[0]["shares_with"] == owners[0]["run"]
    # the owner's end must not take the data job away from the other
    assert user.types("cancel", owners[0]["run"]).returncode == 0
    queue = user.bed.run(["squeue", "-h", "-o", "%i"]).stdout.split()
    assert owners[0]["job_ids"]["preprocess"] in queue
    assert owners[0]["job_ids"]["train"] not in queue
    for node in ("node1", "node2", "node3", "node4"):
        user.bed.resume(node)
    assert user.wait_for_end(sharers[0]["run"], timeout=180)["state"] == "DONE"


def test_a_failed_data_phase_ends_the_chain_and_says_why(user: User) -> None:
    bad = user.home / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": broken\n')
    job = tiny_job(user, "bad-data")
    job["data"]["sources"] = [{"kind": "text", "path": str(bad)}]
    user.submits(job)
    end = user.wait_for_end("bad-data", timeout=60)
    assert (end["phase"], end["state"], end["cause"]) == ("preprocess", "STOPPED", "DATA")
    why = user.types("why", "bad-data").stdout
    assert "bad.jsonl:2" in why
    wait_until(lambda: not user.bed.run(["squeue", "-h"]).stdout.strip(), 30, "no job left", user)
    status = user.status("bad-data")
    assert (status["state"], status["phase"]) == ("STOPPED", "preprocess")


def test_a_training_without_its_data_stops_before_anything_starts(user: User) -> None:
    """Older Slurm lets `afterok` on a purged, failed job pass: the supervisor looks itself."""
    submitted = user.submits(tiny_job(user, "gate"))
    user.wait_for_end("gate", timeout=180)
    cache = CachePaths(Path(user.env["CLUSTERLM_CACHE_DIR"]) / submitted["fingerprint"])
    again = user.submits(tiny_job(user, "late"))
    assert again["cache_hit"]
    cache.ready.unlink()
    end = user.wait_for_end("late", timeout=60)
    assert end["cause"] in ("DATA_NOT_READY", "DONE")
    if end["cause"] == "DONE":
        pytest.fail("the training had opened the data before READY went away; slow down the test")
    assert user.events("late", "attempt_started") == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": {"nodes": 9}}, ["9 nodes", "4"]),
        ({"resources": {"partition": "gpuu"}}, ["gpuu", "batch", "short"]),
        ({"resources": {"partition": "short", "time": "2h"}}, ["short", "0:10:00"]),
        ({"name": "x\ntouch PWNED #"}, ["name"]),
    ],
)
def test_impossible_wishes_are_refused_before_the_queue(
    user: User, changes: dict[str, Any], words: list[str]
) -> None:
    job = {**tiny_job(user, "refused"), **changes}
    file = user.home / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    for command in ("check", "submit"):
        done = user.types(command, str(file))
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        for word in words:
            assert word in done.stderr
    assert not list(user.home.glob("**/PWNED"))
    assert not (user.home / "runs").exists() or not list((user.home / "runs").iterdir())
    assert not user.bed.run(["squeue", "-h"]).stdout.strip()


def test_sbatch_refusing_leaves_nothing(user: User) -> None:
    job = tiny_job(user, "refused")
    job["resources"]["account"] = "nobody"
    job["resources"]["constraint"] = "nofeature"
    file = user.home / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    done = user.types("submit", str(file))
    assert done.returncode == 2
    assert "sbatch refused" in done.stderr
    assert "Invalid" in done.stderr
    assert not list((user.home / "runs").iterdir())
    wait_until(lambda: not user.bed.run(["squeue", "-h"]).stdout.strip(), 20, "no job left", user)
