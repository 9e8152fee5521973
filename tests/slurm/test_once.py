"""A submit is one training: whatever is killed, times out, or is sent twice, on a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.conftest import SCRIPTS, User, wait_until

TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


def _job(name: str, steps: int = 2, **resources: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cluster": "slurm",
        "resources": {"nodes": 1, "cpus_per_node": 1, "time": "10m", **resources},
        "train": {"command": [str(SCRIPTS / "counting.py"), str(steps), "--pace", "0.05"]},
    }


def _jobs(user: User, name: str) -> list[str]:
    """Every job that this run has ever brought into the queue."""
    shown = user.bed.run(["squeue", "-h", "-t", "all", "-n", f"{name}.train", "-o", "%i"])
    return shown.stdout.split()


def _trainings(user: User, name: str) -> int:
    return len(user.events(name, "attempt_started"))


def _asks(user: User, file: str, key: str, **environ: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "clusterlm", "submit", file, "--key", key, "--json"]
    return subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**user.env, **environ},
        cwd=user.home,
        start_new_session=True,
    )


def _answer(call: subprocess.Popen[str], timeout: float = 120) -> dict[str, Any]:
    out, err = call.communicate(timeout=timeout)
    assert call.returncode == 0, err
    return dict(json.loads(out))


def _fake_sbatch(user: User, text: str) -> dict[str, str]:
    """A PATH whose sbatch is a script; the true one is $TRUE_SBATCH in it."""
    folder = user.home / "bin"
    folder.mkdir(exist_ok=True)
    true = subprocess.run(
        ["which", "sbatch"], env=user.env, capture_output=True, text=True, check=True
    ).stdout.strip()
    file = folder / "sbatch"
    file.write_text(f"#!/bin/bash\nTRUE_SBATCH={true}\n{text}\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}:{user.env['PATH']}"}


def test_two_calls_at_once_with_one_key_are_one_training(user: User) -> None:
    file, key = user.writes(_job("twice")), uuid.uuid4().hex
    calls = [_asks(user, file, key) for _ in range(2)]
    first, second = (_answer(call) for call in calls)
    assert first == second
    assert _answer(_asks(user, file, key.upper())) == first
    assert user.wait_for_end("twice")["state"] == "DONE"
    assert (len(_jobs(user, "twice")), _trainings(user, "twice")) == (1, 1)
    other = user.writes(_job("other"))
    refused = user.types("submit", other, "--key", key)
    assert refused.returncode == 2
    assert "another job" in refused.stderr


def test_an_sbatch_that_times_out_after_the_job_was_taken_gives_that_job(user: User) -> None:
    path = _fake_sbatch(user, f'"$TRUE_SBATCH" "$@" >/dev/null; echo "{TIMED_OUT}" >&2; exit 1')
    sent = _answer(_asks(user, user.writes(_job("late")), uuid.uuid4().hex, **path))
    assert _jobs(user, "late") == [sent["job_ids"]["train"]]
    assert user.status("late")["job_ids"] == [sent["job_ids"]["train"]]


def test_a_controller_that_stands_still_during_sbatch_is_waited_for(user: User) -> None:
    """The client gives up; its request is in the controller's hands and becomes a job."""
    path = _fake_sbatch(user, f'touch {user.home}/called; exec "$TRUE_SBATCH" "$@"')
    # 10 s in the bed
    conf = user.home / "slurm.conf"
    conf.write_text(user.bed.config.slurm_conf.read_text() + "MessageTimeout=2\n")
    job = user.writes(_job("still"))
    call = _asks(user, job, uuid.uuid4().hex, **path, SLURM_CONF=str(conf))
    wait_until((user.home / "called").exists, 30, "sbatch was called", user)
    user.bed.freeze_controller()
    time.sleep(5)
    user.bed.thaw_controller()
    sent = _answer(call)
    living = user.bed.run(["squeue", "-h", "-n", "still.train", "-o", "%i"]).stdout.split()
    assert living in ([sent["job_ids"]["train"]], [])
    assert user.wait_for_end("still")["state"] == "DONE"
    assert user.status("still")["job_ids"] == [sent["job_ids"]["train"]]
    assert _trainings(user, "still") == 1


def test_a_call_that_is_killed_when_the_job_was_taken_is_gone_on_with(user: User) -> None:
    """All of it is killed, sbatch too: nobody has the id. The job needs nothing of the call."""
    text = f'"$TRUE_SBATCH" "$@" > {user.home}/called; sleep 60'
    path = _fake_sbatch(user, text)
    file, key = user.writes(_job("killed")), uuid.uuid4().hex
    call = _asks(user, file, key, **path)
    called = user.home / "called"
    wait_until(lambda: called.exists() and called.read_text().strip() != "", 30, "sbatch", user)
    os.killpg(call.pid, signal.SIGKILL)
    call.communicate()
    sent = _answer(_asks(user, file, key))["job_ids"]["train"]
    assert called.read_text().split()[-1] == sent
    assert user.wait_for_end("killed")["state"] == "DONE"
    assert (_jobs(user, "killed"), _trainings(user, "killed")) == ([sent], 1)
    assert [e["job_id"] for e in user.events("killed", "submitted")] == [sent]


def test_twenty_kills_at_random_instants_are_twenty_trainings(user: User) -> None:
    argv = [sys.executable, "-m", "tests.chaos.kill_submit", "20"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*argv, "--bed", str(user.bed.config.index)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=250,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_resume_after_a_kill_finds_the_job_that_nobody_noted(user: User) -> None:
    text = f'"$TRUE_SBATCH" "$@" > {user.home}/called; sleep 60'
    path = _fake_sbatch(user, text)
    for node in user.bed.config.nodes:
        user.bed.drain(node)
    file = user.writes(_job("lost"))
    call = _asks(user, file, uuid.uuid4().hex, **path)
    called = user.home / "called"
    wait_until(lambda: called.exists() and called.read_text().strip() != "", 30, "sbatch", user)
    os.killpg(call.pid, signal.SIGKILL)
    call.communicate()
    refused = user.types("resume", "lost")
    assert refused.returncode == 2
    assert "lost is PENDING" in refused.stderr
    assert user.status("lost")["job_ids"] == _jobs(user, "lost")
    assert len(_jobs(user, "lost")) == 1


def test_the_same_file_sent_twice_trains_once_and_the_second_job_leaves_no_trace(
    user: User,
) -> None:
    sent = user.submits(_job("guard", 80))["job_ids"]["train"]
    user.wait_for_step("guard", 5)
    # a requeue keeps its id and passes
    user.bed.run(["scontrol", "requeue", sent], check=True)
    done = user.bed.run(["sbatch", "--parsable", str(user.run("guard").sbatch("train"))])
    second = done.stdout.strip()
    user.bed.release_requeued(sent)
    user.bed.wait_for_state(second, "COMPLETED", timeout=60)
    assert user.wait_for_end("guard")["state"] == "DONE"
    started = user.events("guard", "phase_started")
    assert [(e["job_id"], e["restart"]) for e in started] == [(sent, 0), (sent, 1)]
    assert [e for e in user.events("guard") if e.get("job_id") == second] == []
    status = user.status("guard")
    assert (status["state"], status["job_ids"]) == ("DONE", [sent])


def test_without_an_answer_it_says_what_is_known_and_the_same_key_goes_on(user: User) -> None:
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.sbatch_once import Sending, sbatch_once
    from clusterlm.errors import SendUnclear
    from clusterlm.paths import RunPaths

    run = RunPaths(user.home / "run")
    run.submitit.mkdir(parents=True)
    env = {**user.env, **_fake_sbatch(user, f'"$TRUE_SBATCH" "$@"; echo "{TIMED_OUT}" >&2; exit 1')}
    token = f"{uuid.uuid4().hex}-train"
    text = "#!/bin/bash\n#SBATCH -o /dev/null -J run.train\ntrue\n"
    sending = Sending(run, "train", token, text, LocalHost(), print, patience_s=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        silent = user.home / "bin" / "squeue"
        silent.write_text("#!/bin/bash\necho 'squeue: error: Unable to contact' >&2; exit 1\n")
        silent.chmod(0o755)
        with pytest.raises(SendUnclear, match=token[:32]):
            sbatch_once(sending)
        silent.unlink()
        found = sbatch_once(sending)
        assert sbatch_once(sending) == found
    assert _jobs(user, "run") == [found]
