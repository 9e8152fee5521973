"""Logits only where there is a label: the same loss and the same gradients as with all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, MixtralConfig

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.supervised_loss import find_head, loss_of_labels
from clusterlm.train.trainer import weighted_loss
from tests.train.test_attention import FAMILIES, IDS, POSITIONS, make_model

LABELS = torch.where(
    torch.rand(IDS.shape, generator=torch.Generator().manual_seed(1)) < 0.3, IDS, -100
)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@pytest.mark.parametrize("family", ["LlamaConfig", "Gemma2Config", "GPT2Config", "MixtralConfig"])
@pytest.mark.parametrize("total", [None, torch.tensor(31)])
def test_loss_and_gradients_are_those_of_the_model(family: str, total: Any) -> None:
    model = make_model(family, "eager").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = {"input_ids": IDS, "position_ids": POSITIONS, "labels": LABELS}
    counted = {} if total is None else {"num_items_in_batch": total}
    usual = model(**batch, **counted)["loss"]
    wanted = gradients(model, usual)
    head, _ = find_head(model)
    assert head is not None
    ours = loss_of_labels(head, model, batch, total)
    torch.testing.assert_close(ours, usual)
    torch.testing.assert_close(gradients(model, ours), wanted)
    # the hook lies still when nothing is asked of it
    torch.testing.assert_close(model(**batch, **counted)["loss"], usual)


def test_weights_count_as_with_all_logits() -> None:
    model = make_model("LlamaConfig", "sdpa")
    weights = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(2))
    batch = {"input_ids": IDS, "position_ids": POSITIONS}
    usual = weighted_loss(model(**batch)["logits"], LABELS, weights)
    head, _ = find_head(model)
    assert head is not None
    ours = loss_of_labels(head, model, batch | {"labels": LABELS, "loss_weights": weights})
    torch.testing.assert_close(ours, usual)


def test_a_micro_batch_without_labels_adds_nothing_and_still_has_gradients() -> None:
    model = make_model("LlamaConfig", "sdpa")
    head, _ = find_head(model)
    assert head is not None
    batch = {
        "input_ids": IDS,
        "position_ids": POSITIONS,
        "labels": torch.full_like(IDS, IGNORE_INDEX),
    }
    loss = loss_of_labels(head, model, batch, torch.tensor(9))
    assert loss.item() == 0.0
    # ranks must have the same gradients to add up
    found = gradients(model, loss)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(not grad.any() for grad in found.values())


def test_where_it_would_not_be_the_same_the_usual_way_is_kept() -> None:
    class Own(type(make_model("LlamaConfig", "sdpa"))):  # type: ignore[misc]
        def forward(self, *args: Any, **named: Any) -> Any:
            found = super().forward(*args, **named)
            if "loss" in found:
                found["loss"] = found["loss"] * 2
            return found

    head, why = find_head(Own(LlamaConfig(**FAMILIES["LlamaConfig"])))
    assert head is None
    assert "not give the same loss" in why
    router = MixtralConfig(**FAMILIES["MixtralConfig"], output_router_logits=True)
    head, why = find_head(type(make_model("MixtralConfig", "sdpa"))(router))
    assert head is None
    assert "router" in why


# peft 0.21 asks transformers 5 under a name that is to go
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_keeps_its_way_through_the_head() -> None:
    from peft import LoraConfig, get_peft_model

    model = make_model("LlamaConfig", "sdpa")
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "lm_head"]))
    batch = {"input_ids": IDS, "position_ids": POSITIONS, "labels": LABELS}
    usual = adapted.eval()(**batch)["loss"]
    head, _ = find_head(adapted)
    assert head is not None
    torch.testing.assert_close(loss_of_labels(head, adapted, batch), usual)
