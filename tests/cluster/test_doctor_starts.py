"""When a job would start: sbatch's words, gaps before waiting jobs, what is proposed instead."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from clusterlm.cluster.doctor.backfill import FOR_EVER, Gap, gaps, idle_nodes, smaller_that_starts
from clusterlm.cluster.doctor.estimate import parse_estimate, would_start
from clusterlm.cluster.doctor.finding import Severity
from clusterlm.cluster.doctor.starts import (
    MOST_QUESTIONS,
    Questions,
    findings_on_start,
    table_of_starts,
)
from clusterlm.cluster.host import Completed
from clusterlm.errors import SlurmUnreachable
from clusterlm.spec.resources import Resources as Asked
from tests.cluster.fake_host import UNREACHABLE, FakeHost

NOW = time.mktime(time.strptime("2026-11-26T03:00:00", "%Y-%m-%dT%H:%M:%S"))
H = 3600


def resources_of(**fields: object) -> Asked:
    return Asked.model_validate(fields)


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW + seconds))


@pytest.mark.parametrize(
    "words",
    [
        # 20.11 to 24.11, then 26.05
        "sbatch: Job 3 to start at {} using 2 processors on nodes node[1-2] in partition batch\n",
        "sbatch: Job 3 to start at {} a using 2 processors on nodes node[1-2] in partition batch\n",
    ],
)
def test_an_estimate_of_every_version_is_read(words: str) -> None:
    estimate = parse_estimate(Completed((), 0, "", words.format(at(2 * H))))
    assert estimate.wait_s(NOW) == 2 * H
    assert estimate.nodes == "node[1-2]"
    assert estimate.wait_s(NOW + 2 * H) == 0.0


def test_a_refusal_is_told_in_sbatchs_own_words() -> None:
    for text in (
        "allocation failure: Requested node configuration is not available",
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    ):
        estimate = parse_estimate(Completed((), 1, "", text))
        assert estimate.refusal == "Requested node configuration is not available"
        assert estimate.wait_s(NOW) is None


def test_words_that_are_not_known_are_no_refusal() -> None:
    estimate = parse_estimate(Completed((), 0, "", "sbatch: Job 3 may start when it pleases"))
    assert (estimate.refusal, estimate.wait_s(NOW)) == ("", None)


def test_a_controller_that_is_away_refuses_nothing() -> None:
    with pytest.raises(SlurmUnreachable):
        would_start(FakeHost(sbatch=(1, "", UNREACHABLE)), [], None)


def test_idle_nodes_are_free_until_a_waiting_job_or_a_reservation_gets_them() -> None:
    waiting = f"{at(4 * H)}|node[1-2]\nN/A|\n{at(9 * H)}|node[1-3]\nN/A|(null)\n"
    reserved = (
        f"ReservationName=maint StartTime={at(6 * H)} EndTime={at(7 * H)} Nodes=node[3-4] X=Y\n"
        f"ReservationName=old StartTime={at(-6 * H)} EndTime={at(-H)} Nodes=node5\n"
        "No reservations in the system\n"
    )
    gap = gaps(["node1", "node3", "node5"], waiting, reserved, NOW)
    assert gap.seconds == (FOR_EVER - 120, 6 * H - 120, 4 * H - 120)
    assert gap.for_nodes(2) == 6 * H - 120
    assert gap.for_nodes(4) == 0.0
    assert gap.most_nodes(5 * H) == 2
    own = gaps(["node3"], "", reserved, NOW, own="maint")
    assert own.for_nodes(1) > 7 * H


def test_a_reservation_that_has_begun_leaves_no_gap() -> None:
    text = f"ReservationName=r StartTime={at(-H)} EndTime={at(H)} Nodes=a"
    assert gaps(["a"], "", text, NOW).seconds == (0.0,)


def test_only_nodes_that_the_job_could_use_count() -> None:
    text = (
        "n1|idle|gpu*|gpu:a100:8(S:0-1)|fast,ib\n"
        "n2|planned|gpu*|gpu:h100:8|fast\n"
        "n3|mixed|gpu*|gpu:a100:8|ib\n"
        "n4|idle|cpu|(null)|(null)\n"
        "n5|idle*|gpu*|gpu:a100:8|ib\n"
    )
    assert idle_nodes(text, resources_of(gpus_per_node=8), "gpu") == ["n1", "n2"]
    assert idle_nodes(text, resources_of(gpus_per_node=8, gpu_type="a100"), "gpu") == ["n1"]
    assert idle_nodes(text, resources_of(constraint="ib"), "gpu") == ["n1"]
    assert idle_nodes(text, resources_of(exclude="n[1,3]"), "gpu") == ["n2"]
    assert idle_nodes(text, resources_of(), "cpu") == ["n4"]


def test_what_is_smaller_and_starts_now_is_proposed() -> None:
    gap = Gap((13_880.0, 13_880.0))
    assert smaller_that_starts(gap, 2, 12 * H)[0].startswith("with resources.time: 3:50:00")
    four = smaller_that_starts(gap, 4, 12 * H)
    assert four[0].startswith("with resources.nodes: 2 and resources.time: 3:50:00")
    assert "nodes: 2 it starts now for its whole" in smaller_that_starts(gap, 4, 2 * H)[0]
    assert smaller_that_starts(Gap((300.0,)), 1, H) == []
    assert smaller_that_starts(Gap(()), 8, H) == []


class Estimating(FakeHost):
    """An sbatch that says when: by nodes."""

    def __init__(self, waits: dict[int, float]) -> None:
        super().__init__()
        self.waits = waits

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0) -> Completed:
        self.calls.append(argv)
        nodes = next(int(word.split("=")[1]) for word in argv if word.startswith("--nodes="))
        text = f"sbatch: Job 1 to start at {at(self.waits[nodes])} using 1 processors on nodes n"
        return Completed(tuple(argv), 0, "", text)


def questions(**waits: float) -> Questions:
    return Questions(Estimating({int(k[1:]): v for k, v in waits.items()}), Path("x"))


def test_a_job_that_starts_now_costs_one_question() -> None:
    asked = questions(n2=10.0)
    found = list(findings_on_start(asked, resources_of(nodes=2, time="1h"), Gap(()), lambda: NOW))
    assert [f.words for f in found] == ["it would start now on n"]
    assert asked.left == MOST_QUESTIONS - 1


def test_a_gap_that_fits_is_now_whatever_sbatch_estimates() -> None:
    found = list(
        findings_on_start(
            questions(n1=9 * H), resources_of(time="1h"), Gap((2.0 * H,)), lambda: NOW
        )
    )
    assert found[0].words == "it would start now"


def test_fewer_nodes_that_start_much_sooner_are_proposed() -> None:
    asked = questions(n8=20 * H, n4=2 * H)
    (one,) = findings_on_start(asked, resources_of(nodes=8, time="1h"), Gap(()), lambda: NOW)
    assert one.severity is Severity.WARN
    assert one.advice == "with resources.nodes: 4 in 2 h 00 min"


def test_sbatch_is_asked_eight_times_at_most() -> None:
    asked = questions(n8=20 * H, n4=2 * H, n1=0.0)
    resources = resources_of(nodes=8, time="24h")
    list(findings_on_start(asked, resources, Gap(()), lambda: NOW))
    table = table_of_starts(asked, resources, Gap((5.0 * H,)), lambda: NOW)
    assert table[0] == ("NODES", "1-00:00:00", "12:00:00", "6:00:00", "3:00:00")
    assert [row[0] for row in table] == ["NODES", "8", "4", "1"]
    assert table[1][1] == "in 20 h 00 min"
    assert table[3][4] == "now"
    assert isinstance(asked.host, FakeHost)
    assert len(asked.host.calls) == MOST_QUESTIONS
