"""Address, port, environment and step of an attempt."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.paths import Phase, RunPaths
from clusterlm.supervise import environment, wiring
from clusterlm.supervise.allocation import LOCAL_GPUS, LOCAL_NODES, read_allocation
from clusterlm.supervise.step import Inside, Step, start_step, step_argv


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


def test_a_step_of_pyxis_gets_its_options_and_nothing_of_the_host() -> None:
    inside = Inside(pyxis=("--container-image=/x.sqsh", "--no-container-mount-home"))
    argv = step_argv(
        Path("/run/torchrun.sh"), ["node1"], is_slurm=True, inside=inside, passed=["A", "SLURM_X"]
    )
    assert argv[-5:-2] == [*inside.pyxis, "--export=A,SLURM_X"]
    assert argv[-2:] == ["/bin/bash", "/run/torchrun.sh"]
    assert "--export=ALL" not in argv


@pytest.mark.parametrize("is_slurm", [True, False])
def test_other_runtimes_start_the_script_by_another(is_slurm: bool) -> None:
    inside = Inside(script=Path("/run/container.sh"))
    argv = step_argv(Path("/run/torchrun.sh"), ["node1"], is_slurm=is_slurm, inside=inside)
    assert argv[-3:] == ["bash", "/run/container.sh", "/run/torchrun.sh"]


def test_a_container_gets_the_names_of_the_attempt_and_of_slurm_alone() -> None:
    environ = {"PATH": "/bin", "HOME": "/me", "SLURM_JOB_ID": "7", "CLUSTERLM_ATTEMPT": "1"}
    assert environment.for_container(environ) == ["CLUSTERLM_ATTEMPT", "SLURM_JOB_ID"]


def test_a_machine_may_stand_for_several_nodes(tmp_path: Path) -> None:
    allocation = read_allocation({LOCAL_NODES: "3"})
    assert len(set(allocation.hosts)) == 3
    assert allocation.hosts == (allocation.head, f"{allocation.head}-2", f"{allocation.head}-3")
    assert len(read_allocation({}).hosts) == 1


@pytest.mark.parametrize(
    ("phase", "gpus", "shares"),
    [
        ("train", "0,1,2,3", ["0,1", "2,3"]),
        ("train", "", ["", ""]),
        ("preprocess", "0,1", [""]),
        ("train", None, [None, None]),
    ],
)
def test_local_nodes_are_numbered_and_share_the_gpus(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    phase: Phase,
    gpus: str | None,
    shares: list[str | None],
) -> None:
    run = RunPaths(tmp_path)
    script = 'echo "${CLUSTERLM_NODE_RANK-none} ${CUDA_VISIBLE_DEVICES-unset}" >> seen'
    run.node_script(phase).write_text(f"cd {tmp_path}; {script}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(LOCAL_GPUS, raising=False)
    if gpus is not None:
        monkeypatch.setenv(LOCAL_GPUS, gpus)
    nodes = ["desk", "desk-2"][: len(shares)]
    step = start_step(run, phase, nodes, tmp_path / "step.log", own={}, is_slurm=False)
    assert step.wait(10) == 0
    ranks = ["0", "1"] if len(shares) > 1 else ["none"]
    seen = sorted((tmp_path / "seen").read_text().splitlines())
    assert seen == [
        f"{r} {'unset' if s is None else s}" for r, s in zip(ranks, shares, strict=True)
    ]


def test_a_local_node_that_fails_ends_the_others_and_its_code_is_the_steps(tmp_path: Path) -> None:
    script = '[ "$N" = 1 ] && exit 78; sleep 60'
    environs = [{"PATH": os.environ["PATH"], "N": str(n)} for n in range(3)]
    step = Step(["bash", "-c", script], environs, tmp_path / "step.log")
    until = time.monotonic() + 10
    while step.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert step.poll() == 78


def test_a_step_ends_at_once_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! >> {pids}; trap '' TERM; echo $$ >> {pids}; wait; sleep 60"
    step = Step(["bash", "-c", script], [{"PATH": os.environ["PATH"]}], tmp_path / "step.log")
    while not pids.exists() or len(pids.read_text().split()) < 2:
        assert step.wait(0.05) is None
    step.end_now()
    assert step.poll() in (137, 143)
    for pid in pids.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"
