"""ZeRO-3 trains a model that was resized before: no rank ever changes the number of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clusterlm.data.model_stage import ModelStage
from clusterlm.spec.job import Job
from clusterlm.weights.resized import model_root
from tests.train.forked import Forks
from tests.train.launching import TINY, Run

KEY = "0" * 32
MISSING = 20


def test_two_ranks_under_stage_3_train_the_resized_model(
    make_run: Callable[..., Run],
    forks: Forks,
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    rows = len(tokenizer) - MISSING
    config = LlamaConfig(vocab_size=rows, max_position_embeddings=64, **TINY["config"])
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    vocab = {"mode": "resize", "new_rows": "mean", "expect": [rows, len(tokenizer)]}
    model = {"name": str(tmp_path / "base"), "vocab": vocab}
    zero = {"strategy": "deepspeed", "deepspeed": {"stage": 3}, "micro_batch_size": 2}
    run = make_run(ranks=2, model=model, train=zero | {"max_steps": 3, "save_steps": 500})
    job = Job.model_validate({"name": "t", "model": model})
    stage = ModelStage(job, KEY, {}, tmp_path / "cache", lambda _: None, lambda _: None)
    stage.prepare(run.cache / "tokenizer")
    run.root.mkdir()
    (run.root / "lock.json").write_text(json.dumps({"resized_model": KEY}))

    assert set(run.train_forked(forks)) == {0}, run.output
    assert sorted(run.losses()) == [1, 2, 3]
    made = load_file(model_root(tmp_path / "cache", KEY) / "model.safetensors")
    saved = load_file(run.root / "model" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert saved[name].shape == made[name].shape == (len(tokenizer), 32)
        # trained from it, and not from anything else: three steps move a weight very little
        assert torch.allclose(saved[name].float(), made[name].float(), atol=0.02)
        assert not torch.equal(saved[name].float(), made[name].float())
