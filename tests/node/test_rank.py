from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from clusterlm.node.files import read_json, write_json
from tests.node.conftest import Node


def run_rank(node: Node, text: str, **env: str) -> int:
    argv = [sys.executable, "-m", "clusterlm.node.rank", "--", *node.script(text)]
    return subprocess.run(argv, env={**node.env, **env}, timeout=30).returncode


@pytest.mark.parametrize(
    ("text", "returned", "code", "name"),
    [
        ("", 0, 0, None),
        ("sys.exit(3)", 3, 3, None),
        ("sys.exit(85)", 0, 85, None),
        ("os.kill(os.getpid(), 9)", 137, None, "SIGKILL"),
        ("import ctypes; ctypes.string_at(0)", 139, None, "SIGSEGV"),
    ],
)
def test_how_a_script_ends_is_recorded_and_passed_on(
    node: Node, text: str, returned: int, code: int | None, name: str | None
) -> None:
    assert run_rank(node, text) == returned
    record = node.exit(0)
    assert (record.code, record.signal, record.ended_by) == (code, name, None)
    assert (record.error is None) == (returned == 0)


def test_the_record_tells_who_when_and_why(node: Node) -> None:
    before = time.time()
    env = {"RANK": "11", "LOCAL_RANK": "3", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
    assert run_rank(node, "raise ValueError('bad shape')", SLURMD_NODENAME="n7", **env) == 1
    record = node.exit(11)
    assert (record.rank, record.local_rank, record.node_rank, record.host) == (11, 3, 1, "n7")
    assert before <= record.started <= record.time <= time.time()
    assert record.error == "ValueError: bad shape"
    assert record.traceback is not None
    assert record.traceback.startswith("Traceback")
    assert (node.root / record.log).exists()


def test_a_crash_in_c_shows_its_python_stack(node: Node) -> None:
    run_rank(node, "import ctypes; ctypes.string_at(0)")
    record = node.exit(0)
    assert record.error == "Fatal Python error: Segmentation fault"
    assert "script.py" in str(record.traceback)


def test_a_script_that_cannot_be_started_is_127(node: Node) -> None:
    argv = [sys.executable, "-m", "clusterlm.node.rank", "/no/such/program"]
    assert subprocess.run(argv, env=node.env).returncode == 127
    assert "No such file" in str(node.exit(0).error)


def test_the_log_is_headed_and_appended_and_hides_secrets(node: Node) -> None:
    secret = {"HF_TOKEN": "hf_abcdefgh", "CLUSTERLM_SECRET_NAMES": "HF_TOKEN"}
    argv = [sys.executable, "-m", "clusterlm.node.rank", "--", "echo", "x=hf_abcdefgh"]
    argv += ["--api-key", "k1", "--tokenizer", "t5"]
    for _ in range(2):
        subprocess.run(argv, env={**node.env, **secret}, check=True)
    heads = [line for line in node.log("rank0").splitlines() if line.startswith("=== ")]
    assert len(heads) == 2
    assert heads[0].endswith("attempt 1: echo x=*** --api-key *** --tokenizer t5")


def test_only_the_newest_start_in_a_log_explains_an_end(node: Node) -> None:
    run_rank(node, "raise ValueError('of the first start')")
    run_rank(node, "sys.exit('of the second')")
    assert node.exit(0).error == "of the second"


def test_output_of_a_killed_script_is_not_lost(node: Node) -> None:
    run_rank(node, "print('step 7'); os.kill(os.getpid(), 9)")
    assert "step 7" in node.log("rank0")


def test_a_rank_of_an_older_attempt_does_not_start(node: Node) -> None:
    write_json(node.root.parents[1] / "LEASE", {"attempt": 2, "job_id": "9", "time": 0.0})
    assert run_rank(node, "print('never')") == 75
    record = node.exit(0)
    assert (record.code, record.ended_by) == (75, "fence")
    assert node.log("rank0") == ""


def test_the_start_is_announced_with_the_pid_of_the_script(node: Node) -> None:
    assert run_rank(node, "print(os.getpid(), signal.getsignal(15) is signal.SIG_IGN)") == 0
    child_pid = read_json(node.root / "heartbeats" / "rank0.json")["child_pid"]  # type: ignore[index]
    assert f"\n{child_pid} True\n" in node.log("rank0")


def test_without_an_attempt_it_says_how_to_call_it() -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLUSTERLM")}
    argv = [sys.executable, "-m", "clusterlm.node.rank", "true"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stdout
