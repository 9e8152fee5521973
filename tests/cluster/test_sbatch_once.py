"""What sbatch's words mean, who is found in the queue, and that nothing is sent twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from clusterlm.cluster import sbatch_once as module
from clusterlm.cluster.host import Completed
from clusterlm.cluster.sbatch_once import Sending, is_refusal, sbatch_once
from clusterlm.cluster.sent_jobs import Sent, look_up, parse_queue, parse_records
from clusterlm.errors import SendUnclear, SlurmError, SlurmUnreachable
from clusterlm.paths import RunPaths
from clusterlm.supervise.owner import Owner, owner_of, take

KEY = "0123456789abcdef" * 2
TOKEN, OTHER = f"{KEY}-train", f"{'f' * 32}-train"
SINCE = datetime(2026, 11, 21, 1, 40).timestamp()
DOWN = Completed((), 1, "", "slurm_load_jobs error: Unable to contact slurm controller")
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@dataclass
class Queue:
    """Answers of squeue and sacct, one after the other; the last stays."""

    squeue: list[Completed]
    sacct: list[Completed] = field(default_factory=lambda: [Completed((), 0, "", "")])
    calls: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        self.calls.append(tuple(argv))
        answers: list[Completed] = getattr(self, argv[0], [Completed((), 0, "", "")])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def stream(self, argv: Sequence[str], each: object) -> int:
        raise NotImplementedError

    def has(self, program: str) -> bool:
        return True


def ok(text: str = "") -> Completed:
    return Completed((), 0, text, "")


def row(job: str, token: str = TOKEN) -> str:
    return f"{job}|2026-11-21T01:43:26|/runs/a/submitit/{token}.sbatch\n"


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path / "a")
    paths.submitit.mkdir(parents=True)
    return paths


@pytest.fixture
def sbatch(monkeypatch: pytest.MonkeyPatch) -> list[Completed]:
    """Answers of sbatch; those that are left were not asked for."""
    answers: list[Completed] = []
    monkeypatch.setattr(module, "_call_sbatch", lambda file, held: answers.pop(0))
    return answers


def sending(run: RunPaths, queue: Queue) -> Sending:
    return Sending(run, "train", TOKEN, "#!/bin/sh\n", queue, print, patience_s=0.3, settle_s=0.1)


REFUSALS = [
    "sbatch: error: Batch job submission failed: Invalid partition name specified",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
    "sbatch: unrecognized option '--x'",
    "sbatch: error: Batch job submission failed: Job dependency problem",
    "sbatch: error: Invalid generic resource (gres) specification",
]
UNCLEAR = [
    TIMED_OUT,
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller "
    "(connect failure)",
    "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    "sbatch: error: Batch job submission failed: Transport endpoint is not connected",
    "sbatch: error: Batch job submission failed: Unexpected message received",
    "sbatch: error: Slurm controller not responding, sleeping and retrying.",
    "",
]


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refusal_is_final(words: str) -> None:
    assert is_refusal(Completed((), 1, "", words))


@pytest.mark.parametrize("words", UNCLEAR)
@pytest.mark.parametrize("code", [1, -9, None])
def test_what_is_no_answer_is_no_refusal(words: str, code: int | None) -> None:
    assert not is_refusal(Completed((), code, "", words))
    assert not is_refusal(Completed((), None, "", REFUSALS[0]))


def test_in_the_queue_the_file_tells_the_job_and_an_array_counts_once(run: RunPaths) -> None:
    sent = Sent(run, "train", TOKEN, SINCE)
    text = row("72") + row("71") + row("72") + row("80", OTHER) + "garbage\n\n"
    assert parse_queue(text, sent) == ["71", "72"]


def test_where_a_site_hands_on_another_file_name_and_time_decide(run: RunPaths) -> None:
    sent = Sent(run, "train", TOKEN, SINCE)
    text = "71|2026-11-21T01:43:26|(null)\n60|2026-11-20T01:43:26|(null)\n75|N/A|/tmp/x.sh\n"
    assert parse_queue(text, sent) == ["71", "75"]
    assert parse_records("71_3|2026-11-21T01:43:26\n60|2026-11-20T01:00:00\n", sent) == ["71"]
    assert parse_records(f"71|x|sbatch /r/{TOKEN}.sbatch\n70|x|sbatch {OTHER}.sbatch\n", sent) == [
        "71"
    ]


def test_no_answer_is_never_no_job(run: RunPaths) -> None:
    sent = Sent(run, "train", TOKEN, SINCE)
    with pytest.raises(SlurmUnreachable):
        look_up(sent, Queue([DOWN]), SINCE + 1)
    off = Completed((), 1, "", "Slurm accounting storage is disabled")
    gone = Completed((), 1, "", "sacct: error: Problem talking to the database")
    assert look_up(sent, Queue([ok()], [off]), SINCE + 9999) == []
    # squeue alone does while it cannot have forgotten
    assert look_up(sent, Queue([ok()], [gone]), SINCE + 1) == []
    with pytest.raises(SlurmUnreachable):
        look_up(sent, Queue([ok()], [gone]), SINCE + 9999)


def test_an_old_sacct_is_asked_without_the_line_that_it_does_not_know(run: RunPaths) -> None:
    old = Completed((), 1, "", 'sacct: fatal: Invalid field requested: "SubmitLine"')
    queue = Queue([ok()], [old, ok("71|2026-11-21T01:43:26\n")])
    assert look_up(Sent(run, "train", TOKEN, SINCE), queue, SINCE) == ["71"]


def test_a_second_call_gives_the_job_of_the_first(run: RunPaths, sbatch: list[Completed]) -> None:
    sbatch.append(ok("Submitted batch job 71\n"))
    queue = Queue([DOWN])
    assert [sbatch_once(sending(run, queue)) for _ in range(2)] == ["71", "71"]
    assert queue.calls == []


def test_a_refusal_leaves_nothing(run: RunPaths, sbatch: list[Completed]) -> None:
    sbatch.append(Completed((), 1, "", REFUSALS[0]))
    with pytest.raises(SlurmError, match="Invalid partition") as told:
        sbatch_once(sending(run, Queue([DOWN])))
    assert not isinstance(told.value, SendUnclear)
    assert list(run.submitit.iterdir()) == []


def test_a_job_that_was_taken_all_the_same_is_found(run: RunPaths, sbatch: list[Completed]) -> None:
    sbatch.append(Completed((), 1, "", TIMED_OUT))
    queue = Queue([DOWN, ok(), ok(row("71"))])
    assert sbatch_once(sending(run, queue)) == "71"


def test_one_that_is_not_there_is_sent_again(run: RunPaths, sbatch: list[Completed]) -> None:
    sbatch += [Completed((), 1, "", TIMED_OUT), ok("Submitted batch job 72\n")]
    assert sbatch_once(sending(run, Queue([ok()]))) == "72"
    assert sbatch == []


def test_without_an_answer_nothing_is_sent_again_and_the_key_is_told(
    run: RunPaths, sbatch: list[Completed]
) -> None:
    sbatch += [Completed((), 1, "", TIMED_OUT), ok("Submitted batch job 72\n")]
    with pytest.raises(SendUnclear, match=re.escape(f"--key {KEY}")):
        sbatch_once(sending(run, Queue([DOWN])))
    assert len(sbatch) == 1
    assert sbatch_once(sending(run, Queue([ok(row("71"))]))) == "71"


def test_of_two_jobs_the_owner_stays_and_the_other_is_taken_away(
    run: RunPaths, sbatch: list[Completed]
) -> None:
    sbatch.append(Completed((), 1, "", TIMED_OUT))
    queue = Queue([ok(row("71") + row("72"))])
    assert sbatch_once(sending(run, queue)) == "71"
    assert queue.calls[-1] == ("scancel", "72")


def test_the_job_that_has_started_is_the_one_even_if_sbatch_names_another(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def starts(file: Path, held: int) -> Completed:
        take(run, TOKEN, Owner("70"))
        return ok("Submitted batch job 71\n")

    monkeypatch.setattr(module, "_call_sbatch", starts)
    assert sbatch_once(sending(run, Queue([DOWN]))) == "70"


def test_the_first_owner_stays(run: RunPaths) -> None:
    assert owner_of(run, TOKEN) is None
    assert take(run, TOKEN, Owner("71")).job_id == "71"
    assert take(run, TOKEN, Owner("72")).job_id == "71"
    assert take(run, OTHER, Owner("72")).job_id == "72"


def test_a_deleted_run_does_not_come_back_by_a_claim(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(RunPaths(tmp_path / "gone"), TOKEN, Owner("71"))
    assert list(tmp_path.iterdir()) == []
