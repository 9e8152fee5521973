from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clusterlm.paths import RunPaths
from clusterlm.supervise.history import _STEPS, History, fold, read_history, record

FIELDS = ("phase", "job_id", "attempt", "cause", "state", "run", "time", "reason", "nodes")
events = st.lists(
    st.fixed_dictionaries(
        {"event": st.sampled_from([*_STEPS, "of a newer version"])},
        optional={name: st.sampled_from(["train", "preprocess", 1, None]) for name in FIELDS},
    )
)


def folded(*events: tuple[str, dict[str, Any]]) -> History:
    return fold("run", [{"event": e, "time": float(i), **f} for i, (e, f) in enumerate(events)])


def job(phase: str, job_id: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "submitted", {"phase": phase, "job_id": job_id, **fields}


def started(phase: str, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return "attempt_started", {"phase": phase, "attempt": attempt, "nodes": ["n1"]}


def ended(phase: str, attempt: int = 1, cause: str = "HANG") -> tuple[str, dict[str, Any]]:
    return "attempt_ended", {"phase": phase, "attempt": attempt, "cause": cause}


@given(events)
def test_any_events_in_any_order_make_a_history(found: list[dict[str, Any]]) -> None:
    assert fold("run", found).run == "run"


def test_events_are_written_as_they_are_read(tmp_path: Path) -> None:
    run = RunPaths(tmp_path)
    record(run, "created", run="x", cluster="slurm", version="1")
    record(run, "submitted", phase="train", job_id="11", cluster="slurm")
    with run.events.open("a") as handle:
        handle.write('{"event": "ended", "sta')
    history = read_history(run)
    assert history.cluster == "slurm"
    assert history.jobs["train"].job_id == "11"
    assert history.end is None
    assert all(json.loads(line)["time"] for line in run.events.read_text().splitlines()[:2])


def test_an_attempt_is_open_until_its_own_end() -> None:
    begun = (job("train", "11"), ("phase_started", {"phase": "train"}), started("train"))
    assert folded(*begun).attempt_open
    assert not folded(*begun, ended("train")).attempt_open
    # the data phase writes its end when the training has begun on READY
    late = folded(started("preprocess"), started("train"), ended("preprocess", cause="DONE"))
    assert late.attempt_open
    assert late.phase == "train"


def test_the_first_failure_of_an_attempt_stays_and_a_new_attempt_is_clean() -> None:
    lost = ("node_lost", {"phase": "train", "attempt": 1, "host": "n2"})
    rank = ("rank_failed", {"phase": "train", "attempt": 1, "rank": 0})
    history = folded(started("train"), lost, rank)
    assert history.failure is not None
    assert history.failure["event"] == "node_lost"
    assert folded(started("train"), lost, ended("train"), started("train", 2)).failure is None


def test_a_resume_forgets_the_end_and_counts_attempts_anew() -> None:
    before = (job("train", "11"), started("train"), ended("train"), ("ended", {"state": "STOPPED"}))
    assert folded(*before).end is not None
    history = folded(*before, ("resumed", {}), job("train", "12"))
    assert history.end is None
    assert history.attempts_of("train") == []
    assert history.jobs["train"].job_id == "12"
    assert [past.job_id for past in history.past_jobs] == ["11"]


def test_the_first_end_is_the_truth() -> None:
    history = folded(
        ("ended", {"phase": "preprocess", "state": "STOPPED", "cause": "DATA"}),
        ("ended", {"phase": "train", "state": "STOPPED", "cause": "DATA_NOT_READY"}),
    )
    assert history.end is not None
    assert history.end["cause"] == "DATA"


def test_a_training_that_waits_for_its_data_has_not_begun() -> None:
    both = (job("preprocess", "10"), job("train", "11"))
    prepares = (("phase_started", {"phase": "preprocess"}), started("preprocess"))
    waits = ("phase_started", {"phase": "train"})
    assert folded(*both, *prepares, waits).phase == "preprocess"
    assert folded(*both, *prepares, waits).attempt_open
    assert folded(*both, *prepares, waits, started("train")).phase == "train"
    assert folded(*both, *prepares, ("phase_done", {"phase": "preprocess"}), waits).phase == "train"


def test_a_requeue_lasts_until_the_phase_begins_again() -> None:
    requeued = (started("train"), ended("train"), ("requeued", {"phase": "train"}))
    assert folded(*requeued).requeued
    assert not folded(*requeued, ("phase_started", {"phase": "train"})).requeued


def test_a_shared_job_is_another_runs_and_was_submitted_before() -> None:
    shares = {"phase": "preprocess", "job_id": "5", "run": "other"}
    history = folded(("shares", shares))
    assert (history.jobs["preprocess"].owner, history.jobs["preprocess"].submitted) == ("other", 0)
    assert folded(("shares", {**shares, "submitted": 7.5})).jobs["preprocess"].submitted == 7.5
