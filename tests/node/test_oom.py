"""The kernel's counts of processes killed for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.node.oom import Kills, count_kills, has_struck


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ("4:memory:/job_7\n0::/\n", "memory/job_7/memory.oom_control"),
        ("0::/job_7\n", "job_7/memory.events"),
    ],
)
def test_the_group_of_the_process_is_counted_in_both_versions(
    tmp_path: Path, lines: str, file: str
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    (proc / "vmstat").write_text("nr_free 1\noom_kill 9\n")
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text("oom 3\noom_kill 2\noom_group_kill 0\n")
    assert count_kills(proc, groups) == Kills(2, 9)
    assert count_kills(tmp_path / "none", groups) == Kills(None, None)


def test_the_node_can_only_clear_the_kernel() -> None:
    assert has_struck(Kills(0, 5), Kills(1, 6)) is True
    assert has_struck(Kills(1, 5), Kills(1, 6)) is False
    assert has_struck(Kills(None, 5), Kills(None, 5)) is False
    assert has_struck(Kills(None, 5), Kills(None, 6)) is None
    assert has_struck(Kills(None, None), Kills(None, None)) is None
