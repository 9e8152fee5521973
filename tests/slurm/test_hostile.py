"""A job of hostile values on a real Slurm: each arrives as it was written, nothing else runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from clusterlm.spec.job import Job
from clusterlm.spec.variables import holds_secret
from tests.hostile.payloads import PAYLOADS, PWNED
from tests.slurm.conftest import SCRIPTS, User


def accepts(**fields: object) -> bool:
    try:
        Job.model_validate({"name": "x", **fields})
    except ValidationError:
        return False
    return True


def test_every_word_that_a_job_may_hold_arrives(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_ = user.home / "bin"
    bin_.mkdir()
    (bin_ / PWNED).write_text(f'#!/bin/sh\necho "$0 $*" >> {user.home}/trapped\n')
    (bin_ / PWNED).chmod(0o755)
    path = user.env["PATH"]
    monkeypatch.setenv("PATH", f"{bin_}:{path}")
    # a command line of Linux holds no word of more than 128 KiB
    short = [p for p in PAYLOADS if len(p) < 10_000]
    words = [p for p in short if accepts(train={"command": ["x.py", p]})]
    values = [p for p in short if accepts(env={"X": p}) and not holds_secret("X", p)]
    assert len(words) > 80
    assert len(values) > 60
    env = {f"P{number}": value for number, value in enumerate(values)}
    job = {
        "name": "x..y-_.z",
        "cluster": "slurm",
        "resources": {"nodes": 1, "time": "10m", "extra": ["--comment=%j%u,x+y@z"]},
        "env": env,
        "train": {"command": [str(SCRIPTS / "words.py"), *words]},
    }
    job_id = user.submits(job)["job_ids"]["train"]
    shown = user.bed.run(["scontrol", "show", "job", "-o", job_id]).stdout
    end = user.wait_for_end("x..y-_.z", timeout=120)
    assert end["state"] == "DONE", user.types("why", "x..y-_.z").stdout
    assert f"JobName={job['name']}.train " in shown
    seen = json.loads((user.run("x..y-_.z").root / "seen-0.json").read_text())
    assert seen["argv"] == words
    assert {name: seen["env"].get(name) for name in env} == env
    assert not (user.home / "trapped").exists()
    assert not Path("/tmp/pwned-file").exists()
    for option in ("--wra=pwned", "--out=/tmp/x", "--expor=ALL", "--uid=0", "--export-file=/x"):
        bad = {**job, "name": "bad", "resources": {"extra": [option]}}
        done = user.types("submit", user.writes(bad))
        assert done.returncode == 2
        assert "resources.extra[0]" in done.stderr
