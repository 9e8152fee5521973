from __future__ import annotations

from pathlib import Path

import pytest

from clusterlm.node import progress
from clusterlm.node.files import read_json, write_json
from clusterlm.node.progress import Fenced, refuse_if_fenced, report_progress, stop_requested


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTERLM_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("CLUSTERLM_ATTEMPT", "3")
    monkeypatch.setenv("CLUSTERLM_PHASE", "train")
    monkeypatch.setenv("CLUSTERLM_PROGRESS_FILE", str(tmp_path / "progress.json"))
    monkeypatch.setenv("CLUSTERLM_STOP_FILE", str(tmp_path / "stop.json"))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(progress, "_last_report", float("-inf"))
    return tmp_path


def test_reports_come_at_most_once_a_second_but_the_last_one_always(run_dir: Path) -> None:
    assert report_progress(step=1, total_steps=9, loss=2.5, text="training")
    assert not report_progress(step=2)
    assert read_json(run_dir / "progress.json")["step"] == 1  # type: ignore[index]
    assert report_progress(step=3, force=True)
    found = read_json(run_dir / "progress.json")
    assert found is not None
    assert (found["step"], found["phase"], found["loss"]) == (3, "train", None)


def test_other_ranks_than_0_report_nothing(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert not report_progress(step=1, force=True)


def test_a_report_that_cannot_be_written_ends_nothing(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTERLM_PROGRESS_FILE", str(run_dir / "absent" / "progress.json"))
    assert not report_progress(step=1)
    assert "cannot write" in capsys.readouterr().out


def test_a_stop_is_requested_once_the_file_is_there(run_dir: Path) -> None:
    assert not stop_requested()
    (run_dir / "stop.json").touch()
    assert stop_requested()


@pytest.mark.parametrize(
    ("holder", "is_fenced"), [(None, False), (2, False), (3, False), (4, True)]
)
def test_only_a_newer_attempt_fences(run_dir: Path, holder: int | None, is_fenced: bool) -> None:
    if holder is not None:
        write_json(run_dir / "LEASE", {"attempt": holder, "job_id": "1", "time": 0.0})
    if is_fenced:
        with pytest.raises(Fenced, match="attempt 4 holds the lease"):
            refuse_if_fenced()
    else:
        refuse_if_fenced()


def test_outside_of_a_run_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUN_DIR", "ATTEMPT", "PROGRESS_FILE", "STOP_FILE"):
        monkeypatch.delenv(f"CLUSTERLM_{name}", raising=False)
    refuse_if_fenced()
    assert not stop_requested()
    assert not report_progress(step=1, force=True)
