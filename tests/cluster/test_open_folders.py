"""submit and resume refuse a run that others could change, and say what to do."""

from __future__ import annotations

from pathlib import Path

from tests.person import Person

JOB = {"name": "r", "train": {"command": ["true"]}}


def test_a_runs_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    person = Person(tmp_path)
    runs = tmp_path / "runs"
    runs.mkdir()
    runs.chmod(0o775)
    done = person.types("submit", person.writes(JOB))
    assert done.returncode == 2
    assert f"{runs}: its group" in done.stderr
    assert f"chmod +t {runs}" in done.stderr
    assert not list(runs.iterdir())
    runs.chmod(0o1777)
    assert person.types("submit", person.writes(JOB)).returncode == 0
    run = person.run("r")
    run.root.chmod(0o720)
    done = person.types("resume", "r")
    assert done.returncode == 2
    assert f"chmod go-w {run.root}" in done.stderr
