"""What is meant by a TARGET, and what is said when nothing is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import TrainError
from clusterlm.node.seal import seal
from clusterlm.train.target import data_folder, find_target

SPEC: dict[str, Any] = {"name": "quick", "model": {"name": "owner/base", "revision": "abc"}}
YAML = """
name: quick
model: {name: owner/base}
data: {tokenizer: {name: owner/base}, block_size: 64, sources: [{kind: text, hub: owner/set}]}
train: {max_steps: 2, learning_rate: 1.0e-3}
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def make_run(runs: Path, name: str = "quick", **spec: Any) -> Path:
    run = runs / name
    (run / "checkpoints").mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps(SPEC | spec))
    (run / "lock.json").write_text(json.dumps({"fingerprint": "f" * 32}))
    return run


def make_model(folder: Path, *, adapter: str | None = None, tokenizer: bool = True) -> Path:
    folder.mkdir(parents=True)
    if adapter is None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x")
    else:
        config = {"base_model_name_or_path": adapter, "peft_type": "LORA"}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_bytes(b"x")
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    return folder


def test_the_model_of_a_run(runs: Path) -> None:
    model = make_model(make_run(runs) / "model")
    for text in ("quick", str(runs / "quick"), str(model), "runs/quick/"):
        target = find_target(text)
        assert target.model == str(model)
        assert target.name == "quick"
        assert target.run is not None
        assert data_folder(target.run) == runs.parent / "cache" / ("f" * 32)


def test_the_newest_whole_checkpoint_while_there_is_no_model(runs: Path) -> None:
    run = make_run(runs)
    with pytest.raises(TrainError, match=r"(?s)neither a model nor .*clusterlm status quick"):
        find_target("quick")
    for step in (5, 10, 15):
        folder = make_model(run / "checkpoints" / f"checkpoint-{step}")
        if step < 15:
            seal(folder, step=step, attempt=1)
    target = find_target("quick")
    assert target.model == str(run / "checkpoints" / "checkpoint-10")
    assert "checkpoint-10 (its model is not saved yet)" in target.words
    older = find_target(str(run / "checkpoints" / "checkpoint-5"))
    assert older.words == "run quick, checkpoint-5"
    assert older.job is not None


def test_an_adapter_names_its_base(runs: Path, tmp_path: Path) -> None:
    folder = make_model(make_run(runs) / "model", adapter="owner/base")
    target = find_target("quick")
    assert (target.adapter, target.model, target.revision) == (folder, "owner/base", "abc")
    other = make_model(tmp_path / "other")
    assert find_target("quick", base=str(other)).model == str(other)
    with pytest.raises(TrainError, match="--base: /not/there is not there"):
        find_target("quick", base="/not/there")
    gone = make_model(tmp_path / "gone", adapter=str(tmp_path / "lost"))
    with pytest.raises(TrainError, match="the base of gone: .*lost is not there"):
        find_target(str(gone))
    with pytest.raises(TrainError, match="is a whole model, not an adapter"):
        find_target(str(other), base="owner/base")
    with pytest.raises(TrainError, match="is itself an adapter; merge it first"):
        find_target(str(gone), base=str(folder))


def test_a_job_means_its_newest_run(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(YAML)
    with pytest.raises(TrainError, match=r"no run of quick yet .* clusterlm submit job.yaml"):
        find_target("job.yaml")
    make_model(make_run(runs, "quick") / "model")
    second = make_run(runs, "quick-2")
    make_model(second / "model")
    make_model(make_run(runs, "quick-other") / "model")
    os.utime(runs / "quick" / "spec.json", (1, 1))
    os.utime(runs / "quick-2" / "spec.json", (2, 2))
    assert find_target("job.yaml").name == "quick-2"


def test_a_tokenizer_may_lie_with_the_data(runs: Path) -> None:
    make_model(make_run(runs) / "model", tokenizer=False)
    assert find_target("quick").tokenizer.endswith("model")
    prepared = runs.parent / "cache" / ("f" * 32) / "tokenizer"
    prepared.mkdir(parents=True)
    (prepared / "tokenizer.json").touch()
    assert find_target("quick").tokenizer == str(prepared)


def test_a_model_of_the_hub(runs: Path) -> None:
    target = find_target("owner/model")
    assert (target.model, target.folder, target.name) == ("owner/model", None, "model")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("qick", "no run 'qick' in .*did you mean quick\\?"),
        ("nothing-like-it", "no run 'nothing-like-it' .*accepted are the name"),
        ("./not-there", "'./not-there' is not there; accepted are"),
        ("a/b/c", "'a/b/c' is not there"),
        ("", "TARGET is empty; accepted"),
        ("file.txt", "is a file; accepted are"),
        ("empty", "empty is empty; accepted are"),
        ("config-only", "has a config but no weights"),
        ("strange", "holds no model, but a, b; accepted"),
        ("no.yaml", "no.yaml"),
    ],
)
def test_what_is_nothing_is_said(text: str, said: str, runs: Path, tmp_path: Path) -> None:
    from clusterlm.errors import ClusterLMError

    make_run(runs)
    (tmp_path / "file.txt").touch()
    (tmp_path / "empty").mkdir()
    (make_model(tmp_path / "config-only") / "model.safetensors").unlink()
    for name in "ab":
        (tmp_path / "strange" / name).mkdir(parents=True)
    with pytest.raises(ClusterLMError, match=said):
        find_target(text)


def test_a_run_of_another_version_can_still_be_used(runs: Path) -> None:
    run = make_run(runs, strange_key=1)
    make_model(run / "model")
    assert find_target("quick").job is None
    shutil.rmtree(run / "model")
    make_model(run / "model", adapter="owner/base")
    assert find_target("quick").model == "owner/base"
