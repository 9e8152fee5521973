"""What a user does, on every version: submit, look, cancel, requeue, lose a node, be blind."""

from __future__ import annotations

import pytest

from clusterlm.spec.probe import Probe
from tests.bed.versions import own_version
from tests.slurm.conftest import User, counting, wait_until
from tests.slurm.test_chain import tiny_job


def _version(user: User) -> str:
    return user.bed.config.slurm.version if user.bed.config.slurm else own_version()


def test_the_bed_is_the_version_that_it_says(user: User) -> None:
    for program in ("sbatch", "squeue", "srun", "scontrol"):
        assert _version(user) in user.bed.run([program, "--version"]).stdout


def test_a_chain_of_two_jobs_becomes_a_model(user: User) -> None:
    sent = user.submits(tiny_job(user, "chain"))
    assert set(sent["job_ids"]) == {"preprocess", "train"}
    assert user.wait_for_end("chain", timeout=180)["state"] == "DONE", user.types("why", "chain")
    assert (user.run("chain").model / "model.safetensors").stat().st_size > 0
    assert user.status("chain")["state"] == "DONE"
    logs = user.types("logs", "chain", "--tail", "400").stdout
    assert "rank 0" in logs
    assert "rank 1" in logs


def test_a_failed_data_phase_ends_the_chain(user: User) -> None:
    job = tiny_job(user, "bad")
    sources = user.home / "vanishes.jsonl"
    sources.write_text('{"text": "some words"}\n' * 50)
    job["data"]["sources"] = [{"kind": "text", "path": str(sources)}]
    for node in user.bed.nodes:
        user.bed.drain(node)
    user.submits(job)
    sources.unlink()
    for node in user.bed.nodes:
        user.bed.resume(node)
    assert user.wait_for_end("bad", timeout=120)["state"] == "STOPPED"
    # the training behind it is gone from the queue, and is not shown as waiting
    wait_until(lambda: not user.bed.run(["squeue", "-h"]).stdout.strip(), 60, "empty queue", user)
    assert user.status("bad")["state"] == "STOPPED"


def test_a_waiting_run_says_what_it_waits_for_and_is_cancelled(user: User) -> None:
    for node in user.bed.nodes:
        user.bed.drain(node)
    user.submits(counting("waits", 5))
    wait_until(lambda: user.status("waits")["state"] == "PENDING", 20, "PENDING", user)
    why = user.types("why", "waits").stdout
    assert "sinfo -R" in why, "what to look at"
    assert user.types("cancel", "waits").returncode == 0
    assert user.status("waits")["state"] == "CANCELLED"
    assert not user.bed.run(["squeue", "-h", "-t", "PD"]).stdout.strip()


def test_a_running_one_saves_when_it_is_cancelled_and_resumes(user: User) -> None:
    user.submits(counting("stop", 60, "--save-every", "1000"))
    user.wait_for_step("stop", 5)
    assert user.types("cancel", "stop").returncode == 0
    assert user.wait_for_end("stop")["state"] == "CANCELLED"
    assert user.types("resume", "stop").returncode == 0
    second = user.wait_for_event("stop", "attempt_started", count=2)
    assert second["resume_step"] >= 5
    user.wait_for_event("stop", "ended", count=2)
    assert user.status("stop")["state"] == "DONE"


def test_a_requeued_one_keeps_its_id_and_goes_on(user: User) -> None:
    ids = user.submits(counting("again", 60, "--save-every", "1000"))["job_ids"]
    user.wait_for_step("again", 5)
    user.bed.run(["scontrol", "requeue", ids["train"]], check=True)
    second = user.wait_for_event("again", "attempt_started", count=2, timeout=90)
    assert second["resume_step"] >= 5
    assert user.wait_for_end("again")["state"] == "DONE"
    assert user.status("again")["job_ids"] == [ids["train"]]


def test_a_lost_node_is_replaced_by_a_spare(user: User) -> None:
    user.submits(counting("lost", 80, spares=1))
    user.wait_for_step("lost", 12)
    user.bed.link_down("node2")
    second = user.wait_for_event("lost", "attempt_started", count=2, timeout=90)
    assert second["nodes"] == ["node1", "node3"]
    assert second["resume_step"] >= 10
    assert user.wait_for_end("lost")["state"] == "DONE"


def test_without_a_spare_a_lost_node_means_the_queue(user: User) -> None:
    user.submits(counting("queue", 80))
    user.wait_for_step("queue", 12)
    user.bed.link_down("node2")
    second = user.wait_for_event("queue", "attempt_started", count=2, timeout=120)
    assert "node2" not in second["nodes"]
    assert user.wait_for_end("queue")["state"] == "DONE"


def test_a_controller_that_is_away_changes_no_state(user: User) -> None:
    user.submits(counting("blind", 100))
    user.wait_for_step("blind", 3)
    user.bed.stop_controller()
    try:
        assert user.status("blind")["state"] == "TRAINING"
        assert user.types("why", "blind").returncode == 0
        # its end is seen by its own records
        assert user.wait_for_end("blind")["state"] == "DONE"
        assert user.status("blind")["state"] == "DONE"
    finally:
        user.bed.start_controller()
    assert user.status("blind")["state"] == "DONE"


def test_a_job_that_the_controller_has_forgotten_is_known_by_its_records(user: User) -> None:
    ids = user.submits(counting("old", 5))["job_ids"]
    assert user.wait_for_end("old")["state"] == "DONE"
    user.bed.purge_job(ids["train"])
    assert user.status("old")["state"] == "DONE"
    assert user.types("why", "old").returncode == 0


def test_doctor_looks_at_nodes_and_finds_nothing_against_them(user: User) -> None:
    env = {"CLUSTERLM_CONFIG": str(user.home / "clusters.yaml")}
    env["CLUSTERLM_IMAGES_DIR"] = str(user.home / "images")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        done = user.types("doctor", "--json")
    assert done.returncode == 0, done.stderr
    probe = Probe.model_validate_json(done.stdout)
    assert probe.slurm_version is not None
    assert probe.slurm_version.startswith(_version(user))
    assert [node.host for node in probe.nodes] == ["node1", "node2"], probe.notes
    assert all(folder.visible for folder in probe.folders)
    assert probe.accounting is user.bed.config.accounting
    assert probe.gpu_requests_accepted == ("gres", "gpus-per-node")
