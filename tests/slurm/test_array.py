"""`data: {tasks: 3}` on a real Slurm: an array that encodes, a job that merges, the training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.preprocess import preprocess
from clusterlm.node.files import read_jsonl
from clusterlm.paths import TaskPaths
from clusterlm.spec.job import Job
from tests.slurm.conftest import SCRIPTS, User, wait_until

TASKS = 3
NODES = ("node1", "node2", "node3", "node4")


def _corpora(user: User, count: int = 6) -> list[dict[str, Any]]:
    """Sources of about the same size, each a shard: two for every task."""
    sources = []
    for number in range(count):
        file = user.home / f"corpus{number}.jsonl"
        rows = [{"text": f"source {number} has a row {i} of its own"} for i in range(300)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources.append({"kind": "text", "path": str(file)})
    return sources


def _job(user: User, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": "slurm",
        # a whole node for each task
        "resources": {"nodes": 1, "time": "10m", "preprocess": {"cpus": 8}},
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_size": 32,
            "sources": _corpora(user),
            "tasks": TASKS,
        },
        "train": {"command": [str(SCRIPTS / "counting.py"), "2"]},
        "recovery": {"stop_grace": "30s", "heartbeat_timeout": "12s"},
    }


def _task(user: User, name: str, array: str, number: int) -> TaskPaths:
    return user.run(name).task(array, number)


def _events(task: TaskPaths, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_jsonl(task.events)[0] if e["event"] == kind]


def _files(cache: Path) -> dict[str, bytes]:
    """What lies in a cache, but for notes that only save time."""
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file()
        and not path.relative_to(cache).parts[0].startswith(".")
        and not path.name.endswith((".claim.json", ".lock"))
    }


def test_an_array_gives_what_one_node_gives_and_a_killed_task_is_tried_again_alone(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = _job(user, "array")
    sent = user.submits(job)
    assert set(sent["job_ids"]) == {"encode", "preprocess", "train"}
    array = sent["job_ids"]["encode"]

    def is_killed() -> bool:
        # the rank itself, not one of its parents, whose command lines end alike
        rank = rf"^\S*python\S* -m clusterlm preprocess \S+ --task 1/{TASKS}$"
        return any(user.bed.kill_node_processes(node, rank) for node in NODES)

    wait_until(is_killed, 60, "the rank of task 1", user)
    # one that Slurm takes the node from is started again alone too
    second = _task(user, "array", array, 2)
    wait_until(lambda: bool(_events(second, "attempt_started")), 30, "task 2", user)
    user.bed.run(["scontrol", "requeue", f"{array}_2"], check=True)
    status = user.status("array")
    assert status["phase"] == "encode"
    assert f"of {TASKS} tasks done" in status["evidence"]
    user.bed.release_requeued(f"{array}_2")

    end = user.wait_for_end("array", timeout=120)
    assert end["state"] == "DONE", user.types("why", "array").stdout
    numbers = [_task(user, "array", array, k).attempt_numbers("encode") for k in range(TASKS)]
    assert numbers[:2] == [[1], [1, 2]]
    (failed,) = [e for e in user.events("array", "attempt_ended") if e["phase"] == "encode"]
    assert (failed["task"], failed["cause"], failed["signal"]) == (1, "RANK_KILLED", "SIGKILL")
    assert _events(second, "phase_started")[-1]["restart"] == 1
    # the job behind the array had nothing left to encode
    log = user.run("array").attempt("preprocess", 1).rank_log(0).read_text()
    assert "tokenized" not in log

    own = user.home / "one-node"
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(own))
    data = Job.model_validate(job).data
    assert data is not None
    preprocess(data, own / sent["fingerprint"], workers=2, report=lambda _: None)
    assert _files(Path(user.env["CLUSTERLM_CACHE_DIR"])) == _files(own)


def test_a_bad_record_ends_the_array_at_once_and_what_was_done_is_kept(user: User) -> None:
    job = _job(user, "bad")
    bad = Path(job["data"]["sources"][4]["path"])
    good = bad.read_text()
    bad.write_text(good + '{"text": broken\n')
    array = user.submits(job)["job_ids"]["encode"]
    end = user.wait_for_end("bad", timeout=60)
    assert (end["phase"], end["state"], end["cause"]) == ("encode", "STOPPED", "DATA")
    began = time.monotonic()
    wait_until(lambda: not user.bed.run(["squeue", "-h"]).stdout.strip(), 30, "no job left", user)
    assert time.monotonic() - began < 60
    assert len(user.events("bad", "ended")) == 1
    why = user.types("why", "bad").stdout
    node = _events(_task(user, "bad", array, end["task"]), "attempt_started")[0]["nodes"][0]
    for words in ("corpus4.jsonl:301", f"task {end['task']}", node):
        assert words in why
    logs = user.types("logs", "bad", "--phase", "encode", "--task", str(end["task"])).stdout
    assert "corpus4.jsonl:301" in logs

    shards = Path(user.env["CLUSTERLM_CACHE_DIR"]) / "shards"
    before = {p: p.stat().st_mtime_ns for p in shards.glob("[!.]*/tokens.bin")}
    bad.write_text(good)
    done = user.types("resume", "bad", "--job", user.writes(job))
    assert done.returncode == 0, done.stderr
    assert user.wait_for_event("bad", "phase_done", timeout=120)["phase"] == "preprocess"
    user.types("cancel", "bad", "--now")
    assert {p: p.stat().st_mtime_ns for p in before} == before
