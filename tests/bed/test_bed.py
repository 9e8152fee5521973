"""The bed is a real cluster of real hosts, and every fault can be undone."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bed.config import MAX_BEDS, BedConfig
from tests.bed.fixture import skip_without_slurm
from tests.bed.network import NETNS
from tests.bed.slurm import BedInUse, SlurmBed
from tests.bed.waiting import BedError, wait_until

# Listens on the node's own address, and says on which.
LISTEN = """
import socket, sys
with socket.create_server((socket.gethostname(), 29400)) as server:
    print("listening", flush=True)
    link, (caller, _) = server.accept()
    print("called by", caller)
"""


@pytest.fixture
def free_bed() -> SlurmBed:
    """A second bed beside the session's, not started."""
    skip_without_slurm()
    for index in reversed(range(MAX_BEDS)):
        bed = SlurmBed(BedConfig(index, accounting=False, num_nodes=2))
        try:
            bed.clear_remains()
        except BedInUse:
            continue
        bed.release()
        return bed
    pytest.fail("all beds are in use")


def submit(bed: SlurmBed, folder: Path, script: str, *options: str) -> str:
    """Submit a script; its output goes to folder/log. Returns the job id."""
    text = f"#!/bin/bash\n{script}\n"
    argv = ["sbatch", "--parsable", f"--output={folder}/log", "--open-mode=append", *options]
    return bed.run(argv, cwd=folder, stdin=text, check=True).stdout.strip()


def wait_for_log(folder: Path, words: str, *, timeout_s: float = 20) -> None:
    log = folder / "log"
    wait_until(
        lambda: log.exists() and words in log.read_text(),
        timeout_s=timeout_s,
        what=f"the log says {words!r}",
    )


def test_each_of_four_nodes_runs_a_task_under_its_own_host_name(slurm):
    done = slurm.run(["srun", "-N4", "hostname"])
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["node1", "node2", "node3", "node4"]


def test_nodes_know_each_other_by_name_and_not_the_machine(slurm):
    ask = "import socket, sys; print(*[socket.gethostbyname(name) for name in sys.argv[1:]])"
    addresses = [slurm.config.address(node) for node in slurm.nodes]
    for node in slurm.nodes:
        done = slurm.run_on(node, [sys.executable, "-c", ask, *slurm.nodes])
        assert done.stdout.split() == addresses, done.stderr
    assert "node1" not in Path("/etc/hosts").read_text()


def test_nodes_reach_each_other_by_tcp(slurm, tmp_path):
    (tmp_path / "listen.py").write_text(LISTEN)
    submit(slurm, tmp_path, f"{sys.executable} listen.py", "--nodelist=node1")
    wait_for_log(tmp_path, "listening")
    call = "import socket; socket.create_connection(('node1', 29400), 5)"
    done = slurm.run_on("node3", [sys.executable, "-c", call])
    assert done.returncode == 0, done.stderr
    wait_for_log(tmp_path, f"called by {slurm.config.address('node3')}")


def test_folders_are_shared_but_for_the_node_local_ones(slurm, tmp_path):
    slurm.run_on("node1", ["touch", "/dev/shm/only-here", f"{tmp_path}/everywhere"])
    listed = slurm.run_on("node2", ["ls", "/dev/shm", str(tmp_path)]).stdout
    assert "everywhere" in listed
    assert "only-here" not in listed
    assert not Path("/dev/shm/only-here").exists()


def test_ended_job_has_a_row_in_sacct_with_its_gpus(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, "exit 3", "--gres=gpu:2")
    assert slurm.wait_for_state(job_id, "FAILED") == "FAILED"
    argv = ["sacct", "-nPXj", job_id, "-o", "State,ExitCode,AllocTRES"]
    # slurmctld sends the end to slurmdbd some time after it shows it
    wait_until(
        lambda: slurm.run(argv).stdout.startswith("FAILED|3:0|"),
        timeout_s=10,
        what="sacct shows the end",
    )
    assert "gres/gpu=2" in slurm.run(argv).stdout


def test_jobs_see_the_gpus_they_asked_for(slurm):
    argv = ["srun", "-N2", "--gres=gpu:8", "printenv", "CUDA_VISIBLE_DEVICES"]
    assert slurm.run(argv).stdout.split() == ["0,1,2,3,4,5,6,7"] * 2


def test_job_with_a_bare_environment_finds_its_cluster(slurm, tmp_path):
    # --export=NONE goes on to srun by SLURM_EXPORT_ENV: without ALL the tasks have no PATH
    script = "unset SLURM_CONF; srun -N2 --export=ALL hostname && scontrol ping"
    job_id = submit(slurm, tmp_path, script, "-N2", "--export=NONE")
    slurm.wait_for_state(job_id, "COMPLETED")
    assert "is UP" in (tmp_path / "log").read_text()


def test_signal_before_the_time_limit_reaches_the_script(slurm, tmp_path):
    script = "trap 'echo got USR2; exit' USR2\nsleep 90 & wait"
    # The signal may come a minute early, so for a limit of one minute it comes at once.
    submit(slurm, tmp_path, script, "--time=1", "--signal=B:USR2@50")
    wait_for_log(tmp_path, "got USR2", timeout_s=40)


def test_requeued_job_starts_again_when_released(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, 'echo "run ${SLURM_RESTART_COUNT:-0}"; sleep 60')
    wait_for_log(tmp_path, "run 0")
    slurm.run(["scontrol", "requeue", job_id], check=True)
    slurm.release_requeued(job_id)
    wait_for_log(tmp_path, "run 1")
    assert slurm.job(job_id)["Restarts"] == "1"


def test_requeued_job_starts_again_by_itself_after_the_delay_of_the_config(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, 'echo "run ${SLURM_RESTART_COUNT:-0}"; sleep 60')
    wait_for_log(tmp_path, "run 0")
    slurm.run(["scontrol", "requeue", job_id], check=True)
    began = time.monotonic()
    wait_for_log(tmp_path, "run 1", timeout_s=40)
    assert time.monotonic() - began > slurm.config.requeue_delay_s - 2


def test_ended_job_can_be_purged(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, "true")
    slurm.wait_for_state(job_id, "COMPLETED")
    slurm.purge_job(job_id)
    asked = slurm.run(["squeue", "-j", job_id])
    assert (asked.returncode, slurm.job(job_id)) == (1, {})
    assert "Invalid job id specified" in asked.stderr
    assert "MinJobAge=300\n" in slurm.config.slurm_conf.read_text()


def test_node_without_a_link_falls_silent_goes_down_and_comes_back(slurm, tmp_path):
    script = "srun bash -c 'echo started; sleep 300'"
    job_id = submit(slurm, tmp_path, script, "--nodelist=node[1-2]")
    wait_for_log(tmp_path, "started\nstarted")
    slurm.link_down("node2")
    wait_until(lambda: slurm.node_states()["node2"] == "down*", timeout_s=60, what="node2 is down*")
    assert slurm.job(job_id)["JobState"] in {"COMPLETING", "PENDING", "NODE_FAIL"}
    slurm.wait_idle()
    assert slurm.run(["srun", "-w", "node2", "hostname"]).stdout == "node2\n"


def test_frozen_controller_answers_again_when_thawed(slurm):
    slurm.freeze_controller()
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.run(["squeue"], timeout=1)
    slurm.thaw_controller()
    assert slurm.run(["squeue"]).returncode == 0


def test_job_outlives_its_controller(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, "sleep 2; echo survived; sleep 60")
    slurm.wait_for_state(job_id, "RUNNING")
    slurm.stop_controller()
    wait_for_log(tmp_path, "survived")
    slurm.start_controller()
    assert slurm.job(job_id)["JobState"] == "RUNNING"


def test_sacct_fails_without_slurmdbd_and_hangs_with_a_frozen_one(slurm):
    slurm.freeze_dbd()
    with pytest.raises(subprocess.TimeoutExpired):
        slurm.run(["sacct"], timeout=1)
    slurm.thaw_dbd()
    slurm.stop_dbd()
    assert "Connection refused" in slurm.run(["sacct"]).stderr
    slurm.start_dbd()
    assert slurm.run(["sacct"]).returncode == 0


def test_processes_of_one_node_can_be_killed(slurm, tmp_path):
    job_id = submit(slurm, tmp_path, "srun -K sleep 4711", "--nodelist=node[1-2]")
    slurm.wait_for_state(job_id, "RUNNING")
    wait_until(
        lambda: bool(slurm.kill_node_processes("node2", "/sleep 4711$")),
        timeout_s=10,
        what="the task runs",
    )
    assert slurm.wait_for_state(job_id, "FAILED") == "FAILED"


def test_requests_are_counted_without_the_counting(slurm):
    def count(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
        return {name: after[name] - before.get(name, 0) for name in after}

    before = slurm.sdiag_rpcs(), slurm.dbd_rpcs()
    slurm.run(["squeue"])
    slurm.run(["sacct"])
    asked = count(before[0], slurm.sdiag_rpcs())
    assert asked.pop("REQUEST_JOB_INFO") == 1
    assert count(before[1], slurm.dbd_rpcs())["DBD_GET_JOBS_COND"] == 1
    assert "REQUEST_STATS_INFO" not in asked


def test_every_fault_at_once_is_healed(slurm, tmp_path):
    submit(slurm, tmp_path, "trap '' TERM; srun sleep 4711 & wait; wait", "-N4")
    slurm.drain("node3")
    slurm.link_down("node4")
    slurm.slurmd["node1"].stop()
    slurm.freeze_dbd()
    slurm.stop_controller()
    slurm.wait_idle()
    assert set(slurm.node_states().values()) == {"idle"}
    assert slurm.run(["squeue", "-h"]).stdout == ""


def test_idle_bed_is_idle_at_once(slurm):
    began = time.monotonic()
    slurm.wait_idle()
    assert time.monotonic() - began < 30


def test_two_beds_run_side_by_side_one_of_them_without_accounting(slurm, free_bed):
    with free_bed:
        assert free_bed.run(["srun", "-N2", "hostname"]).stdout.count("node") == 2
        assert "storage is disabled" in free_bed.run(["sacct"]).stderr
        assert slurm.run(["srun", "-N4", "hostname"]).stdout.count("node") == 4
    assert not free_bed.config.work.exists()
    assert not list(NETNS.glob(f"{free_bed.config.name}-*"))


def test_bed_of_another_session_is_not_touched(slurm):
    with pytest.raises(BedInUse):
        SlurmBed(slurm.config).start()
    assert slurm.run(["squeue"]).returncode == 0


def test_bed_of_a_killed_session_is_cleared_by_the_next(free_bed):
    config = free_bed.config
    code = (
        "import os, sys; from tests.bed.slurm import *;"
        f"SlurmBed(BedConfig({config.index}, accounting=False, num_nodes=2)).start();"
        "os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True)
    assert ended.returncode == -9, ended.stderr.decode()
    left = free_bed.slurmctld.pid
    assert left
    with free_bed:
        assert free_bed.slurmctld.pid != left
        assert free_bed.run(["srun", "hostname"]).returncode == 0


def test_kept_bed_is_up_until_it_is_taken_down(free_bed):
    index = ["--index", str(free_bed.config.index)]
    root = Path(__file__).parents[2]

    def ask(command: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "tests.bed", command, *index, "--no-accounting"]
        return subprocess.run(argv, cwd=root, capture_output=True, text=True)

    assert ask("up").stdout == f"export SLURM_CONF={free_bed.config.slurm_conf}\n"
    with pytest.raises(BedInUse):
        free_bed.start()
    assert free_bed.run(["srun", "hostname"]).returncode == 0
    assert ask("down").returncode == 0
    assert not free_bed.config.work.exists()


def test_work_folder_that_somebody_else_laid_is_refused(free_bed):
    free_bed.config.work.symlink_to("/nonexistent")
    try:
        with pytest.raises(BedError, match="is not root's"):
            free_bed.start()
    finally:
        free_bed.config.work.unlink()


def test_environment_of_an_outer_job_does_not_leak(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    assert not {"SLURM_JOB_ID", "SBATCH_PARTITION"} & set(slurm.env())
    assert os.environ["SLURM_JOB_ID"] == "4711"


def test_machine_without_root_is_skipped_with_a_reason(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("CLUSTERLM_REQUIRE_SLURM", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        skip_without_slurm()


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("CLUSTERLM_REQUIRE_SLURM", "1")])
def test_where_slurm_is_demanded_its_lack_is_a_failure(monkeypatch, name, value):
    monkeypatch.setattr("shutil.which", lambda program, path: None)
    monkeypatch.setenv(name, value)
    lack = r"lacks slurmctld, .* run tests/bed/install\.sh"
    with pytest.raises(pytest.fail.Exception, match=lack):
        skip_without_slurm()
