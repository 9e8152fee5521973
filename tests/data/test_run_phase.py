from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.fingerprint import describe
from clusterlm.data.preprocess import run_phase, usable_workers
from clusterlm.data.progress import Progress, RunReporter
from clusterlm.errors import DataError
from clusterlm.paths import CachePaths
from clusterlm.spec.job import Job
from tests.data.corpus import data_of, fingerprint_of, text_source, write_rows, write_texts


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "a.jsonl", 60)


def _run(folder: Path, texts: Path, *, with_parts: bool = True, **options: Any) -> Path:
    """A run directory as `submit` leaves it."""
    data = data_of(text_source(texts), **options)
    job = Job.model_validate({"name": "r", "data": data.model_dump(mode="json")})
    folder.mkdir()
    (folder / "spec.json").write_text(job.model_dump_json())
    lock: dict[str, Any] = {"fingerprint": fingerprint_of(data)}
    if with_parts:
        lock["fingerprint_parts"] = describe(data)
    (folder / "lock.json").write_text(json.dumps(lock))
    return folder


def test_the_phase_prepares_tells_and_is_at_once_done_the_second_time(
    tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = tmp_path / "progress.json"
    monkeypatch.setenv("CLUSTERLM_PROGRESS_FILE", str(progress))
    run = _run(tmp_path / "run", texts, validation={"fraction": 0.1}, dedup={"exact": True})
    run_phase(run)
    told = capsys.readouterr().out
    assert "sources[0]" in told
    assert "prepared in" in told
    assert "validation" in told
    assert json.loads(progress.read_text())["text"] == "making blocks"
    run_phase(run)
    root = CachePaths.of(json.loads((run / "lock.json").read_text())["fingerprint"]).root
    assert capsys.readouterr().out == f"the data is ready: {root}\n"


def test_records_left_out_are_listed_with_their_place(
    tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in texts.read_text().splitlines()]
    write_rows(texts, [*rows, {"body": 1}, {"text": ""}])
    run_phase(_run(tmp_path / "run", texts, on_bad_record="skip"))
    told = capsys.readouterr().out
    assert f"not usable: {texts}:61: the field text is missing" in told
    assert "1 cannot be used, 1 empty" in told


@pytest.mark.parametrize("with_parts", [True, False])
def test_a_source_that_changed_while_the_job_waited_is_named(
    tmp_path: Path, texts: Path, with_parts: bool
) -> None:
    run = _run(tmp_path / "run", texts, with_parts=with_parts)
    write_texts(texts, 61)
    later = time.time() + 60
    os.utime(texts, (later, later))
    with pytest.raises(DataError, match="no longer what was submitted") as caught:
        run_phase(run)
    assert f"{texts} was written after the submit" in str(caught.value)
    assert ("data.sources[0].files: 1 files, " in str(caught.value)) == with_parts


def test_a_run_without_data_has_nothing_to_prepare(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(Job.model_validate({"name": "r"}).model_dump_json())
    with pytest.raises(DataError, match="no data section"):
        run_phase(tmp_path)


def test_there_are_no_more_workers_than_cores() -> None:
    assert usable_workers(1) == 1
    assert usable_workers(10_000) == len(os.sched_getaffinity(0))


def test_the_time_left_follows_from_the_bytes_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "progress.json"
    monkeypatch.setenv("CLUSTERLM_PROGRESS_FILE", str(path))
    monkeypatch.setattr("clusterlm.node.progress.REPORT_EVERY_S", 0.0)
    clock = iter([100.0, 110.0])
    report = RunReporter(lambda: next(clock))
    report(Progress("training the tokenizer on 20 MB"))
    assert json.loads(path.read_text())["eta_s"] is None
    report(Progress("tokenizing 20 MB of 100 MB", 20_000_000, 100_000_000))
    report(Progress("tokenizing 40 MB of 100 MB", 40_000_000, 100_000_000))
    told = json.loads(path.read_text())
    assert (told["step"], told["total_steps"], told["eta_s"]) == (40, 100, 30.0)
