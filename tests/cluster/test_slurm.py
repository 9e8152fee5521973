from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.cluster import slurm
from clusterlm.cluster.host import Completed
from clusterlm.errors import SlurmError, SlurmUnreachable
from clusterlm.supervise.slurm_states import LIFE_OF_STATE, Life
from tests.cluster.fake_host import NO_ACCOUNTING, NO_DATABASE, UNKNOWN_ID, UNREACHABLE, FakeHost

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = ("20.11", "22.05", "24.11")
# rows that look like ones of Slurm, with everything odd in the cells
cell = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["71_[0-9%2]", "22_0", "5+1", "(null)", "CANCELLED by 0", "CANCELLED+", "3:0"]),
)
text = st.one_of(
    st.text(),
    st.lists(st.lists(cell, max_size=9).map("|".join)).map("\n".join),
    st.lists(st.lists(cell.map(lambda c: c.ljust(24)), max_size=9).map("".join)).map("\n".join),
)


def recorded(version: str, program: str) -> str:
    return (RECORDED / version / f"{program}.txt").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_squeue_row_is_read(version: str) -> None:
    output = recorded(version, "squeue")
    rows = slurm.parse_squeue(output)
    assert sum(map(len, rows.values())) == len(output.splitlines())
    assert all(row.life is not Life.UNKNOWN for found in rows.values() for row in found)


@pytest.mark.parametrize("version", ["20.11", "24.11"])
def test_versions_say_the_same_in_other_words(version: str) -> None:
    rows = slurm.parse_squeue(recorded(version, "squeue"))
    assert rows["22"][0].exit_code == "3:0"
    assert rows["23"][0].exit_code == "0:9"
    assert rows["21"][0].restarts == 1
    assert rows["21"][0].nodes == ""
    assert rows["36"][0].nodes == "node[1-2]"
    assert rows["7"][0].never_satisfied
    assert rows["41"][0].reason.startswith("ReqNodeNotAvail, ")
    assert rows["41"][0].reason_words.startswith("a node it needs is not available")
    assert (rows["71"][0].state, rows["71"][0].task) == ("PENDING", "[0-9%2]")


@pytest.mark.parametrize("version", VERSIONS)
def test_sacct_keeps_the_runs_of_a_requeued_job_in_order(version: str) -> None:
    rows = slurm.parse_sacct(recorded(version, "sacct"))
    requeued = [found for found in rows.values() if len(found) > 1]
    assert requeued
    assert [row.restarts for row in requeued[0]] == list(range(len(requeued[0])))
    assert rows["7"][0].source == "sacct"


def test_sacct_names_who_cancelled_and_why_a_dependent_job_was() -> None:
    rows = slurm.parse_sacct(recorded("22.05", "sacct"))
    assert rows["3"][0].state == "CANCELLED"
    assert rows["3"][0].by_whom == " by uid 0"
    assert not rows["3"][0].never_satisfied
    assert rows["4"][0].never_satisfied


@pytest.mark.parametrize("version", VERSIONS)
def test_partitions_have_limits_in_seconds_and_one_default(version: str) -> None:
    found = slurm.parse_sinfo(recorded(version, "sinfo"))
    assert len(found) == 3
    assert [p.name for p in found if p.is_default] == ["batch"]
    assert found[0].max_time_s is None
    assert found[1].max_time_s in (600, 4 * 86400)


@given(text)
def test_parsers_survive_any_text(output: str) -> None:
    for found in (slurm.parse_squeue(output), slurm.parse_sacct(output)):
        for job_id, rows in found.items():
            assert job_id.isdecimal()
            assert all(row.state and row.job_id == job_id for row in rows)
    slurm.parse_sinfo(output)
    assert slurm.last_words(Completed((), 1, "", output)) is not None


@given(st.sampled_from(sorted(LIFE_OF_STATE)), st.sampled_from(["", "+", " by 1000"]))
def test_the_first_word_is_the_state(state: str, suffix: str) -> None:
    rows = slurm.parse_sacct(f"noise\n5|{state}{suffix}|0:0|2026-01-01T00:00:00|n1|None\n5.batch|X")
    assert [row.state for row in rows["5"]] == [state]


def test_a_word_that_slurm_has_invented_since_is_a_state_and_no_failure() -> None:
    rows = slurm.parse_sacct("5|HIBERNATING|0:0|Unknown|n1|None\n")
    assert rows["5"][0].life is Life.UNKNOWN


def test_one_call_asks_for_all_jobs() -> None:
    assert slurm.squeue_argv(["1", "2"])[-2:] == ["-j", "1,2"]
    assert slurm.sacct_argv(["1", "2"])[-2:] == ["-j", "1,2"]


def test_ids_that_squeue_does_not_know_are_an_empty_answer() -> None:
    assert slurm.ask_squeue(FakeHost(squeue=(1, "", UNKNOWN_ID)), ["9"]) == {}


@pytest.mark.parametrize(
    ("code", "err"),
    [(1, UNREACHABLE), (None, "squeue: no answer in 25 s"), (127, "squeue: not found")],
)
def test_no_answer_of_squeue_is_no_answer_about_the_job(code: int | None, err: str) -> None:
    with pytest.raises(SlurmUnreachable, match="squeue does not answer"):
        slurm.ask_squeue(FakeHost(squeue=(code, "", err)), ["9"])
    assert not slurm.job_lives(FakeHost(squeue=(code, "", err)), "9")


def test_a_database_that_is_away_and_one_that_never_was_are_told_apart() -> None:
    with pytest.raises(SlurmUnreachable, match="keeps no accounting"):
        slurm.ask_sacct(FakeHost(sacct=(1, "", NO_ACCOUNTING)), ["9"])
    with pytest.raises(SlurmUnreachable, match="Connection refused"):
        slurm.ask_sacct(FakeHost(sacct=(1, "", NO_DATABASE)), ["9"])


def test_scancel_tells_a_refusal_from_silence() -> None:
    slurm.scancel(FakeHost(scancel=(0, "", "")), ["9"])
    with pytest.raises(SlurmUnreachable):
        slurm.scancel(FakeHost(scancel=(8, "", f"scancel: error: {UNREACHABLE}")), ["9"])
    with pytest.raises(SlurmError, match="Access/permission denied"):
        slurm.scancel(
            FakeHost(scancel=(1, "", "scancel: error: Kill job error: Access/permission denied")),
            ["9"],
        )


@pytest.mark.parametrize(
    ("err", "words"),
    [
        (
            "sbatch: error: invalid partition specified: x\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
            "Invalid partition name specified",
        ),
        ("sbatch: unrecognized option '--x'", "unrecognized option '--x'"),
        ("", "exit 1"),
    ],
)
def test_last_words_are_what_slurm_complains_about(err: str, words: str) -> None:
    assert slurm.last_words(Completed(("sbatch",), 1, "", err)) == words
