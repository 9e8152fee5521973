"""Frozen and trained parts of a model: what a mode says it trains is what moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from clusterlm.errors import TrainError
from clusterlm.train.trainable import choose_trainable
from tests.train.forked import Forks
from tests.train.launching import TINY, Run


def make(*, tied: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=tied, **TINY["config"]))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
def test_embeddings_are_both_ends_and_nothing_else(tied: bool) -> None:
    chosen = choose_trainable(make(tied=tied), "embeddings")
    names = (
        ["model.embed_tokens.weight"] if tied else ["model.embed_tokens.weight", "lm_head.weight"]
    )
    assert list(chosen.names) == names
    assert chosen.num_trained == len(names) * 50 * 32
    assert f"mode embeddings: {chosen.num_trained:,} of" in chosen.words
    said = "model.embed_tokens.weight (tied: it is lm_head.weight too); all others are frozen"
    assert (said in chosen.words) == tied


def test_full_trains_all() -> None:
    chosen = choose_trainable(make(tied=False), "full")
    assert chosen.num_frozen == 0
    assert chosen.words.endswith("weights are trained (100 %)")


def test_partial_trains_what_the_patterns_name() -> None:
    model = make(tied=True)
    chosen = choose_trainable(model, "partial", ["*.layers.1.mlp.*", "*norm.weight"])
    assert {name.split(".")[-2] for name in chosen.names} >= {"gate_proj", "norm"}
    assert not any("layers.0.mlp" in name or "self_attn" in name for name in chosen.names)
    # a tied matrix may be called by either name
    assert choose_trainable(model, "partial", ["lm_head.*"]).names == ("model.embed_tokens.weight",)


def test_a_pattern_that_names_nothing_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(
        TrainError, match=r"\*.layers.1.mpl.\* names no parameter; the nearest: .*mlp"
    ):
        choose_trainable(make(tied=False), "partial", ["lm_head.*", "*.layers.1.mpl.*"])


@pytest.mark.parametrize(
    "strategy", [{}, {"strategy": "deepspeed", "deepspeed": {"stage": 3}}], ids=["ddp", "zero3"]
)
def test_two_ranks_train_a_part_and_leave_the_rest(
    make_run: Callable[..., Run], forks: Forks, tiny_model: Path, strategy: dict[str, Any]
) -> None:
    part = {"mode": "partial", "trainable": ["*.layers.1.*"], "max_steps": 2, "save_steps": 100}
    run = make_run(model={"name": str(tiny_model)}, train=part | strategy)
    assert run.train_forked(forks) == [0, 0], run.output
    assert "mode partial" in run.output
    before, after = (load_file(f / "model.safetensors") for f in (tiny_model, run.root / "model"))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".layers.1." in name}
