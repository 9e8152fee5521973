"""Address, port, environment and step of an attempt."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.supervise import environment, wiring
from clusterlm.supervise.step import Step, step_argv


@given(st.integers(0, 10**9), st.integers(1, 10**4))
def test_a_port_lies_outside_the_ephemeral_range(job: int, attempt: int) -> None:
    port = wiring.free_port("127.0.0.1", str(job), attempt, is_free=lambda *_: True)
    assert 1024 < port < 32768


@given(st.integers(1, 10**6))
def test_attempts_of_a_job_do_not_share_a_port(job: int) -> None:
    ports = {
        wiring.free_port("127.0.0.1", str(job), attempt, is_free=lambda *_: True)
        for attempt in range(1, 200)
    }
    assert len(ports) == 199


def test_a_taken_port_is_passed_over() -> None:
    first = wiring.free_port("127.0.0.1", "7", 1, is_free=wiring.can_bind)
    with socket.create_server(("127.0.0.1", first)):
        assert not wiring.can_bind("127.0.0.1", first)
        assert wiring.free_port("127.0.0.1", "7", 1, is_free=wiring.can_bind) != first


def test_no_free_port_is_said_with_the_address() -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        wiring.free_port("127.0.0.1", "7", 1, is_free=lambda *_: False)


def test_one_node_meets_on_loopback_and_two_never_do() -> None:
    assert wiring.head_address(["anything"]) == "127.0.0.1"
    with pytest.raises(OSError, match="loopback"):
        wiring.head_address(["localhost", "localhost"])


def test_a_submission_passes_on_neither_secrets_nor_the_allocation_one_sits_in() -> None:
    shell = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C",
        "SBATCH_ACCOUNT": "a",
        "SLURM_CONF": "/etc/slurm/slurm.conf",
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "64",
        "HF_TOKEN": "secret",
        "PYTHONPATH": "/mine",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    passed = environment.for_submission(shell)
    assert set(passed) == {"PATH", "HOME", "LC_ALL", "SBATCH_ACCOUNT", "SLURM_CONF"}


def test_a_step_sees_its_job_and_the_attempts_own_variables() -> None:
    batch = {"PATH": "/bin", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1", "SECRET": "x"}
    seen = environment.for_step(batch, {"CLUSTERLM_ATTEMPT": "2"})
    assert set(seen) == {"PATH", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "CLUSTERLM_ATTEMPT"}


def test_the_environment_comes_back_after_an_error() -> None:
    before = dict(os.environ)
    with contextlib.suppress(RuntimeError), environment.replaced(os.environ, {"ONLY": "this"}):
        assert dict(os.environ) == {"ONLY": "this"}
        raise RuntimeError
    assert dict(os.environ) == before


def test_a_step_names_its_nodes_one_by_one() -> None:
    argv = step_argv(Path("/run/torchrun.sh"), ["node1", "node3"], is_slurm=True)
    assert "--nodelist=node1,node3" in argv
    assert "--nodes=2" in argv
    assert argv[-2:] == ["bash", "/run/torchrun.sh"]
    assert step_argv(Path("/run/torchrun.sh"), ["here"], is_slurm=False)[0] == "bash"


def test_a_step_ends_at_once_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! >> {pids}; trap '' TERM; echo $$ >> {pids}; wait; sleep 60"
    step = Step(["bash", "-c", script], {"PATH": os.environ["PATH"]}, tmp_path / "step.log")
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert step.wait(0.05) is None
    step.end_now()
    assert step.poll() in (137, 143)
    for pid in pids.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"
