"""A resized model: old rows byte for byte, new ones by the stated formula, all else as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clusterlm.data.tokens.spelling import compare, spell
from clusterlm.errors import WeightsError
from clusterlm.node.files import read_json
from clusterlm.weights import new_rows
from clusterlm.weights.new_rows import Spelling
from clusterlm.weights.resize import Resize, resize_model
from tests.weights.folders import (
    WIDTH,
    model_at,
    split_in_shards,
    tensors_of,
    tokenizer_at,
)

OLD_PIECES = ["th", "the", "an", "and"]
NEW_PIECES = [*OLD_PIECES, "then", "andr"]
ADDED = ["<the>", "the end"]
OLD = 94 + len(OLD_PIECES)
ENTRIES = 94 + len(NEW_PIECES) + len(ADDED)
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.fixture
def tokenizers(tmp_path: Path) -> tuple[Path, Path]:
    old = tokenizer_at(tmp_path / "old", OLD_PIECES)
    # `then` and `andr` are merged out of `the` + n and `and` + r
    new = tokenizer_at(tmp_path / "new", NEW_PIECES, ADDED)
    return old, new


def resized(tmp_path: Path, origin: Path, tokenizers: tuple[Path, Path], **options: Any) -> Path:
    old, new = tokenizers
    target = tmp_path / f"made{len(list(tmp_path.glob('made*')))}"
    target.mkdir()
    spelling = Spelling.of(list(spell(old, new, range(OLD, ENTRIES))))
    how = {"method": "weighted_mean", "spelling": spelling} | options
    resize_model(origin, new, target, Resize(ENTRIES, OLD, **how), max_shard_bytes=3000)
    return target


def expected_row(table: torch.Tensor, pieces: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """The formula, number by number."""
    rows = table.double().tolist()
    if not pieces:
        return np.array([sum(r[w] for r in rows[:OLD]) / OLD for w in range(table.shape[1])])
    total = sum(length for _, length in pieces)
    sums = [sum(rows[i][w] * length for i, length in pieces) for w in range(table.shape[1])]
    return np.array(sums) / total


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("in_shards", [True, False])
def test_rows_of_both_tables(
    tmp_path: Path, tokenizers: tuple[Path, Path], dtype: Any, tied: bool, in_shards: bool
) -> None:
    origin = model_at(tmp_path / "model", OLD, dtype=dtype, tied=tied, bias=not tied)
    if in_shards:
        split_in_shards(origin)
    before, after = tensors_of(origin), tensors_of(resized(tmp_path, origin, tokenizers))
    assert set(before) == set(after)
    spelt = list(spell(*tokenizers, range(OLD, ENTRIES)))
    for name, old in before.items():
        new = after[name]
        assert new.dtype == old.dtype
        if name not in (*TABLES, "lm_head.bias"):
            assert torch.equal(old, new)
            continue
        assert new.shape == (ENTRIES, *old.shape[1:])
        assert torch.equal(new[:OLD], old)
        wide = old.reshape(OLD, -1)
        rows = np.stack([expected_row(wide, pieces) for pieces in spelt])
        exact = torch.from_numpy(rows.astype(np.float32)).to(dtype).reshape(new[OLD:].shape)
        assert torch.equal(new[OLD:], exact)


def test_a_new_entry_is_spelt_by_old_pieces_and_their_lengths(
    tokenizers: tuple[Path, Path],
) -> None:
    old, new = tokenizers
    the, end = 94 + 1, OLD
    spelt = dict(zip(range(end, ENTRIES), spell(old, new, range(end, ENTRIES)), strict=True))
    letter = {chr(code): code - 33 for code in range(33, 127)}
    assert spelt[OLD] == [(the, 3), (letter["n"], 1)]
    assert spelt[OLD + 1] == [(94 + 3, 3), (letter["r"], 1)]
    assert spelt[OLD + 2] == [(letter["<"], 1), (the, 3), (letter[">"], 1)]


def test_means_and_random_rows(tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    origin = model_at(tmp_path / "model", OLD)
    old = tensors_of(origin)[TABLES[0]]
    mean = tensors_of(resized(tmp_path, origin, tokenizers, method="mean"))[TABLES[0]]
    assert torch.allclose(mean[OLD:], old.mean(0).expand(ENTRIES - OLD, -1), atol=1e-6)
    made = [
        tensors_of(resized(tmp_path, origin, tokenizers, method="random", seed=s, multiple_of=4096))
        for s in (1, 1, 2)
    ]
    tables = [one[TABLES[0]] for one in made]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert not torch.equal(made[0][TABLES[0]][OLD:], made[0][TABLES[1]][OLD:])
    many = tables[0][OLD:]
    assert len(many) == 4096 - OLD
    assert torch.allclose(many.mean(0), old.mean(0), atol=0.1)
    assert torch.allclose(many.std(0), old.std(0), atol=0.1)


def test_rows_are_rounded_up_and_those_without_an_entry_stay_or_get_the_mean(
    tmp_path: Path, tokenizers: tuple[Path, Path]
) -> None:
    exact = tensors_of(resized(tmp_path, model_at(tmp_path / "a", OLD), tokenizers))[TABLES[0]]
    up = resized(tmp_path, tmp_path / "a", tokenizers, multiple_of=64)
    table = tensors_of(up)[TABLES[0]]
    assert table.shape == (128, WIDTH)
    assert (read_json(up / "config.json") or {})["vocab_size"] == 128
    assert torch.equal(table[:ENTRIES], exact)
    assert torch.allclose(table[ENTRIES:], exact[:OLD].mean(0).expand(128 - ENTRIES, -1), atol=1e-6)
    # a model with spare rows: new entries take them, the others keep what is there
    spare = model_at(tmp_path / "b", 120)
    before = tensors_of(spare)[TABLES[0]]
    after = tensors_of(resized(tmp_path, spare, tokenizers))[TABLES[0]]
    assert torch.equal(after[:OLD], before[:OLD])
    assert torch.equal(after[ENTRIES:], before[ENTRIES:])
    assert not torch.equal(after[OLD:ENTRIES], before[OLD:ENTRIES])


def test_reading_in_small_pieces_changes_nothing(
    tmp_path: Path, tokenizers: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = model_at(tmp_path / "model", OLD)
    at_once = tensors_of(resized(tmp_path, origin, tokenizers))
    monkeypatch.setattr(new_rows, "AT_ONCE", 2)
    bit_by_bit = tensors_of(resized(tmp_path, origin, tokenizers))
    for name, table in at_once.items():
        assert torch.allclose(table, bit_by_bit[name], atol=1e-6)


def test_config_tokenizer_and_other_files_go_along(
    tmp_path: Path, tokenizers: tuple[Path, Path]
) -> None:
    origin = model_at(tmp_path / "model", OLD)
    (origin / "modeling_own.py").write_text("x = 1\n")
    (origin / "pytorch_model.bin").write_text("old")
    (origin / "tokenizer.model").write_text("old")
    generation = {"eos_token_id": [0, 5], "pad_token_id": 3}
    (origin / "generation_config.json").write_text(json.dumps(generation))
    told: list[str] = []
    target = tmp_path / "made"
    target.mkdir()
    ids = {"bos_token_id": None, "eos_token_id": 5, "pad_token_id": 4}
    wanted = Resize(ENTRIES, OLD, "mean")
    resize_model(origin, tokenizers[1], target, wanted, special_ids=ids, tell=told.append)
    config = read_json(target / "config.json") or {}
    assert config == {"vocab_size": ENTRIES, "eos_token_id": 5, "tie_word_embeddings": False}
    made = {"eos_token_id": [0, 5], "pad_token_id": 4}
    assert read_json(target / "generation_config.json") == made
    assert (target / "tokenizer.json").read_bytes() == (
        tokenizers[1] / "tokenizer.json"
    ).read_bytes()
    assert (target / "modeling_own.py").is_file()
    assert not (target / "pytorch_model.bin").exists()
    assert not (target / "tokenizer.model").exists()
    assert "config.json: eos_token_id 0 -> 5, as in the tokenizer of the data" in told


def test_a_table_that_is_not_known_is_refused(
    tmp_path: Path, tokenizers: tuple[Path, Path]
) -> None:
    origin = model_at(tmp_path / "model", OLD)
    tensors = tensors_of(origin)
    more = {**tensors, "model.embed_tokens_per_layer.weight": torch.ones(OLD, 4)}
    save_file(more, origin / "model.safetensors")
    with pytest.raises(WeightsError, match="embed_tokens_per_layer"):
        resized(tmp_path, origin, tokenizers)
    save_file({"model.layers.0.weight": torch.ones(OLD, 4)}, origin / "model.safetensors")
    with pytest.raises(WeightsError, match="no embedding of tokens"):
        resized(tmp_path, origin, tokenizers)
    quantized = {"model.embed_tokens.weight": torch.ones(OLD, 4, dtype=torch.uint8)}
    save_file(quantized, origin / "model.safetensors")
    with pytest.raises(WeightsError, match="quantized"):
        resized(tmp_path, origin, tokenizers)


def test_tokenizers_are_compared_id_by_id(tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    old, new = tokenizers
    assert compare(old, new).differ == 0
    assert compare(old, new).num_old == OLD
    other = tokenizer_at(tmp_path / "other", ["st", *OLD_PIECES[1:]])
    found = compare(old, other)
    assert found.differ == 1
    assert found.examples == ["id 94: 'th' there, 'st' here"]
