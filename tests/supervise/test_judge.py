from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.node.records import ExitRecord
from clusterlm.supervise.causes import Cause, Restart, State, cause_of_error
from clusterlm.supervise.history import fold
from clusterlm.supervise.judge import decide, judge_attempt
from clusterlm.supervise.judge_run import SILENT_SUPERVISOR_S, judge_run
from clusterlm.supervise.pending import REASONS
from clusterlm.supervise.slurm_states import LIFE_OF_STATE, JobRow, Life, first_word
from clusterlm.supervise.views import (
    Action,
    AttemptView,
    Finding,
    Left,
    PastAttempt,
    RunView,
)

NOW = 1000.0


# -- judge_run: what a reader shows --------------------------------------------------------------


def view(*events: tuple[str, dict[str, Any]], **fields: Any) -> RunView:
    job: dict[str, Any] = {"phase": "train", "job_id": "11", "cluster": "slurm"}
    raw = [("created", {}), ("submitted", job), *events]
    history = fold("run", [{"event": e, "time": NOW - 100, **f} for e, f in raw])
    return RunView(history=history, **{"now": NOW, **fields})


BEGUN = (
    ("phase_started", {"phase": "train", "job_id": "11"}),
    ("attempt_started", {"phase": "train", "attempt": 1, "nodes": ["n1", "n2"]}),
)
FAILED = ("rank_failed", {"phase": "train", "attempt": 1, "rank": 1, "host": "n2", "code": 3})
ENDED = ("attempt_ended", {"phase": "train", "attempt": 1, "cause": "HANG", "evidence": "stuck"})
PREPARES = ("phase_started", {"phase": "preprocess", "job_id": "10"})
ALIVE = {"supervisor_s_ago": 1.0}
SILENT = {"supervisor_s_ago": SILENT_SUPERVISOR_S + 1}


def row(state: str, **fields: Any) -> JobRow:
    return JobRow("11", state, **fields)


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (view(row=row("PENDING")), State.PENDING),
        (view(*BEGUN, ENDED, ("requeued", {}), **ALIVE, row=row("PENDING")), State.PENDING),
        (view(PREPARES, **ALIVE), State.PREPROCESSING),
        (view(row=row("RUNNING"), row_phase="preprocess"), State.PREPROCESSING),
        (view(*BEGUN, **ALIVE), State.STARTING),
        (view(row=row("RUNNING")), State.STARTING),
        (view(*BEGUN, **ALIVE, progress_step=1), State.TRAINING),
        (view(*BEGUN, **ALIVE, silent={"n2": 30.0}), State.STALLED),
        (view(*BEGUN, **SILENT, row=row("RUNNING")), State.STALLED),
        (view(*BEGUN, FAILED, **ALIVE), State.RETRYING),
        (view(*BEGUN, ENDED, **ALIVE), State.RETRYING),
        (view(*BEGUN, ("stop_requested", {"reason": "time_limit"}), **ALIVE), State.STOPPING),
        (view(*BEGUN, ("cancel_requested", {}), **ALIVE), State.STOPPING),
        (view(("cancel_requested", {}), row_is_blind=True), State.STOPPING),
        (view(("cancel_requested", {})), State.CANCELLED),
        (view(row=row("CANCELLED", raw_state="CANCELLED by 0")), State.CANCELLED),
        (view(("ended", {"state": "DONE", "cause": "DONE"})), State.DONE),
        (view(row=row("TIMEOUT")), State.STOPPED),
        (view(), State.STOPPED),
        (view(row_is_blind=True), State.UNKNOWN),
        (view(row=row("HIBERNATING")), State.UNKNOWN),
    ],
)
def test_a_view_has_its_state(seen: RunView, state: State) -> None:
    assert judge_run(seen).state is state


def test_every_state_is_reached_by_the_table_above() -> None:
    table = test_a_view_has_its_state.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {state for _, state in table} == set(State)


@given(st.booleans(), st.sampled_from([None, 60.0, 1e6]), st.integers(0, 3))
def test_blind_is_unknown_and_never_an_end(
    cancelled: bool, supervisor_s_ago: float | None, num_events: int
) -> None:
    events = (*BEGUN, ENDED)[:num_events]
    blind = view(*events, supervisor_s_ago=supervisor_s_ago, row_is_blind=True)
    verdict = judge_run(blind)
    assert verdict.state is State.UNKNOWN
    assert verdict.blind_since_s is not None
    assert not verdict.state.is_final


@pytest.mark.parametrize("state", sorted(LIFE_OF_STATE))
def test_every_slurm_state_has_a_meaning(state: str) -> None:
    verdict = judge_run(view(row=row(state, exit_code="1:0")))
    ended = LIFE_OF_STATE[state] is Life.ENDED
    assert verdict.state is not State.UNKNOWN
    assert verdict.state.is_final is ended
    assert not ended or (verdict.cause is not None and state in verdict.evidence)


@pytest.mark.parametrize(
    ("raw", "state"),
    [("CANCELLED by 0", "CANCELLED"), ("CANCELLED+", "CANCELLED"), (" NODE_FAIL", "NODE_FAIL")]
    + [("", "UNKNOWN"), ("(null)", "UNKNOWN"), ("running", "RUNNING")],
)
def test_the_first_word_of_a_state_counts(raw: str, state: str) -> None:
    assert first_word(raw) == state


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_reasons_to_wait_are_said_in_words(reason: str) -> None:
    assert row("PENDING", reason=f"{reason}, node3").reason_words == REASONS[reason]
    assert row("PENDING", reason="Sunspots").reason_words == "Sunspots"
    assert row("PENDING", reason="(null)").reason_words == ""


def test_a_young_run_without_a_job_is_being_submitted_and_an_old_one_never_was() -> None:
    created = fold("run", [{"event": "created", "time": NOW - 5}])
    assert judge_run(RunView(created, now=NOW)).state is State.PENDING
    verdict = judge_run(RunView(created, now=NOW + 3600))
    assert (verdict.state, verdict.cause) == (State.STOPPED, Cause.VANISHED)


def test_a_failure_that_is_only_seen_has_a_cause_already() -> None:
    for error, cause in (("CUDA out of memory", Cause.GPU_MEMORY), (None, Cause.RANK_FAILED)):
        event = (FAILED[0], {**FAILED[1], "error": error})
        assert judge_run(view(*BEGUN, event, **ALIVE)).cause is cause
    killed = (FAILED[0], {**FAILED[1], "code": None, "signal": "SIGKILL"})
    assert judge_run(view(*BEGUN, killed, **ALIVE)).cause is Cause.RANK_KILLED


def test_a_retry_is_never_silent() -> None:
    again = ("attempt_started", {"phase": "train", "attempt": 2, "nodes": ["n1"]})
    verdict = judge_run(view(*BEGUN, ENDED, again, **ALIVE, progress_step=3))
    assert (verdict.state, verdict.evidence) == (State.TRAINING, "attempt 1: stuck")


# -- causes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_words_and_advice(cause: Cause) -> None:
    assert cause.words
    advice = cause.advice(run="my-run", rank=3, host="node7")
    assert bool(advice) is (cause is not Cause.DONE)
    assert "{" not in advice


@given(st.text())
def test_any_error_has_a_cause(error: str) -> None:
    assert isinstance(cause_of_error(error), Cause)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", Cause.GPU_MEMORY),
        ("ModuleNotFoundError: No module named 'x'", Cause.USER_ERROR),
        ("clusterlm.errors.CacheNotReady: no READY", Cause.DATA_NOT_READY),
        ("clusterlm.errors.DataError: a.jsonl line 3", Cause.DATA),
        ("OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
        ("RuntimeError: PytorchStreamWriter failed writing file data/3", Cause.DISK_FULL),
        ("RuntimeError: [enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0",)
        + (Cause.DISK_FULL,),
        ("torch.distributed.DistNetworkError: The server socket", Cause.RENDEZVOUS),
        ("RuntimeError: NCCL error: unhandled system error", Cause.NETWORK),
        ("RuntimeError: loss is nan at step 7", Cause.NOT_FINITE),
        ("something else", Cause.RANK_FAILED),
    ],
)
def test_an_error_line_speaks_of_a_cause(error: str, cause: Cause) -> None:
    assert cause_of_error(error) is cause


# -- judge_attempt: has it ended? ----------------------------------------------------------------


def exit_of(rank: int = 0, **fields: Any) -> ExitRecord:
    base = ExitRecord(rank, 0, 0, "n1", 1, 0.0, NOW, code=0, signal=None)
    return replace(base, **fields)


def cause_of(**fields: Any) -> Cause | None:
    finding = judge_attempt(AttemptView(**fields))
    return finding.cause if finding else None


LOUD = exit_of(0, code=1, time=NOW + 1, error="RuntimeError: Connection closed by peer")
QUIET = exit_of(1, code=3, time=NOW, error="KeyError: 'x'")
KILLED = exit_of(0, code=None, signal="SIGKILL")


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, None),
        ({"exits": [LOUD, QUIET], "expected_ranks": 2}, Cause.USER_ERROR),
        ({"exits": [KILLED]}, Cause.RANK_KILLED),
        (
            {"exits": [KILLED], "step_tail": "slurmstepd: error: Detected 1 oom_kill"},
            Cause.HOST_MEMORY,
        ),
        ({"exits": [exit_of()], "step_code": 0}, Cause.DONE),
        ({"exits": [exit_of(code=85)], "step_code": 0}, Cause.PREEMPTED),
        ({"exits": [exit_of(code=85)], "step_code": 0, "stop_reason": "cancel"}, Cause.CANCELLED),
        ({"exits": [KILLED], "step_code": 137, "stop_reason": "time_limit"}, Cause.TIME_LIMIT),
        ({"step_code": 1, "step_tail": "srun: error: Invalid job credential"}, Cause.LAUNCH),
        ({"step_code": 0, "exits": [exit_of()], "expected_ranks": 2}, Cause.RANK_FAILED),
        ({"silent": {"n2": 31.0}}, Cause.NODE_LOST),
        ({"started_s_ago": 1801.0}, Cause.STARTUP),
        ({"started_s_ago": 1801.0, "ranks_seen": 1}, None),
        ({"step_s_ago": 601.0}, Cause.HANG),
        ({"step_s_ago": 601.0, "usual_step_s": 60.0}, None),
        ({"step_s_ago": 61.0, "hang_after_s": 60.0}, Cause.HANG),
        ({"step_s_ago": 9999.0, "stop_reason": "preempted"}, None),
    ],
)
def test_an_attempt_ends_by_its_first_truth(fields: dict[str, Any], cause: Cause | None) -> None:
    assert cause_of(**fields) is cause


def test_a_finding_quotes_rank_host_and_the_real_code() -> None:
    finding = judge_attempt(AttemptView(exits=[LOUD, QUIET], expected_ranks=2))
    assert finding is not None
    assert (finding.rank, finding.host, finding.code) == (1, "n1", 3)
    assert "rank 1 on n1 failed (exit 3): KeyError" in finding.evidence


# -- decide: what follows ------------------------------------------------------------------------

WHILE_PROGRESS = [c for c in Cause if c.restart is Restart.WHILE_PROGRESS]
ONCE = [c for c in Cause if c.restart is Restart.ONCE]
FREE = [c for c in Cause if c.restart is Restart.FREE]
steps = st.integers(0, 10_000)


def left(newest_step: int | None = None, **fields: Any) -> Left:
    base = {"healthy_nodes": 2, "wanted_nodes": 2, "least_nodes": 2, "may_requeue": True}
    return Left(**{**base, "newest_step": newest_step, **fields})


def past(cause: Cause, *newest: int | None) -> list[PastAttempt]:
    return [PastAttempt(cause, step) for step in newest]


def action(cause: Cause, before: list[PastAttempt], now: Left) -> Action | None:
    return decide(Finding(cause, "evidence"), before, now).action


@given(st.sampled_from(WHILE_PROGRESS), st.lists(steps, min_size=1, max_size=50, unique=True))
def test_retries_are_free_while_the_newest_checkpoint_advances(
    cause: Cause, newest: list[int]
) -> None:
    *before, now = sorted(newest)
    assert action(cause, past(cause, *before), left(now)) is Action.RETRY


@given(
    st.sampled_from(WHILE_PROGRESS),
    st.integers(1, 6),
    st.lists(steps, unique=True, max_size=5).map(sorted),
)
def test_it_stops_after_so_many_attempts_in_a_row_that_advance_nothing(
    cause: Cause, limit: int, advancing: list[int]
) -> None:
    best = advancing[-1] if advancing else None
    before = past(cause, *advancing)
    for barren in range(1, limit + 1):
        now = left(best, max_without_progress=limit)
        expected = Action.STOP if barren == limit else Action.RETRY
        verdict = decide(Finding(cause, "evidence"), before, now)
        assert verdict.action is expected
        is_repeated = expected is Action.STOP and limit > 1
        assert verdict.cause is (Cause.NO_PROGRESS if is_repeated else cause)
        before += past(cause, best)


@given(st.sampled_from(ONCE), st.lists(steps, max_size=5))
def test_an_error_that_a_restart_does_not_change_is_confirmed_once(
    cause: Cause, newest: list[int]
) -> None:
    before = past(Cause.HANG, *sorted(newest))
    advanced = left(20_000)
    assert action(cause, before, advanced) is Action.RETRY
    assert action(cause, [*before, PastAttempt(cause, 20_000)], left(30_000)) is Action.STOP


@given(st.sampled_from(FREE), st.integers(0, 30), st.sampled_from(WHILE_PROGRESS))
def test_a_stop_from_outside_costs_no_attempt(free: Cause, count: int, cause: Cause) -> None:
    before = past(free, *[50] * count)
    assert action(free, before, left(50)) is Action.REQUEUE
    assert action(free, before, left(50, may_requeue=False)) is Action.STOP
    # neither does it count when something fails later
    assert action(cause, [PastAttempt(cause, 50), *before], left(50)) is Action.RETRY


@pytest.mark.parametrize("cause", [c for c in Cause if c.restart is Restart.NEVER])
def test_what_nothing_can_mend_ends_at_once(cause: Cause) -> None:
    expected = Action.FINISH if cause is Cause.DONE else Action.STOP
    assert action(cause, [], left(10)) is expected


def test_too_few_nodes_go_back_to_the_queue_or_stop() -> None:
    assert action(Cause.NODE_LOST, [], left(healthy_nodes=1)) is Action.REQUEUE
    assert action(Cause.NODE_LOST, [], left(healthy_nodes=1, may_requeue=False)) is Action.STOP
    assert action(Cause.NODE_LOST, [], left(healthy_nodes=1, least_nodes=1)) is Action.RETRY


@given(
    st.sampled_from(list(Cause)),
    st.lists(st.builds(PastAttempt, st.sampled_from(list(Cause)), st.none() | steps), max_size=8),
    st.none() | steps,
    st.booleans(),
    st.integers(0, 3),
)
def test_every_verdict_has_an_action_a_cause_and_evidence(
    cause: Cause, before: list[PastAttempt], newest: int | None, requeue: bool, healthy: int
) -> None:
    now = left(newest, may_requeue=requeue, healthy_nodes=healthy)
    verdict = decide(Finding(cause, "evidence"), before, now)
    assert verdict.action is not None
    assert verdict.cause is not None
    assert verdict.finding is not None
    assert "evidence" in verdict.evidence
    assert verdict.state.is_final is (verdict.action in (Action.FINISH, Action.STOP))
