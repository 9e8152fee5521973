from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from clusterlm.data.blocks import IGNORE_INDEX, Blocks
from clusterlm.data.pack_fit import fit_documents
from clusterlm.train.blocks import BlockDataset, collate_blocks, widen_ids
from clusterlm.train.checkpoints import CheckpointStore
from clusterlm.train.trainer import BlockTrainer, label_weights, weighted_loss
from tests.data.tables import open_blocks, table_of, write_shards

VOCAB, SIZE = 60, 16
WEIGHTS = (0.0, 1.0, 0.25)


def _model(attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config)


def _blocks(folder: Path, *, role_weights: bool) -> Blocks:
    draw = np.random.default_rng(0)
    table = table_of([5, 9, 3, 12, 16, 7, 4, 11] * 4)
    total = int(table.lengths.sum())
    shards = write_shards(
        folder,
        draw.integers(0, VOCAB, total).tolist(),
        [],
        bits=(draw.random(total) < 0.7).tolist(),
        codes=draw.integers(0, 3, total).tolist() if role_weights else None,
        weights=WEIGHTS,
    )
    plan = fit_documents(table.starts, table.lengths, SIZE)
    return open_blocks(folder, plan, shards, SIZE, pad_id=0)


class _NoStore(CheckpointStore):
    def __init__(self) -> None:
        pass


def _trainer(
    folder: Path,
    blocks: Blocks,
    model: Any = None,
    *,
    sparse_logits: bool = True,
    **arguments: Any,
) -> BlockTrainer:
    args = TrainingArguments(
        output_dir=str(folder / "out"),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        save_strategy="no",
        max_grad_norm=0.0,
        max_steps=1,
        learning_rate=1.0,
        lr_scheduler_type="constant",
        optim="sgd",
        logging_steps=1,
        **arguments,
    )
    return BlockTrainer(
        store=_NoStore(),
        sparse_logits=sparse_logits,
        model=model or _model(),
        args=args,
        train_dataset=BlockDataset(blocks, seed=0),
        eval_dataset=BlockDataset(blocks, seed=0),
        data_collator=collate_blocks,
    )


def _mean_by_hand(model: Any, batch: dict[str, torch.Tensor]) -> float:
    """The weighted mean of the losses of all labels, one by one."""
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    with torch.no_grad():
        chances = model(**inputs, use_cache=False).logits.log_softmax(-1)
    loss = whole = 0.0
    for row in range(len(batch["labels"])):
        for t in range(1, SIZE):
            label = int(batch["labels"][row, t])
            if label != IGNORE_INDEX:
                weight = float(batch["loss_weights"][row, t])
                loss -= weight * float(chances[row, t - 1, label])
                whole += weight
    return loss / whole


def _batch(blocks: Blocks, indices: list[int]) -> dict[str, torch.Tensor]:
    return widen_ids(collate_blocks(blocks.batch(indices)))


def test_the_loss_is_the_weighted_mean_of_the_losses_of_all_labels(tmp_path: Path) -> None:
    blocks = _blocks(tmp_path, role_weights=True)
    trainer = _trainer(tmp_path, blocks)
    batch = _batch(blocks, [0, 1, 2, 3])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    assert float(loss) == pytest.approx(_mean_by_hand(trainer.model, batch), rel=1e-5)
    ones = {**batch, "loss_weights": torch.ones(4, SIZE)}
    plain = {name: batch[name] for name in ("input_ids", "position_ids", "labels")}
    with torch.no_grad():
        loss, unweighted = trainer.compute_loss(trainer.model, ones), trainer.model(**plain).loss
    assert float(loss) == pytest.approx(float(unweighted), rel=1e-5)


@pytest.mark.parametrize("role_weights", [True, False])
def test_a_step_is_the_same_however_it_is_cut_into_micro_batches(
    tmp_path: Path, role_weights: bool
) -> None:
    blocks = _blocks(tmp_path, role_weights=role_weights)
    states, losses = [], []
    for size, passes in ((8, 1), (4, 2), (1, 8)):
        trainer = _trainer(
            tmp_path, blocks, per_device_train_batch_size=size, gradient_accumulation_steps=passes
        )
        trainer.train()
        states.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-4, atol=1e-5)
    if role_weights:
        first = _batch(blocks, list(trainer.train_dataset.order)[:8])
        assert losses[0] == pytest.approx(_mean_by_hand(_model(), first), rel=1e-3)


def test_weights_matter(tmp_path: Path) -> None:
    losses = []
    for role_weights in (True, False):
        folder = tmp_path / str(role_weights)
        trainer = _trainer(folder, _blocks(folder, role_weights=role_weights))
        losses.append(trainer.evaluate()["eval_loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_where_nothing_counts_nothing_is_learned() -> None:
    logits = torch.randn(2, 4, 7, requires_grad=True)
    labels = torch.tensor([[1, 2, 3, 4], [IGNORE_INDEX] * 4])
    loss = weighted_loss(logits, labels, torch.zeros(2, 4))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not logits.grad.any()


def test_the_first_label_of_a_block_has_no_weight() -> None:
    labels = torch.tensor([[1, 2, IGNORE_INDEX]])
    assert label_weights(labels, torch.tensor([[0.5, 0.25, 1.0]])).tolist() == [[0.25, 0.0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_never_crosses_documents(tmp_path: Path, attention: str) -> None:
    blocks = _blocks(tmp_path, role_weights=False)
    trainer = _trainer(tmp_path, blocks, _model(attention))
    model = trainer.model.eval()
    num_looked_at = 0
    for index in range(len(blocks)):
        batch = _batch(blocks, [index])
        starts = [t for t in range(1, SIZE) if batch["position_ids"][0, t] == 0]
        for start in starts:
            other = {name: tensor.clone() for name, tensor in batch.items()}
            other["input_ids"][0, :start] = (other["input_ids"][0, :start] + 1) % VOCAB
            with torch.no_grad():
                as_it_is, changed = (model(**some).logits[0] for some in (batch, other))
            torch.testing.assert_close(as_it_is[start:], changed[start:])
            assert not torch.allclose(as_it_is[start - 1], changed[start - 1])
            num_looked_at += 1
    assert num_looked_at > 10


def test_a_document_is_seen_as_if_it_stood_alone(tmp_path: Path) -> None:
    model = _trainer(tmp_path, _blocks(tmp_path, role_weights=False)).model.eval()
    ids = torch.randint(0, VOCAB, (1, 10))
    with torch.no_grad():
        packed = model(ids, position_ids=torch.tensor([[*range(4), *range(6)]])).logits
        alone = model(ids[:, 4:], position_ids=torch.arange(6)[None]).logits
    torch.testing.assert_close(packed[:, 4:], alone, rtol=1e-4, atol=1e-5)


def test_the_saved_model_keeps_what_it_said_of_its_cache(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, _blocks(tmp_path, role_weights=False))
    assert trainer.model.config.use_cache is False
    trainer.save_model(str(tmp_path / "saved"))
    assert LlamaConfig.from_pretrained(tmp_path / "saved").use_cache is True
    assert trainer.model.config.use_cache is False


@pytest.mark.parametrize("role_weights", [False, True])
@pytest.mark.parametrize("sparse_logits", [False, True])
def test_rows_laid_flat_for_flash_attention_have_the_same_loss(
    tmp_path: Path, varlen: str, role_weights: bool, sparse_logits: bool
) -> None:
    blocks = _blocks(tmp_path, role_weights=role_weights)
    batch = _batch(blocks, [0, 1, 2])
    usual = _trainer(tmp_path, blocks, _model(), sparse_logits=False)
    wanted = usual.compute_loss(usual.model, usual._prepare_inputs(dict(batch)))
    flat = _trainer(tmp_path, blocks, _model(), sparse_logits=sparse_logits)
    assert (flat.head is not None) is sparse_logits
    flat.model.config._attn_implementation = varlen
    found = flat.compute_loss(flat.model, flat._prepare_inputs(dict(batch)))
    torch.testing.assert_close(found, wanted)
