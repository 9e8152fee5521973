"""What doctor's findings say, and how they look."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.cluster.doctor.finding import Finding, Save, Severity
from clusterlm.cluster.doctor.last_save import last_save
from clusterlm.cluster.doctor.meaning import meaning
from clusterlm.cluster.doctor.table import lines_of, told, verdict
from clusterlm.paths import AttemptPaths, RunPaths
from clusterlm.spec.probe import (
    NodesTest,
    Probe,
    ProbedFolder,
    ProbedMachine,
    ProbedNode,
    ProbedPartition,
    ProbedQos,
)
from tests.cluster.test_doctor_facts import VERSIONS, probe_of

BATCH = ProbedPartition(name="batch", nodes=4, nodes_up=4, is_default=True, gres=("gpu:8",))


def probe(**fields: object) -> Probe:
    return Probe.model_validate(
        {"slurm_version": "24.11.5", "accounting": True, "partitions": (BATCH,), **fields}
    )


def said(found: Probe, save: Save | None = None) -> str:
    lines = [f"{f.severity.value} {f.words} -> {f.advice}" for f in meaning(found, save)]
    return "\n".join(lines)


@pytest.mark.parametrize("version", [*VERSIONS, "24.11-no-sacct"])
def test_every_recorded_cluster_can_be_told(version: str) -> None:
    found = probe_of(version)
    lines = lines_of(found, meaning(found))
    assert any(line.startswith("batch*") for line in lines)
    assert all(len(line) < 140 for line in lines)


def test_a_grace_that_is_shorter_than_the_last_save_is_told_with_both_numbers() -> None:
    save = Save("mine", 95.0)
    words = said(probe_of("24.11"), save)
    assert "partition low: preemption gives 30 s, and the last save of mine took 95 s" in (
        words.replace("1 min", "95 s")
    )
    assert "cannot save" in words
    assert "enough" in said(probe_of("24.11"), Save("quick", 3.0))


def test_the_highest_partition_is_preempted_by_nobody() -> None:
    words = said(probe_of("22.05"))
    assert "partition low: preemption gives 30 s" in words
    assert "partition batch" not in words
    assert "partition short, partition tiny: a preempted job is ended without a warning" in words


def test_by_qos_the_grace_of_the_qos_counts() -> None:
    limits = (
        ProbedQos(name="high", preempts=("low",)),
        ProbedQos(name="low", grace_s=20, preempt_mode="requeue"),
    )
    found = probe(preempt_type="qos", preempt_mode="REQUEUE", qos_limits=limits)
    words = said(found, Save("r", 60.0))
    assert "qos low: preemption gives 20 s" in words
    assert "qos high" not in words


def test_a_suspended_job_loses_nothing() -> None:
    one = ProbedPartition(name="low", is_default=True, priority_tier=1)
    two = ProbedPartition(name="high", priority_tier=2)
    found = probe(preempt_type="partition_prio", preempt_mode="GANG,SUSPEND", partitions=(one, two))
    assert "partition low: a preempted job is suspended" in said(found)


def test_without_preemption_nothing_is_said_unless_a_run_asks() -> None:
    assert "preempt" not in said(probe(preempt_type="none", preempt_mode="OFF"))
    assert "not preempted" in said(probe(), Save("r", 1.0))


def test_without_accounting_the_records_of_the_run_tell_its_end() -> None:
    assert "end states come from the run's own records" in said(probe(accounting=False))
    assert "forgets" in said(probe(accounting=False, min_job_age_s=30))


def test_a_partition_with_a_default_time_says_it() -> None:
    one = BATCH.model_copy(update={"default_time_s": 7200})
    assert "gets 2 h 00 min" in said(probe(partitions=(one,)))


def test_what_is_missing_or_broken_is_bad() -> None:
    cases = [
        probe(programs={"sbatch": True, "srun": False}),
        probe(partitions=()),
        probe(enforces_accounts=True),
        probe(folders=(ProbedFolder(path="/data", visible=False),)),
        probe(folders=(ProbedFolder(path="/data", visible=True, fsync_rename=False),)),
        probe(clock_skew_s=-400.0),
        probe(nodes=(ProbedNode(host="n1"),)),
        probe(nodes_test=NodesTest(ok=False, text="DistNetworkError")),
        probe(partitions=(BATCH.model_copy(update={"nodes_up": 0}),)),
    ]
    for found in cases:
        assert meaning(found)[0].severity is Severity.BAD, said(found)
        assert "to mend" in verdict(found, meaning(found))
    assert "no node was looked at" in verdict(probe(), meaning(probe()))
    seen = probe(nodes=(ProbedNode(host="n", python="p"),))
    assert verdict(seen, meaning(seen)) == "fit to train"


def test_the_interface_between_nodes_is_proposed_for_nccl() -> None:
    def seen(first: str, second: str) -> str:
        nodes = [
            ProbedNode(host=h, python="p", interface=i) for h, i in (("a", first), ("b", second))
        ]
        return said(probe(nodes=nodes))

    assert "NCCL_SOCKET_IFNAME: ib0" in seen("ib0", "ib0")
    assert "several names" in seen("ib0", "ib1")
    assert "!! the name of a node leads to its loopback" in seen("lo", "eth0")


def test_a_machine_without_slurm_is_told_what_it_has() -> None:
    here = ProbedMachine(host="desk", python="python3 (3.11)", cpus=8, gpus=("A", "A"), docker="")
    found = Probe(machine=here, folders=(ProbedFolder(path="/runs", free_bytes=10),))
    text = "\n".join(lines_of(found, meaning(found)))
    assert "2 x A" in text
    assert "docker does not answer" in text
    assert "no compute node" not in text


def test_words_of_a_cluster_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;x\x07n\x1b[2J"
    found = probe(
        partitions=(BATCH.model_copy(update={"name": evil}),),
        nodes=(ProbedNode(host=evil, python=evil),),
        notes=(evil,),
    )
    assert "\x1b" not in "".join(lines_of(found, meaning(found)))


def test_a_long_finding_is_folded() -> None:
    lines = list(told([Finding(Severity.WARN, "word " * 60, "do " * 60)]))
    assert max(map(len, lines)) <= 100


def test_the_newest_save_of_a_run_is_found_in_its_newest_attempt(tmp_path: Path) -> None:
    run = RunPaths(tmp_path / "r")
    run.root.mkdir()
    assert last_save(run) is None
    for number, words in ((2, "12.0"), (10, "95.5")):
        attempt = AttemptPaths(run.root / "attempts" / str(number))
        attempt.make()
        attempt.rank_log(0).write_text(f"x\nsaved checkpoint-40 in {words} s (training ...)\ny\n")
    assert last_save(run) == Save("r", 95.5)
