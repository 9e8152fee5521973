"""`cluster: local`: the whole chain without a scheduler, and what breaks there."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.person import Person

COUNTING = Path(__file__).parent / "slurm" / "scripts" / "counting.py"


class Desk(Person):
    """A user at a workstation."""

    def types(self, *words: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """As on a screen: both streams in one."""
        process = self.starts(*words)
        out, _ = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, out, "")

    def wait(self, is_so: Callable[[], object], what: str, timeout: float = 60) -> None:
        until = time.monotonic() + timeout
        while not is_so():
            assert time.monotonic() < until, f"waited {timeout:.0f} s for {what}"
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """Everything of this desk's runs that lives."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.home) in " ".join(process.info["cmdline"] or []):
                found.append(process)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    user = Desk(tmp_path)
    yield user
    for process in user.processes():
        process.kill()


def counting(name: str, steps: int, *words: str) -> dict[str, Any]:
    command = [str(COUNTING), str(steps), *words]
    return {"name": name, "train": {"command": command}, "recovery": {"stop_grace": "20s"}}


def tiny(desk: Desk, name: str) -> dict[str, Any]:
    corpus = desk.home / "corpus.txt"
    corpus.write_text("a word and another word make a line of words\n" * 400)
    config = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
    }
    return {
        "name": name,
        "data": {
            "tokenizer": {"train": {"vocab_size": 280}},
            "block_size": 32,
            "sources": [{"kind": "text", "path": str(corpus)}],
        },
        "model": {"from_scratch": {"class": "LlamaForCausalLM", "config": config}},
        "train": {"max_steps": 8, "logging_steps": 1, "learning_rate": 1e-2, "save_steps": 4},
    }


def test_a_watched_run_ends_with_a_model_and_the_next_finds_the_cache(desk: Desk) -> None:
    done = desk.types("submit", desk.writes(tiny(desk, "one")), "--watch")
    assert done.returncode == 0, done.stdout
    for words in ("DONE", "mean loss", "next:", "8 steps"):
        assert words in done.stdout
    assert (desk.run("one").model / "model.safetensors").exists()
    assert "nothing to resume" in desk.types("resume", "one").stdout
    again = json.loads(desk.types("submit", desk.writes(tiny(desk, "two")), "--json").stdout)
    assert again["cache_hit"]
    desk.wait(lambda: desk.events("two", "ended"), "the end of two")
    assert desk.events("two", "ended")[0]["state"] == "DONE"


def test_a_damaged_cache_is_prepared_again(desk: Desk) -> None:
    first = desk.types("submit", desk.writes(tiny(desk, "first")), "--watch")
    assert first.returncode == 0, first.stdout
    tokens = next((desk.home / "cache").glob("shards/*/tokens.bin"))
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-3])
    second = desk.types("submit", desk.writes(tiny(desk, "second")), "--watch")
    assert second.returncode == 0, second.stdout
    assert tokens.read_bytes() == whole


def test_a_dead_supervisor_leaves_no_training_behind(desk: Desk) -> None:
    desk.types("submit", desk.writes(counting("orphan", 400)))
    desk.wait(lambda: desk.run("orphan").attempt("train", 1).progress.exists(), "a step")
    for process in desk.processes():
        if "submitit" in " ".join(process.cmdline()):
            process.send_signal(signal.SIGKILL)
    desk.wait(lambda: not desk.processes(), "the end of every process", timeout=15)
    assert "STOPPED" in desk.types("status", "orphan").stdout


def test_of_two_resumes_at_once_one_is_refused(desk: Desk) -> None:
    desk.types("submit", desk.writes(counting("twice", 400)))
    desk.wait(lambda: desk.run("twice").attempt("train", 1).progress.exists(), "a step")
    assert desk.types("cancel", "twice").returncode == 0
    both = [desk.starts("resume", "twice") for _ in range(2)]
    codes = sorted((p.communicate(timeout=60), p.returncode)[1] for p in both)
    assert codes == [0, 2]
    assert len(desk.events("twice", "resumed")) == 1
    assert desk.types("cancel", "twice", "--now").returncode == 0


def test_a_broken_checkpoint_of_an_own_script_is_not_resumed(desk: Desk) -> None:
    desk.types("submit", desk.writes(counting("flip", 60, "--save-every", "5")))
    checkpoints = desk.run("flip").checkpoints
    desk.wait(lambda: (checkpoints / "checkpoint-10" / "MANIFEST.json").exists(), "a checkpoint")
    desk.types("cancel", "flip", "--now")
    steps = sorted(int(p.name.partition("-")[2]) for p in checkpoints.glob("checkpoint-*"))
    (checkpoints / f"checkpoint-{steps[-1]}" / "state.txt").write_text("999")
    assert desk.types("resume", "flip").returncode == 0
    desk.wait(lambda: len(desk.events("flip", "attempt_started")) > 1, "the second attempt")
    assert desk.events("flip", "attempt_started")[1]["resume_step"] == steps[-2]
    assert list(checkpoints.glob(f"checkpoint-{steps[-1]}.broken-*"))
    desk.types("cancel", "flip", "--now")


def test_a_deleted_run_directory_does_not_come_back(desk: Desk) -> None:
    import shutil

    desk.types("submit", desk.writes(counting("gone", 400)))
    run = desk.run("gone")
    desk.wait(lambda: run.attempt("train", 1).progress.exists(), "a step")
    shutil.rmtree(run.root, ignore_errors=True)
    desk.wait(lambda: not desk.processes(), "the end of every process", timeout=40)
    assert not run.events.exists()
    assert run.attempt_numbers("train") in ([], [1])
