"""Facts from what real Slurms of four versions have printed, and from words that they never did."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.cluster.doctor.commands import Answers, ask, questions
from clusterlm.cluster.doctor.facts import (
    facts_of,
    gres_list,
    name_of_gres,
    partitions_of,
    policy_of,
)
from clusterlm.cluster.doctor.hostlist import expand
from clusterlm.cluster.doctor.words_of_slurm import duration_s, records, settings, written
from clusterlm.errors import SlurmUnreachable
from clusterlm.spec.probe import Probe
from tests.cluster.fake_host import UNREACHABLE, FakeHost

RECORDED = Path(__file__).parent / "recorded"
VERSIONS = ("20.11", "22.05", "24.11", "26.05")
PROGRAMS = dict.fromkeys(("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo"), True)


def recorded(version: str) -> Answers:
    """The answers of a real bed."""
    texts, refusals = {}, {}
    for file in (RECORDED / version / "doctor").glob("*.txt"):
        text = file.read_text()
        if text.startswith("!"):
            refusals[file.stem] = text[1:].strip().splitlines()[-1]
        else:
            texts[file.stem] = text
    return Answers(texts, refusals, {**PROGRAMS, "sacct": True})


def probe_of(version: str) -> Probe:
    """What doctor makes of them."""
    return Probe(**facts_of(recorded(version)))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_question_has_a_recorded_answer(version: str) -> None:
    assert set(recorded(version).texts) == set(questions("me"))


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_tell_the_same_of_the_same_cluster(version: str) -> None:
    probe = probe_of(version)
    assert probe.slurm_version is not None
    assert probe.slurm_version.startswith(version)
    assert [p.name for p in probe.partitions] == ["batch", "short", "tiny", "low", "night"]
    batch, _, tiny, low, night = probe.partitions
    assert (batch.is_default, batch.nodes, batch.nodes_up, batch.max_time_s) == (True, 4, 3, None)
    assert (batch.cpus, batch.mem_mb, batch.gres) == (8, 8000, ("gpu:8",))
    assert (tiny.max_nodes, tiny.max_time_s) == (1, 60)
    assert (low.grace_s, low.preempt_mode, low.accounts) == (30, "REQUEUE", ("team", "other"))
    assert (low.default_time_s, low.max_time_s) == (3600, 86400)
    assert (night.state, night.preempt_mode, night.max_time_s) == ("DOWN", "CANCEL", 432000)
    assert probe.gres_names == ("gpu",)
    assert (probe.accounting, probe.pyxis) == (True, False)
    assert set(probe.accounts) == {"root", "team", "other"}
    assert (probe.default_account, probe.qos) == ("root", ("normal", "scavenger"))
    scavenger = next(qos for qos in probe.qos_limits if qos.name == "scavenger")
    assert (scavenger.grace_s, scavenger.max_time_s) == (120, 2 * 86400)
    assert (probe.preempt_mode, probe.preempt_type) == ("REQUEUE", "partition_prio")
    assert (probe.kill_wait_s, probe.min_job_age_s, probe.max_array_size) == (30, 300, 1001)
    assert (probe.requeue, probe.enforces_limits, probe.enforces_accounts) == (True, False, False)
    assert probe.hides_jobs is True


def test_a_cluster_without_accounting_is_known_by_sacct_and_not_by_its_configuration() -> None:
    probe = probe_of("24.11-no-sacct")
    assert probe.accounting is False
    assert (probe.accounts, probe.qos_limits, probe.default_account) == ((), (), None)
    assert (probe.preempt_type, probe.preempt_parameters) == (None, None)


def test_a_database_that_is_away_is_not_known_and_no_other_answer_is_lost() -> None:
    whole = recorded("22.05")
    texts = {key: text for key, text in whole.texts.items() if key != "accounting"}
    refusals = {"accounting": "Problem talking to the database: Connection refused"}
    facts = facts_of(Answers(texts, refusals, whole.programs))
    assert facts["accounting"] is None
    assert facts["slurm_version"] == "22.05.8"


def test_no_answer_at_all_gives_a_probe_that_knows_nothing() -> None:
    probe = Probe(**facts_of(Answers({}, {}, {})))
    assert probe.partitions == ()
    assert probe.enforces_limits is None
    assert probe.enforces_accounts is None


@pytest.mark.parametrize("question", sorted(questions("me")))
def test_what_one_command_does_not_say_is_missing_and_no_more(question: str) -> None:
    whole = recorded("24.11")
    for text in ("", "(null)\n", "a | b\nc=\n=d\n\x1b[31m|||||||||||\n"):
        Probe(**facts_of(Answers({**whole.texts, question: text}, {}, whole.programs)))


def test_sinfo_alone_gives_the_partitions() -> None:
    text = (
        "gpu*|up|1-00:00:00|1:00:00|3|64+|512000+|mixed|gpu:a100:8(S:0-1),nvme:2\n"
        "gpu*|up|1-00:00:00|1:00:00|1|128|1024000|drained*|gpu:h100:4\n"
        "cpu|inact|infinite|n/a|9|32|64000|idle|(null)\n"
    )
    gpu, cpu = partitions_of("", text)
    assert (gpu.name, gpu.is_default, gpu.nodes, gpu.nodes_up) == ("gpu", True, 4, 3)
    assert gpu.gres == ("gpu:a100:8", "nvme:2", "gpu:h100:4")
    assert (gpu.cpus, gpu.mem_mb, gpu.default_time_s) == (64, 512000, 3600)
    assert (cpu.state, cpu.has_gpus, cpu.max_time_s) == ("INACT", False, None)


def test_scontrol_alone_gives_the_partitions() -> None:
    low = partitions_of(recorded("26.05").text("partitions"), "")[3]
    assert (low.name, low.nodes, low.nodes_up, low.gres) == ("low", 4, None, ())


def test_a_value_with_blanks_does_not_swallow_the_next_key() -> None:
    line = "NodeName=n1 OS=Linux 6.1 #1 SMP RealMemory=8000 Comment=(null) Reason=Not responding"
    assert records(line, "NodeName") == [
        {
            "NodeName": "n1",
            "OS": "Linux 6.1 #1 SMP",
            "RealMemory": "8000",
            "Comment": "(null)",
            "Reason": "Not responding",
        }
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("30 sec", 30), ("2 min", 120), ("45", 45), ("00:02:00", 120), ("0", 0)),
        *(("1-00:00:00", 86400), ("UNLIMITED", None), ("infinite", None), ("NONE", None)),
        *(("n/a", None), ("", None), (None, None), ("soon", None), ("00:00:00", 0)),
    ],
)
def test_times_as_slurm_writes_them(text: str | None, seconds: int | None) -> None:
    assert duration_s(text) == seconds


def test_gres_lose_their_sockets_and_names_their_counts() -> None:
    found = gres_list("gpu:a100:8(S:0-1,3),bandwidth:lustre:no_consume:4G")
    assert found == ["gpu:a100:8", "bandwidth:lustre:no_consume:4G"]
    assert [name_of_gres(g) for g in found] == ["gpu:a100", "bandwidth:lustre:no_consume"]
    assert gres_list("(null)") == []


def test_settings_with_odd_values() -> None:
    text = "PowerPlugin             = \nSlurmctldHost[0]  = a(10.0.0.1)\nnothing here\nA = b = c\n"
    assert settings(text) == {"PowerPlugin": "", "SlurmctldHost[0]": "a(10.0.0.1)", "A": "b = c"}


def test_accounts_are_enforced_where_the_configuration_says_so() -> None:
    for word, enforced in (("none", False), ("associations,limits,qos", True), ("safe,qos", True)):
        assert policy_of({"AccountingStorageEnforce": word})["enforces_accounts"] is enforced


def test_a_controller_that_is_away_is_no_empty_cluster() -> None:
    with pytest.raises(SlurmUnreachable, match="does not answer"):
        ask(FakeHost(scontrol=(1, "", UNREACHABLE)), "me")


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("node1", ["node1"]),
        ("gpu[01-03,7],login1", ["gpu01", "gpu02", "gpu03", "gpu7", "login1"]),
        ("r[1-2]n[8-9]", ["r1n8", "r1n9", "r2n8", "r2n9"]),
        ("gpu[099-101]-ib", ["gpu099-ib", "gpu100-ib", "gpu101-ib"]),
        ("", []),
        ("odd[a-b]", ["odda-b"]),
    ],
)
def test_lists_of_nodes(text: str, nodes: list[str]) -> None:
    assert expand(text) == nodes


def test_a_list_of_a_billion_nodes_costs_nothing() -> None:
    assert len(expand("a[1-999999],b[1-99999]")) <= 100_000


def test_a_limit_is_written_as_people_write_it() -> None:
    assert [written(s) for s in (600, 13800, 90000)] == ["0:10:00", "3:50:00", "1-01:00:00"]
