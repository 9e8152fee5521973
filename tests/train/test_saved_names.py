"""Models that transformers saves under other names than they have in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from clusterlm.errors import TrainError
from clusterlm.train.saved_names import refuse_partial_load
from tests.train.forked import Forks
from tests.train.launching import Run

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
NEOX = {"class": "GPTNeoXForCausalLM", "config": SMALL | {"num_attention_heads": 4}}
MIXTRAL = {
    "class": "MixtralForCausalLM",
    "config": SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2},
}


@pytest.mark.parametrize("model", [NEOX, MIXTRAL], ids=["head", "experts"])
def test_a_resumed_training_has_every_weight(
    make_run: Callable[..., Run], forks: Forks, model: dict[str, Any]
) -> None:
    train = {"max_steps": 6, "save_steps": 3, "logging_steps": 1, "eval_steps": 6}
    run = make_run(ranks=1, model={"from_scratch": model}, train=train)
    assert run.train_forked(forks) == [0], run.output
    straight = run.losses()
    shutil.rmtree(run.checkpoint(6))

    (run.root / "LEASE").write_text('{"attempt": 2}')
    assert run.train_forked(forks, attempt=2, resume=str(run.checkpoint(3))) == [0], run.output
    assert run.losses() == straight


def test_a_weight_that_is_not_in_the_checkpoint_is_named_unless_it_is_tied() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    refuse_partial_load(model, SimpleNamespace(missing_keys=["b.weight"], unexpected_keys=[]))
    with pytest.raises(TrainError, match=r"a\.bias is not in it; the model has no c"):
        refuse_partial_load(
            model, SimpleNamespace(missing_keys=["a.bias", "b.weight"], unexpected_keys=["c"])
        )
