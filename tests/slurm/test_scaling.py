"""`clusterlm scaling` on a real Slurm: sizes sent together, one preparation, Ctrl-C."""

from __future__ import annotations

import json
import signal

from clusterlm.paths import RunPaths
from tests.slurm.conftest import User, wait_until
from tests.slurm.test_chain import tiny_job


def test_one_and_two_nodes_are_compared_and_nothing_is_saved(user: User) -> None:
    job = tiny_job(user, "net", train={"strategy": "ddp", "deepspeed": None, "save_steps": 2})
    picture = user.home / "net.svg"
    words = ("--nodes", "1,2", "--steps", "4", "--warmup", "1", "--json", "--svg", str(picture))
    done = user.types("scaling", user.writes(job), *words, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(size["nodes"], size["ranks"]) for size in told["sizes"]] == [(1, 1), (2, 2)]
    assert told["sizes"][0]["efficiency"] == 1.0
    assert told["sizes"][1]["tokens_per_s_per_rank"] > 0
    assert "2 nodes run at" in told["verdict"][0]
    assert picture.read_text().startswith("<svg")
    runs = [user.run(f"net-scale-{n}n1") for n in (1, 2)]
    # the second waited for the data of the first
    assert [len(user.events(run.name, "shares")) for run in runs] == [0, 1]
    for run in runs:
        assert not run.model.exists()
        assert not any(run.checkpoints.glob("*"))


def test_ctrl_c_takes_away_what_was_sent(user: User) -> None:
    job = tiny_job(user, "long", train={"strategy": "ddp", "deepspeed": None})
    process = user.starts("scaling", user.writes(job), "--nodes", "1,2", "--steps", "100000")
    last: RunPaths = user.run("long-scale-2n1")
    wait_until(lambda: bool(user.events(last.name, "submitted")), 60, "both runs", user)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    for name in ("long-scale-1n1", "long-scale-2n1"):
        assert user.events(name, "ended")[0]["state"] == "CANCELLED"
    wait_until(
        lambda: not user.bed.run(["squeue", "-h"]).stdout.strip(), 30, "an empty queue", user
    )
