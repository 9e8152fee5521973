"""Looking at runs on a real Slurm: cheap, blind when it must be, and without harm."""

from __future__ import annotations

import signal
import time

from tests.slurm.conftest import User, counting, wait_until


def test_watchers_of_a_healthy_run_cost_the_controller_next_to_nothing(user: User) -> None:
    user.submits(counting("cheap", 400))
    user.wait_for_step("cheap", 3)
    before = user.bed.sdiag_rpcs()
    watchers = [user.starts("status", "cheap", "--watch") for _ in range(3)]
    watchers.append(user.starts("logs", "cheap", "-f"))
    began = time.monotonic()
    time.sleep(25)
    for watcher in watchers:
        assert watcher.poll() is None
        watcher.send_signal(signal.SIGINT)
    for watcher in watchers:
        text, _ = watcher.communicate(timeout=20)
        assert watcher.returncode == 130
        assert "Traceback" not in text
        assert "cancel" in text, "the screen says how to end the run itself"
    spent = time.monotonic() - began
    after = user.bed.sdiag_rpcs()
    calls = sum(
        after.get(name, 0) - before.get(name, 0) for name in after if name.startswith("REQUEST_JOB")
    )
    # 30 an hour for all of them together; the records of the run itself are fresh
    assert calls <= 1 + spent * 30 / 3600, after
    assert user.status("cheap")["state"] == "TRAINING"
    assert user.types("cancel", "cheap", "--now").returncode == 0


def test_a_frozen_controller_harms_nobody(user: User) -> None:
    user.submits(counting("frozen", 150))
    user.wait_for_step("frozen", 3)
    user.bed.freeze_controller()
    try:
        began = time.monotonic()
        row = user.status("frozen")
        assert row["state"] == "TRAINING"
        assert row["source"] == "supervisor"
        assert time.monotonic() - began < 30, "fresh records need no scheduler"
        time.sleep(5)
    finally:
        user.bed.thaw_controller()
    assert user.wait_for_end("frozen")["state"] == "DONE"
    assert user.events("frozen", "attempt_ended")[0]["attempt"] == 1
    assert len(user.events("frozen", "attempt_started")) == 1


def test_without_any_answer_a_waiting_run_is_unknown_and_never_failed(user: User) -> None:
    for node in ("node1", "node2", "node3", "node4"):
        user.bed.drain(node)
    user.submits(counting("waits", 5))
    wait_until(lambda: user.status("waits")["state"] == "PENDING", 20, "PENDING", user)
    user.bed.stop_controller()
    user.bed.stop_dbd()
    try:
        # older answers are shown with their age; once they are too old the state is unknown
        done = user.types("status", "waits", timeout=90)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "UNKNOWN" in done.stdout or "PENDING" in done.stdout
        assert "FAILED" not in done.stdout
        assert "STOPPED" not in done.stdout
        why = user.types("why", "waits", timeout=90)
        assert why.returncode == 0
    finally:
        user.bed.start_dbd()
        user.bed.start_controller()
    wait_until(lambda: user.status("waits")["state"] == "PENDING", 30, "PENDING again", user)
    for node in ("node1", "node2", "node3", "node4"):
        # unchecked: a controller that has just come back may have the node up already
        user.bed.run(["scontrol", "update", f"nodename={node}", "state=resume"])
    assert user.wait_for_end("waits")["state"] == "DONE"


def test_without_accounting_squeue_is_enough(user: User) -> None:
    user.submits(counting("nodb", 60))
    user.wait_for_step("nodb", 2)
    user.bed.stop_dbd()
    try:
        assert user.status("nodb")["state"] == "TRAINING"
        assert user.types("why", "nodb").returncode == 0
        assert user.wait_for_end("nodb")["state"] == "DONE"
        assert user.status("nodb")["state"] == "DONE"
    finally:
        user.bed.start_dbd()


def test_submitting_to_a_controller_that_is_away_leaves_nothing(user: User) -> None:
    import yaml

    file = user.home / "job.yaml"
    file.write_text(yaml.safe_dump(counting("nobody", 5)))
    user.bed.stop_controller()
    try:
        done = user.types("submit", str(file), timeout=120)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "controller" in done.stderr
    finally:
        user.bed.start_controller()
    runs = user.home / "runs"
    assert not runs.exists() or not [p for p in runs.iterdir() if p.is_dir()]


def test_resume_takes_a_mended_yaml(user: User) -> None:
    import yaml

    job = counting("mend", 60, "--fail-rank", "0", "--fail-at", "15", "--code", "4")
    job["recovery"]["max_attempts_without_progress"] = 1
    user.submits(job)
    assert user.wait_for_end("mend")["state"] == "STOPPED"
    mended = user.home / "mended.yaml"
    mended.write_text(yaml.safe_dump({**job, "train": counting("mend", 60)["train"]}))
    done = user.types("resume", "mend", "--job", str(mended))
    assert done.returncode == 0, done.stderr
    user.wait_for_event("mend", "ended", count=2, timeout=90)
    assert user.status("mend")["state"] == "DONE"
    # it went on where the failed one had saved
    assert user.events("mend", "attempt_started")[-1]["resume_step"] == 10
    assert user.types("resume", "mend").returncode == 2
