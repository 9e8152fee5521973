"""Programs whose output is followed: every line as it comes, nothing left after an interruption."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from clusterlm.cluster.host import LocalHost


def test_each_line_comes_with_both_outputs_and_the_code() -> None:
    lines: list[str] = []
    script = r"printf 'a\nb\r10%%\rc'; echo d >&2; exit 7"
    assert LocalHost().stream(["bash", "-c", script], lines.append) == 7
    # a carriage return ends a line, too: that is how progress bars draw
    assert lines == ["a", "b", "10%", "cd"]


def test_a_missing_program_is_as_in_a_shell() -> None:
    lines: list[str] = []
    assert LocalHost().stream(["no-such-program"], lines.append) == 127
    assert lines == ["no-such-program: not found"]


def test_what_interrupts_it_ends_all_that_it_started() -> None:
    def each(line: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        LocalHost().stream(["bash", "-c", "echo go; sleep 98.5 | sleep 98.5"], each)
    assert time.monotonic() - began < 60
    assert _sleepers() == []


def test_a_program_may_clean_up(tmp_path: Path) -> None:
    seen: list[str] = []

    def each(line: str) -> None:
        seen.append(line)
        # bash is not to be met while it starts its child
        time.sleep(0.3)
        raise KeyboardInterrupt

    script = f"trap 'sleep 0.3; touch {tmp_path}/clean; exit' INT; echo go; sleep 98.5"
    with pytest.raises(KeyboardInterrupt):
        LocalHost().stream(["bash", "-c", script], each)
    assert seen == ["go"]
    assert (tmp_path / "clean").exists()
    assert _sleepers() == []


def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterlm.cluster.host.STOP_GRACE_S", 0.3)

    def each(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalHost().stream(["bash", "-c", "trap '' INT TERM; echo go; sleep 98.5"], each)
    assert _sleepers() == []


def _sleepers() -> list[str]:
    argv = ["pgrep", "--full", "--exact", "sleep 98.5"]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
