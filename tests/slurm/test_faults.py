"""What breaks at night, on a real Slurm: crash, kill, lost node, time limit, requeue, scancel."""

from __future__ import annotations

import signal
import time

from tests.slurm.conftest import User, counting, wait_until


def test_a_failing_rank_is_told_within_two_seconds(user: User) -> None:
    words = ["--alone", "--pace", "0.5", "--fail-rank", "1", "--fail-at", "6", "--code", "3"]
    job = counting("crash", 400, *words)
    job["recovery"]["max_attempts_without_progress"] = 1
    user.submits(job)
    follower = user.starts("logs", "crash", "-f")
    try:
        failed = user.wait_for_event("crash", "rank_failed")
        record = user.run("crash").attempt("train", 1).rank_exit(1)
        # the supervisor knew at once ...
        assert failed["time"] - record.stat().st_mtime < 2.0
        assert (failed["rank"], failed["host"], failed["code"]) == (1, "node2", 3)
        # ... and so does everybody who looks
        row = user.status("crash")
        assert (row["rank"], row["host"]) == (1, "node2")
        assert "gives up on purpose" in row["evidence"]
        assert "3" in row["evidence"]
        end = user.wait_for_end("crash")
        assert (end["state"], end["cause"], end["code"]) == ("STOPPED", "RANK_FAILED", 3)
        text, _ = follower.communicate(timeout=20)
        assert "gives up on purpose" in text
    finally:
        follower.kill()
    why = user.types("why", "crash")
    assert "rank 1" in why.stdout
    assert "node2" in why.stdout
    assert "exit" in why.stdout
    assert user.types("status", "crash").stdout.count("STOPPED") == 1


def test_submit_and_watch_exits_one_when_the_run_failed(user: User) -> None:
    job = counting("watched", 50, "--fail-rank", "0", "--fail-at", "3", "--code", "7")
    job["recovery"]["max_attempts_without_progress"] = 1
    file = user.home / "job.yaml"
    import yaml

    file.write_text(yaml.safe_dump(job))
    done = user.types("submit", str(file), "--watch")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "rank 0" in done.stdout


def test_a_killed_rank_is_retried_from_the_newest_checkpoint(user: User) -> None:
    user.submits(counting("killed", 60))
    user.wait_for_step("killed", 15)
    # the rank itself, not one of its parents, whose command lines end alike
    pids = user.bed.kill_node_processes("node2", r"^\S*python\S* \S*counting\.py 60$")
    assert pids
    assert user.wait_for_end("killed")["state"] == "DONE"
    ended = user.events("killed", "attempt_ended")
    assert [e["cause"] for e in ended] == ["RANK_KILLED", "DONE"]
    assert (ended[0]["rank"], ended[0]["signal"], ended[0]["host"]) == (1, "SIGKILL", "node2")
    assert user.events("killed", "attempt_started")[1]["resume_step"] == 10


def test_a_lost_node_is_replaced_by_a_spare(user: User) -> None:
    user.submits(counting("lost", 100, spares=1))
    user.wait_for_step("lost", 15)
    user.bed.link_down("node2")
    cut = time.time()
    lost = user.wait_for_event("lost", "node_lost", timeout=60)
    assert lost["host"] == "node2"
    assert lost["time"] - cut < 60
    second = user.wait_for_event("lost", "attempt_started", count=2, timeout=90)
    assert second["nodes"] == ["node1", "node3"]
    assert second["resume_step"] >= 10
    assert user.wait_for_end("lost")["state"] == "DONE"
    assert len(user.events("lost", "requeued")) == 0


def test_without_a_spare_a_lost_node_means_the_queue(user: User) -> None:
    user.submits(counting("queue", 100))
    user.wait_for_step("queue", 15)
    user.bed.link_down("node2")
    user.wait_for_event("queue", "requeued", timeout=90)
    # attempt numbers go on, so that the ranks left behind on node2 are fenced
    second = user.wait_for_event("queue", "attempt_started", count=2, timeout=90)
    assert second["attempt"] == 2
    assert "node2" not in second["nodes"]
    assert user.wait_for_end("queue")["state"] == "DONE"


def test_fewer_nodes_are_enough_when_the_job_says_so(user: User) -> None:
    job = counting("fewer", 100)
    job["recovery"]["min_nodes"] = 1
    user.submits(job)
    user.wait_for_step("fewer", 15)
    user.bed.link_down("node2")
    second = user.wait_for_event("fewer", "attempt_started", count=2, timeout=90)
    assert second["nodes"] == ["node1"]
    assert user.wait_for_end("fewer")["state"] == "DONE"


def test_at_the_time_limit_a_run_saves_requeues_and_resumes(user: User) -> None:
    job = counting("limit", 300, "--save-every", "1000", time="2m")
    job["recovery"]["stop_grace"] = "60s"
    ids = user.submits(job)["job_ids"]
    user.wait_for_event("limit", "requeued", timeout=150)
    ended = user.events("limit", "attempt_ended")[-1]
    assert (ended["cause"], ended["action"]) == ("TIME_LIMIT", "requeue")
    saved = ended["newest_step"]
    second = user.wait_for_event("limit", "attempt_started", count=2, timeout=90)
    assert second["resume_step"] == saved
    assert user.status("limit")["job_ids"] == [ids["train"]]
    user.types("cancel", "limit", "--now")


def test_a_preempted_run_saves_and_resumes(user: User) -> None:
    ids = user.submits(counting("preempt", 60, "--save-every", "1000"))["job_ids"]
    user.wait_for_step("preempt", 10)
    user.bed.run(["scontrol", "requeue", ids["train"]])
    second = user.wait_for_event("preempt", "attempt_started", count=2, timeout=90)
    assert second["resume_step"] >= 10
    assert user.wait_for_end("preempt")["state"] == "DONE"
    causes = [e["cause"] for e in user.events("preempt", "attempt_ended")]
    assert causes == ["PREEMPTED", "DONE"]


def test_somebody_elses_scancel_is_words_and_not_a_restart(user: User) -> None:
    ids = user.submits(counting("scancel", 400))["job_ids"]
    user.wait_for_step("scancel", 5)
    user.bed.run(["scancel", ids["train"]])
    wait_until(lambda: user.status("scancel")["state"] == "CANCELLED", 60, "CANCELLED", user)
    time.sleep(3)
    assert not user.bed.run(["squeue", "-h"]).stdout.strip()
    assert user.events("scancel", "requeued") == []
    why = user.types("why", "scancel")
    assert why.returncode == 0
    assert "cancel" in why.stdout.lower()


def test_a_cut_node_comes_back_and_its_old_ranks_are_fenced(user: User) -> None:
    user.submits(counting("fence", 100, "--pace", "0.4", spares=1))
    user.wait_for_step("fence", 10)
    # rank 0 is not on the cut node and ends with its attempt; rank 1 lives on for a while
    user.bed.link_down("node2")
    user.wait_for_event("fence", "attempt_started", count=2, timeout=90)
    user.bed.link_up("node2")
    assert user.wait_for_end("fence")["state"] == "DONE"
    lines = (user.run("fence").root / "steps-1.txt").read_text().splitlines()
    attempts = [int(line.split()[0]) for line in lines]
    assert attempts == sorted(attempts), "an older attempt wrote after a newer one had begun"


def test_the_supervisor_is_killed_and_the_run_is_not_shown_as_healthy(user: User) -> None:
    ids = user.submits(counting("head", 400))["job_ids"]
    user.wait_for_step("head", 5)
    assert user.bed.kill_node_processes("node1", "supervise.batch_step", signal.SIGKILL)
    wait_until(lambda: user.status("head")["state"] in ("STOPPED", "PENDING"), 60, "an end", user)
    row = user.status("head")
    assert row["cause"], row
    user.types("cancel", "head")
    assert not user.bed.run(["squeue", "-h", "-j", ids["train"]]).stdout.strip()
