"""Canaries planted as secrets of a job that prints them all: no file, record or argv has one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.conftest import SCRIPTS, User

CORES = ("cAnArYplain7", "cAnArYodd85x", "cAnArYproxy9")
SECRETS = {
    "PLAIN_TOKEN": f"hf_{CORES[0]}",
    "ODD_PASSWORD": f"p'\"$x `\\%+&={CORES[1]}é;|",
    # of all things this one is passed on by name otherwise
    "HTTPS_PROXY": f"http://me:{CORES[2]}@proxy.invalid:3128",
}
MAX_BYTES = 8 << 20


def marks() -> list[bytes]:
    """What no sink may hold: the middle of each value, also as base64 has it."""
    found = []
    for core in CORES:
        found.append(core.encode())
        for shift in range(3):
            # without the ends, which depend on what stands beside it
            found.append(base64.b64encode(b"\0" * shift + core.encode())[4:-4])
    assert all(len(mark) >= 8 for mark in found)
    return found


def hits(data: bytes) -> list[bytes]:
    return [mark for mark in marks() if mark in data]


@dataclass
class Commands:
    """Every command line of the machine while something runs."""

    seen: set[bytes] = field(default_factory=set)
    is_over: bool = False

    def look(self) -> None:
        while not self.is_over:
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(process.read_bytes())
                except OSError:
                    continue
            time.sleep(0.05)


def new_files(roots: list[Path], since: float) -> Iterator[Path]:
    for root in roots:
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                try:
                    about = path.lstat()
                except OSError:
                    continue
                if path.is_file() and not path.is_symlink() and about.st_mtime >= since:
                    yield path


def test_no_sink_holds_a_secret(user: User) -> None:
    began = time.time() - 1
    job = {
        "name": "leaky",
        "cluster": "slurm",
        "resources": {"nodes": 2, "time": "10m"},
        "env": {"PYTHON": sys.executable},
        "secrets": list(SECRETS),
        "train": {"command": [str(SCRIPTS / "leaky.sh")]},
        "recovery": {"max_attempts_without_progress": 1},
    }
    file = user.writes(job)
    env = {**user.env, **SECRETS}
    outputs: dict[str, str] = {}

    def types(*words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "clusterlm", *words],
            capture_output=True,
            text=True,
            env=env,
            cwd=user.home,
            timeout=120,
            check=False,
        )
        outputs[" ".join(words)] = done.stdout + done.stderr
        return done

    commands = Commands()
    watcher = threading.Thread(target=commands.look)
    watcher.start()
    try:
        types("submit", file, "--dry-run")
        done = types("submit", file, "--json")
        assert done.returncode == 0, done.stderr
        job_id = json.loads(done.stdout)["job_ids"]["train"]
        follower = user.starts("logs", "leaky", "-f")
        user.wait_for_event("leaky", "attempt_started")
        for words in (
            ["scontrol", "show", "job", "-dd", job_id],
            ["scontrol", "write", "batch_script", job_id, "-"],
            ["squeue", "-o", "%all", "-j", job_id],
        ):
            outputs[" ".join(words)] = user.bed.run(words).stdout
        end = user.wait_for_end("leaky", timeout=90)
        outputs["logs -f"] = follower.communicate(timeout=30)[0]
    finally:
        commands.is_over = True
        watcher.join()
    assert end["cause"] == "RANK_FAILED"
    assert "cannot log in with" in end["error"]
    for words in (
        ["sacct", "-j", job_id, "-P", "-o", "ALL"],
        ["sacct", "-j", job_id, "-P", "-o", "SubmitLine"],
        ["sacct", "-j", job_id, "--batch-script"],
        ["sacct", "-j", job_id, "--env-vars"],
    ):
        outputs[" ".join(words)] = user.bed.run(words, check=False).stdout
    types("status", "--json")
    types("status", "leaky")
    types("why", "leaky")
    types("why", "leaky", "--json")
    types("logs", "leaky", "--tail", "10000")
    types("logs", "leaky", "--tail", "10000", "--errors")
    # the job has really shown them
    assert outputs["logs leaky --tail 10000"].count("*" * 15) > 20
    assert "401 for" in outputs["logs -f"]
    assert {name: found for name, text in outputs.items() if (found := hits(text.encode()))} == {}
    assert [line for line in commands.seen if hits(line)] == []
    assert any(b"leaky.sh" in line for line in commands.seen)

    shared = [Path(tempfile.gettempdir()), Path("/dev/shm"), user.home, user.bed.config.work]
    own = user.run("leaky").secrets
    found = {p for p in new_files(shared, began) if p.stat().st_size < MAX_BYTES and _leaks(p)}
    assert found == {own}
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(own.parent)


def _leaks(path: Path) -> bool:
    try:
        return bool(hits(path.read_bytes()))
    except OSError:
        return False
