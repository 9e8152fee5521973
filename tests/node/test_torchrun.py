"""The whole family with a real torchrun of two ranks."""

from __future__ import annotations

import os
import signal
import time

import pytest

from clusterlm.node.records import first_failure
from tests.node.conftest import Node, wait_for

OLD_TORCH = "SIGTERM,SIGINT,SIGHUP,SIGQUIT"
"""An older torchrun takes SIGTERM, hands it on, and kills its ranks 30 s later."""

SLEEPS = "print('up', flush=True); time.sleep(100)"

SAVES = """
print('up', flush=True)
while not os.path.exists(os.environ["CLUSTERLM_STOP_FILE"]):
    time.sleep(0.05)
time.sleep(3)
print("saved", flush=True)
sys.exit(85)
"""


def test_one_rank_fails_and_the_other_is_ended(node: Node) -> None:
    node.start_torchrun(
        """
        print('up', flush=True)
        if os.environ["RANK"] == "1":
            while not os.path.exists(os.environ["CLUSTERLM_ATTEMPT_DIR"] + "/go"):
                time.sleep(0.01)
            sys.exit(3)
        time.sleep(100)
        """
    )
    child = node.rank_start(0)["child_pid"]
    node.rank_start(1)
    began = time.monotonic()
    (node.root / "go").touch()
    assert node.exit(1, 2).code == 3
    assert node.agent.wait(20) == 1
    assert time.monotonic() - began < 60
    assert node.exit(0).ended_by == "sibling"
    assert first_failure(node.exits()).rank == 1  # type: ignore[union-attr]
    assert child not in node.pids()


def test_a_killed_rank_is_on_record_with_its_signal(node: Node) -> None:
    node.start_torchrun(SLEEPS)
    node.rank_start(0)
    os.kill(node.rank_start(1)["child_pid"], signal.SIGKILL)
    record = node.exit(1, 2)
    assert (record.code, record.signal, record.ended_by) == (None, "SIGKILL", None)
    assert node.agent.wait(5) == 1
    assert first_failure(node.exits()).rank == 1  # type: ignore[union-attr]
    assert not node.pids()


def test_ranks_end_and_are_on_record_when_torchrun_is_killed(node: Node) -> None:
    node.start_torchrun(SLEEPS)
    node.rank_start(0)
    node.rank_start(1)
    torchrun = next(pid for pid, line in node.pids().items() if is_torchrun(line))
    os.kill(torchrun, signal.SIGKILL)
    assert node.agent.wait(5) == 137
    assert not node.pids()
    assert [record.ended_by for record in node.exits()] == ["launcher", "launcher"]


def test_nothing_is_left_when_the_agent_is_killed(node: Node) -> None:
    node.start_torchrun(SLEEPS)
    node.rank_start(0)
    node.rank_start(1)
    os.kill(node.agent.pid, signal.SIGKILL)
    wait_for(lambda: not node.pids(), 2, "the end of everything")


def test_ranks_end_when_their_parent_is_killed(node: Node) -> None:
    node.start_torchrun(SLEEPS)
    node.rank_start(0)
    os.kill(node.rank_start(1)["pid"], signal.SIGKILL)
    assert node.agent.wait(20) == 1
    assert not node.pids()


@pytest.mark.parametrize("signals", [None, OLD_TORCH], ids=["deaf torchrun", "old torchrun"])
def test_sigterm_to_every_process_lets_the_ranks_save(node: Node, signals: str | None) -> None:
    node.start_torchrun(SAVES, signals=signals)
    node.rank_start(0)
    node.rank_start(1)
    node.signal_all(signal.SIGTERM)
    assert node.agent.wait(15) == 0
    assert [record.code for record in node.exits()] == [85, 85]
    assert "saved" in node.log("rank0")


def test_a_save_that_hangs_is_ended_before_torchrun_kills_it(node: Node) -> None:
    node.start_torchrun(SLEEPS, signals=OLD_TORCH)
    node.rank_start(0)
    node.rank_start(1)
    began = time.monotonic()
    node.signal_all(signal.SIGTERM)
    assert node.agent.wait(30) == 1
    assert 24 < time.monotonic() - began < 60
    assert {(r.signal, r.ended_by) for r in node.exits()} == {("SIGKILL", "stop")}


def test_resume_of_one_rank_does_not_tear_the_others_down(node: Node) -> None:
    node.start_torchrun(
        """
        print('up', flush=True)
        time.sleep(3 * int(os.environ["RANK"]))
        sys.exit(85)
        """
    )
    assert node.agent.wait(30) == 0
    assert [(record.code, record.ended_by) for record in node.exits()] == [(85, None), (85, None)]


def is_torchrun(line: str) -> bool:
    return "torch.distributed.run" in line and "clusterlm.node.agent" not in line
