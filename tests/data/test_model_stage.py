"""The data phase and the model: resized once, shared, published whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clusterlm.data import model_stage
from clusterlm.data.fingerprint import describe, fingerprint_of_parts
from clusterlm.data.model_key import model_key
from clusterlm.data.preprocess import run_phase
from clusterlm.data.whole import why_not_ready
from clusterlm.errors import DataError, WeightsError
from clusterlm.node.files import read_json
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.job import Job
from clusterlm.weights.files import WeightsWriter
from clusterlm.weights.resized import (
    DONE,
    key_of,
    resized_folder,
    with_resized_model,
)
from tests.data.corpus import text_source, write_texts
from tests.data.typed import types, types_json
from tests.weights.folders import model_at, tensors_of, tokenizer_at

PIECES = ["th", "the"]
OLD = 94 + len(PIECES)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A model of 96 rows with its tokenizer."""
    folder = tokenizer_at(tmp_path / "base", PIECES)
    return model_at(folder, OLD)


def submitted(base: Path, name: str = "run", *, vocab: Any = "resize", **data: Any) -> RunPaths:
    """A run directory as `submit` leaves it."""
    texts = base.parent / "texts.jsonl"
    if not texts.exists():
        write_texts(texts, 40)
    tokenizer = {"name": str(base), "extend": {"tokens": ["quick", "brown"]}}
    about = {"tokenizer": tokenizer, "block_size": 16, "sources": [text_source(texts)]} | data
    model = {"name": str(base), "vocab": vocab}
    job = Job.model_validate({"name": "r", "data": about, "model": model})
    assert job.data is not None
    run = RunPaths(base.parent / "runs" / name)
    run.root.mkdir(parents=True)
    run.spec.write_text(json.dumps(job.model_dump(mode="json", by_alias=True)))
    parts = describe(job.data)
    lock = {"fingerprint": fingerprint_of_parts(parts), "fingerprint_parts": parts}
    run.lock.write_text(json.dumps(lock | {"resized_model": model_key(job, parts)}))
    return run


def cache_of(run: RunPaths) -> CachePaths:
    return CachePaths.of((read_json(run.lock) or {})["fingerprint"], key_of(run))


def job_of(run: RunPaths) -> Job:
    return Job.model_validate_json(run.spec.read_text())


def test_the_phase_makes_data_and_model_and_the_trainer_takes_that(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submitted(base)
    assert "prepared data" in (why_not_ready(cache_of(run)) or "")
    with pytest.raises(WeightsError, match="run the preprocess phase again:  clusterlm resume run"):
        resized_folder(run)
    run_phase(run.root)
    assert (
        f"{OLD} -> {OLD + 2} rows in model.embed_tokens.weight, lm_head.weight"
        in capsys.readouterr().out
    )
    assert why_not_ready(cache_of(run)) is None
    folder = resized_folder(run)
    assert folder is not None
    assert tensors_of(folder)["lm_head.weight"].shape[0] == OLD + 2
    done = read_json(folder / DONE) or {}
    assert (done["rows"], done["entries"], done["num_old"]) == ([OLD, OLD + 2], OLD + 2, OLD)
    model = with_resized_model(job_of(run), run).model
    assert model is not None
    assert (model.name, model.vocab.mode) == (str(folder), "keep")
    # a second time nothing is made
    before = (folder / DONE).stat().st_mtime_ns
    run_phase(run.root)
    assert "the model is ready" in capsys.readouterr().out
    assert (folder / DONE).stat().st_mtime_ns == before


def test_the_model_alone_is_made_when_only_it_is_missing_or_damaged(base: Path) -> None:
    run = submitted(base)
    run_phase(run.root)
    folder = resized_folder(run)
    assert folder is not None
    whole = tensors_of(folder)
    ready = cache_of(run).ready.stat().st_mtime_ns
    (folder / "model.safetensors").write_bytes(b"cut")
    assert "is damaged" in (why_not_ready(cache_of(run)) or "")
    run_phase(run.root)
    assert all(torch.equal(t, whole[n]) for n, t in tensors_of(folder).items())
    shutil.rmtree(folder)
    assert "is not there" in (why_not_ready(cache_of(run)) or "")
    run_phase(run.root)
    assert why_not_ready(cache_of(run)) is None
    assert cache_of(run).ready.stat().st_mtime_ns == ready, "the data was not made again"


def test_what_the_key_stands_for(base: Path, tmp_path: Path) -> None:
    def key(name: str, origin: Path = base, **options: Any) -> str | None:
        return key_of(submitted(origin, name, **options))

    first = key("a")
    assert first is not None
    assert key("b", vocab={"mode": "resize", "expect": [OLD, OLD + 2]}) == first
    assert key("c", block_size=32) == first, "another plan, the same model"
    tokenizer = {"name": str(base), "extend": {"tokens": ["fox"]}}
    others = [
        key("d", vocab={"mode": "resize", "new_rows": "mean"}),
        key("e", vocab={"mode": "resize", "multiple_of": 64}),
        key("f", tokenizer=tokenizer),
    ]
    assert len({first, *others}) == 4
    assert key("g", vocab="keep") is None
    copy = shutil.copytree(base, tmp_path / "copy")
    assert key("h", copy) == first, "where it lies is nothing"
    shutil.copyfile(model_at(tmp_path / "m", OLD + 1) / "model.safetensors", copy / "m.safetensors")
    assert key("i", copy) != first


def test_a_model_that_has_rows_enough_stays_as_it_is(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = submitted(base, tokenizer={"name": str(base)})
    run_phase(run.root)
    assert "it stays as it is" in capsys.readouterr().out
    assert resized_folder(run) is None
    assert with_resized_model(job_of(run), run) == job_of(run)
    assert why_not_ready(cache_of(run)) is None


@pytest.mark.parametrize(
    ("vocab", "words"),
    [
        ({"mode": "resize", "expect": [OLD, OLD + 3]}, "expect says"),
        ({"mode": "strict"}, "strict wants as many"),
        ({"mode": "keep"}, "possible: mode: resize (2 new rows"),
    ],
)
def test_sizes_that_only_the_phase_knows_are_refused_before_any_text_is_read(
    base: Path, vocab: Any, words: str
) -> None:
    run = submitted(base, vocab=vocab)
    with pytest.raises(DataError, match="model.vocab") as caught:
        run_phase(run.root)
    assert words in str(caught.value)
    assert not (cache_of(run).root.parent / "shards").exists()


def test_what_does_not_belong_together_is_refused(base: Path, tmp_path: Path) -> None:
    other = tokenizer_at(tmp_path / "other", [f"{a}{b}" for a in "qwertz" for b in "uiop"])
    parts = json.loads((other / "tokenizer.json").read_text())
    letters = [chr(code) for code in range(33, 127)]
    parts["model"]["vocab"] |= dict(zip(letters, range(93, -1, -1), strict=True))
    (other / "tokenizer.json").write_text(json.dumps(parts))
    run = submitted(base, "a", tokenizer={"name": str(other)})
    with pytest.raises(DataError, match="rows would stand for what they do not mean"):
        run_phase(run.root)
    (base / "tokenizer.json").rename(tmp_path / "own.json")
    own = tokenizer_at(tmp_path / "own", PIECES, ["quick", "brown"])
    run = submitted(base, "b", tokenizer={"name": str(own)})
    with pytest.raises(DataError, match="write new_rows: mean"):
        run_phase(run.root)
    mean = {"mode": "resize", "new_rows": "mean"}
    run_phase(submitted(base, "c", tokenizer={"name": str(own)}, vocab=mean).root)


def test_a_model_that_changed_after_the_submit_is_refused(base: Path) -> None:
    run = submitted(base)
    model_at(base, OLD, dtype=torch.bfloat16)
    with pytest.raises(DataError, match="no longer what was submitted"):
        run_phase(run.root)


def test_a_full_disk_leaves_nothing_half_done(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = submitted(base)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(WeightsWriter, "finish", full)
    with pytest.raises(DataError, match="is full"):
        run_phase(run.root)
    assert list((cache_of(run).root.parent / "models").iterdir()) == []


SLOW = """
import sys, time
from pathlib import Path
from clusterlm.weights.writer import WeightsWriter
finish = WeightsWriter.finish
def slow(self):
    print("writing", flush=True)
    time.sleep(float(sys.argv[2]))
    return finish(self)
WeightsWriter.finish = slow
from clusterlm.data.preprocess import run_phase
run_phase(Path(sys.argv[1]))
"""


def _start(run: RunPaths, pause: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SLOW, str(run.root), str(pause)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_and_two_at_once(base: Path) -> None:
    run = submitted(base)
    killed = _start(run, 60)
    assert killed.stdout is not None
    with killed.stdout as told:
        assert "writing" in told.readline()
    models = cache_of(run).root.parent / "models"
    (left,) = models.iterdir()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert left.name.endswith(".building")
    assert why_not_ready(cache_of(run)) is not None
    two = [_start(run, 0.5) for _ in range(2)]
    for process in two:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert [path.name for path in models.iterdir()] == [key_of(run)]
    assert resized_folder(run) is not None


def test_gc_keeps_a_model_as_long_as_a_run_refers_to_it(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(base)
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(run.root.parent))
    run_phase(run.root)
    assert "1 resized model, " in types("cache", "ls")[1]
    types("cache", "gc", "--all")
    assert resized_folder(run) is not None
    shutil.rmtree(run.root)
    (item,) = [one for one in types_json("cache", "ls")["items"] if one["kind"] == "model"]
    assert not item["used"]
    assert "1 of them, " in types("cache", "ls")[1]
    assert "younger than an hour" in types("cache", "gc")[1]
    assert "removed resized model" in types("cache", "gc", "--all")[1]
    assert not Path(item["path"]).exists()


def test_a_hub_model_without_a_network_says_what_to_do(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def offline(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    run = submitted(base)
    spec = json.loads(run.spec.read_text())
    spec["model"]["name"] = "owner/model"
    run.spec.write_text(json.dumps(spec))
    lock = read_json(run.lock) or {}
    key = model_key(job_of(run), lock["fingerprint_parts"])
    assert key not in (None, key_of(run))
    run.lock.write_text(json.dumps({**lock, "resized_model": key}))
    with pytest.raises(DataError, match="hf download owner/model --local-dir FOLDER"):
        run_phase(run.root)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(base))
    run_phase(run.root)
    assert resized_folder(run) is not None
    assert model_stage.model_root(cache_of(run).root.parent, str(key)).is_dir()
