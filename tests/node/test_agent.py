from __future__ import annotations

import os
import signal
import time

import pytest

from clusterlm.node.agent import child_environment, choose_node_rank
from clusterlm.node.files import read_json, write_json
from tests.node.conftest import Node, wait_for

SLEEPS = "print('up', flush=True); time.sleep(100)"

FAMILY = """
# a grandchild in a session of its own, one whose parent has died, and one that ignores SIGTERM
subprocess.Popen(["sleep", "100"], start_new_session=True)
subprocess.Popen(["bash", "-c", "setsid sleep 100 & exit 0"]).wait()
subprocess.Popen(["bash", "-c", "trap '' TERM; sleep 100 & wait"])
print('up', flush=True)
time.sleep(100)
"""


def test_exit_code_and_output_are_those_of_the_command(node: Node) -> None:
    agent = node.start(["bash", "-c", "echo out; echo err >&2; exit 3"])
    assert agent.wait(10) == 3
    assert sorted(node.log("node0").split()) == ["err", "out"]


def test_a_signal_becomes_128_plus_its_number(node: Node) -> None:
    assert node.start(["bash", "-c", "kill -SEGV $$"]).wait(10) == 128 + signal.SIGSEGV


def test_a_command_that_does_not_exist_is_127_and_said(node: Node) -> None:
    assert node.start(["/no/such/program"]).wait(10) == 127
    assert "cannot start /no/such/program" in node.said()
    assert node.beat()["state"] == "exited"  # type: ignore[index]


def test_heartbeat_counts_and_ends_with_the_exit_code(node: Node) -> None:
    node.start_rank(SLEEPS)
    node.rank_start(0)
    first = node.beat()
    assert first is not None
    assert (first["state"], first["exit_code"], first["node_rank"]) == ("running", None, 0)
    wait_for(lambda: (node.beat() or {})["beat"] > first["beat"], 6, "the next beat")
    os.kill(node.rank_start(0)["child_pid"], signal.SIGKILL)
    node.agent.wait(10)
    last = node.beat()
    assert last is not None
    assert (last["state"], last["exit_code"]) == ("exited", 137)


def test_abort_ends_every_descendant_within_two_seconds(node: Node) -> None:
    node.start_rank(FAMILY)
    node.rank_start(0)
    assert len(node.pids()) >= 6
    node.write_abort()
    wait_for(lambda: not node.pids(), 2, "the end of everything")
    assert node.agent.wait(2) == 137


def test_nothing_is_left_two_seconds_after_the_agent_was_killed(node: Node) -> None:
    node.start_rank(FAMILY)
    node.rank_start(0)
    os.kill(node.agent.pid, signal.SIGKILL)
    wait_for(lambda: not node.pids(), 2, "the end of everything")


def test_what_the_command_leaves_behind_is_ended(node: Node) -> None:
    agent = node.start(["bash", "-c", "setsid sleep 100 & exit 0"])
    assert agent.wait(10) == 0
    assert not node.pids()
    assert "killing what is left" in node.said()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_agent_asks_the_ranks_to_save(node: Node, signum: int) -> None:
    node.start_rank(
        """
        print('up', flush=True)
        while not os.path.exists(os.environ["CLUSTERLM_STOP_FILE"]):
            time.sleep(0.05)
        time.sleep(1)
        sys.exit(85)
        """
    )
    node.rank_start(0)
    for _ in range(3):
        os.kill(node.agent.pid, signum)
        time.sleep(0.1)
    assert node.agent.wait(10) == 0
    assert read_json(node.root / "stop.json")["reason"] == "preempted"  # type: ignore[index]
    assert node.exit(0).code == 85


def test_a_stop_file_that_is_there_keeps_its_reason(node: Node) -> None:
    node.start_rank(SLEEPS)
    node.rank_start(0)
    node.write_stop("time_limit")
    os.kill(node.agent.pid, signal.SIGTERM)
    wait_for(lambda: "stop.json is there" in node.said() or "to save" in node.said(), 3)
    assert read_json(node.root / "stop.json")["reason"] == "time_limit"  # type: ignore[index]
    wait_for(lambda: node.beat()["state"] == "stopping", 2)  # type: ignore[index]


def test_after_the_grace_a_script_gets_sigterm(node: Node) -> None:
    node.start_rank(
        """
        def leave(*_):
            print("leaving", flush=True)
            sys.exit(7)
        signal.signal(signal.SIGTERM, leave)
        print('up', flush=True)
        time.sleep(100)
        """,
        CLUSTERLM_STOP_GRACE="1",
    )
    node.rank_start(0)
    node.write_stop()
    assert node.agent.wait(5) == 7
    assert "leaving" in node.log("rank0")


def test_a_script_deaf_to_sigterm_is_killed_ten_seconds_later_and_recorded(node: Node) -> None:
    node.start_rank(SLEEPS, CLUSTERLM_STOP_GRACE="0.5")
    node.rank_start(0)
    began = time.monotonic()
    node.write_stop()
    assert node.agent.wait(16) == 137
    assert 10 < time.monotonic() - began < 40
    record = node.exit(0)
    assert (record.signal, record.ended_by) == ("SIGKILL", "stop")
    assert not node.pids()


def test_sigterm_after_a_failure_elsewhere_is_no_preemption(node: Node) -> None:
    node.start_rank(SLEEPS)
    node.rank_start(0)
    elsewhere = {"rank": 9, "local_rank": 1, "node_rank": 4, "host": "n4", "pid": 1, "started": 1.0}
    elsewhere |= {"time": 2.0, "code": 1, "signal": None}
    write_json(node.root / "exits" / "rank9.json", elsewhere)
    os.kill(node.agent.pid, signal.SIGTERM)
    assert node.agent.wait(6) == 137
    assert not (node.root / "stop.json").exists()
    assert node.exit(0).ended_by == "agent"


def test_secrets_reach_the_ranks_and_no_file(node: Node) -> None:
    secrets = node.scripts / "secrets.json"
    secrets.write_text('{"HF_TOKEN": "hf_abcdefgh"}')
    secrets.chmod(0o600)
    node.start_rank(
        """
        assert os.environ["HF_TOKEN"] == "hf_" + "abcdefgh"
        raise ValueError("401 for " + os.environ["HF_TOKEN"])
        """,
        CLUSTERLM_SECRETS_FILE=str(secrets),
    )
    assert node.agent.wait(10) == 1
    assert node.exit(0).error == "ValueError: 401 for " + "*" * len("hf_abcdefgh")
    written = [path for path in node.root.rglob("*.json") if b"abcdefgh" in path.read_bytes()]
    assert not written


def test_secrets_that_others_can_read_are_refused(node: Node) -> None:
    secrets = node.scripts / "secrets.json"
    secrets.write_text('{"HF_TOKEN": "hf_abcdefgh"}')
    secrets.chmod(0o640)
    assert node.start(["true"], CLUSTERLM_SECRETS_FILE=str(secrets)).wait(10) == 2
    assert "mode 0640" in node.said()
    assert "abcdefgh" not in node.said()
    assert node.beat()["exit_code"] == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        (None, {}, 0),
        (None, {"SLURM_NODEID": "2"}, 2),
        (None, {"CLUSTERLM_NODE_RANK": "3"}, 3),
        (None, {"SLURM_NODEID": "0", "CLUSTERLM_NODE_RANK": "3"}, 0),
        (1, {"SLURM_NODEID": "0", "CLUSTERLM_NODE_RANK": "3"}, 1),
    ],
)
def test_node_rank_is_the_option_then_the_step_then_the_environment(
    given: int | None, environ: dict[str, str], expected: int
) -> None:
    assert choose_node_rank(given, environ) == expected


def test_the_child_knows_its_node_and_its_agent() -> None:
    env = child_environment({"PATH": "/bin"}, 4, num_ranks=1)
    assert (env["CLUSTERLM_NODE_RANK"], env["CLUSTERLM_AGENT_PID"]) == ("4", str(os.getpid()))


def test_no_command_is_a_mistake(node: Node) -> None:
    assert node.start([]).wait(10) == 2
