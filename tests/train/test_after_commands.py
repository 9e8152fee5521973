"""merge, chat, eval as they are typed, on a run whose model is small."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.data.cache import open_cache
from clusterlm.errors import ClusterLMError
from clusterlm.train.blocks import collate_blocks, widen_ids
from tests.train.launching import ROOT
from tests.weights.kinds import make_adapter

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def run(
    tmp_path: Path, cache: Path, tiny_model: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of this cache; its model is `tiny_model`."""
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    folder = tmp_path / "runs" / "small"
    shutil.copytree(tiny_model, folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "spec.json").write_text(json.dumps({"name": "small"}))
    lock = {"fingerprint": cache.name, "cache_dir": str(cache.parent)}
    (folder / "lock.json").write_text(json.dumps(lock))
    return folder


@pytest.fixture
def adapter(run: Path) -> Path:
    """Another run, of an adapter over the model of `run`."""
    from transformers import AutoModelForCausalLM

    folder = run.with_name("adapted")
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("model"))
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    make_adapter(folder / "model", run / "model", model, {"target_modules": ["q_proj"]})
    return folder


def call(*argv: object) -> tuple[str, str]:
    """Standard output and error of a command that ends well."""
    done = CliRunner().invoke(app, [str(word) for word in argv], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout, done.stderr


def refused(*argv: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in argv])
    assert isinstance(done.exception, ClusterLMError), done.output
    return str(done.exception)


def test_eval_is_the_loss_of_the_model_itself(run: Path, cache: Path) -> None:
    from transformers import AutoModelForCausalLM

    found = json.loads(call("eval", "small", "--json", "--micro-batch-size", 3)[0])
    blocks = open_cache(cache).split("validation")
    model = AutoModelForCausalLM.from_pretrained(run / "model", use_cache=False).eval()
    total, tokens = 0.0, 0
    for k in range(len(blocks)):
        batch = widen_ids(collate_blocks(blocks.batch([k])))
        count = int((batch["labels"][:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(**batch).loss) * count
        tokens += count
    assert found["tokens"] == tokens
    assert found["blocks"] == found["num_blocks"] == len(blocks)
    assert found["loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    part, note = call("eval", run / "model", "--max-blocks", 2, "--data", cache, "--split", "train")
    assert "in 2 of" in part
    assert "on train of" in note


def test_eval_refuses_what_would_mean_nothing(run: Path, cache: Path, tmp_path: Path) -> None:
    assert "has no split 'test'; it has train, validation" in refused(
        "eval", "small", "--split", "test"
    )
    lone = tmp_path / "lone"
    shutil.copytree(run / "model", lone)
    assert "no prepared data is known" in refused("eval", lone)
    path = lone / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    one, other = sorted(vocab)[5:7]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    path.write_text(json.dumps(content))
    assert "2 of its 400 tokens are others" in refused("eval", lone, "--data", cache)


def test_merge_and_what_is_said(adapter: Path, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    said, notes = call("merge", "adapted", "-o", out)
    assert "max |difference|" in said
    assert "comparing the logits of 10 prompts" in notes
    before = json.loads(call("eval", "adapted", "--json")[0])
    after = json.loads(call("eval", out, "--json", "--data", cache)[0])
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
    assert "exists already" in refused("merge", "adapted", "-o", out)
    assert "NOT COMPARED" in call("merge", "adapted", "-o", tmp_path / "b", "--no-compare")[1]
    twice, _ = call("merge", "adapted", "--adapter", "adapted", "-o", tmp_path / "twice")
    assert "4 tensors" not in twice
    assert "is a whole model in" in refused("merge", "small", "-o", tmp_path / "c")
    assert '"5" is no size' in refused(
        "merge", "adapted", "-o", tmp_path / "c", "--max-shard-size", "5"
    )


def test_one_answer_for_scripts(run: Path) -> None:
    words = ("chat", "small", "--prompt", "import", "--max-new-tokens", 5, "--seed", 3)
    first, notes = call(*words)
    assert first == call(*words)[0]
    assert "loading run small" in notes
    piped = CliRunner().invoke(app, ["chat", "small", "--greedy"], input="")
    assert "nothing to answer" in str(piped.exception)


def test_the_standard_input_of_a_script(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clusterlm", "chat", "small", "--greedy", "--max-new-tokens", "3"],
        input="import json",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.splitlines() == ["loading run small"]
    assert done.stdout.endswith("\n")
