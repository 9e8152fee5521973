"""Weights without torch: what is read is what torch reads, what is written torch can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clusterlm.errors import WeightsError
from clusterlm.weights import writer as writing
from clusterlm.weights.files import Weights, WeightsWriter, read_header
from clusterlm.weights.numbers import round_to_bf16

KINDS = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    made = {kind: (torch.randn(7, 5) * 3).to(dtype) for kind, dtype in KINDS.items()}
    return {**made, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}


def test_every_type_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    tensors = _tensors()
    save_file(tensors, tmp_path / "model.safetensors")
    with Weights.open(tmp_path) as weights:
        assert set(weights.names) == set(tensors)
        for name, tensor in tensors.items():
            wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
            assert np.array_equal(weights.read(name), wide.numpy())
            assert weights.shape(name) == tuple(tensor.shape)
        some = np.array([6, 0, 0])
        assert np.array_equal(weights.read_rows("BF16", some), tensors["BF16"][some].float())


@pytest.mark.parametrize("limit", [10**9, 100])
@pytest.mark.parametrize("buffer", [64 << 20, 50])
def test_a_copy_has_the_same_bytes_in_any_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, buffer: int
) -> None:
    monkeypatch.setattr(writing, "BUFFER_BYTES", buffer)
    tensors = _tensors()
    (tmp_path / "new").mkdir()
    save_file(tensors, tmp_path / "model.safetensors")
    with Weights.open(tmp_path) as weights:
        writer = WeightsWriter(tmp_path / "new", limit)
        for name in weights.names:
            writer.add(name, weights.raw(name), weights.dtype(name), weights.shape(name))
        sizes = writer.finish()
    assert sizes == {p.name: p.stat().st_size for p in (tmp_path / "new").iterdir()}
    read: dict[str, torch.Tensor] = {}
    for file in (tmp_path / "new").glob("*.safetensors"):
        read |= load_file(file)
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    with Weights.open(tmp_path) as old, Weights.open(tmp_path / "new") as new:
        assert all(bytes(old.raw(name)) == bytes(new.raw(name)) for name in old)
        assert new.num_bytes == old.num_bytes
    if limit == 100:
        index = json.loads((tmp_path / "new/model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == new.num_bytes
        assert len(set(index["weight_map"].values())) > 3


def test_nothing_has_its_name_before_the_end(tmp_path: Path) -> None:
    writer = WeightsWriter(tmp_path, 10)
    writer.add("a", np.ones(4, np.float32))
    writer.add("b", np.ones(4, np.float32))
    assert not list(tmp_path.glob("[!.]*"))


def test_rounding_to_bf16_is_that_of_torch() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    ties = np.array([0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7FFFFFFF, 0xFF800001, 0], np.uint32)
    values = np.concatenate([bits, ties]).view(np.float32)
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16)
    found = torch.from_numpy(round_to_bf16(values).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found[~found.isnan()], expected[~expected.isnan()])


@pytest.mark.parametrize("kind", ["BF16", "F16", "F32"])
def test_an_array_is_rounded_to_the_type_asked_for(tmp_path: Path, kind: str) -> None:
    values = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    writer = WeightsWriter(tmp_path)
    writer.add("table", values, kind)
    writer.finish()
    found = load_file(tmp_path / "model.safetensors")["table"]
    assert torch.equal(found, torch.from_numpy(values).to(KINDS[kind]))


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="neither model.safetensors nor"):
        Weights.open(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(WeightsError, match="save_pretrained"):
        Weights.open(tmp_path)
    save_file({"a": torch.ones(100)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for cut in (0, 5, 40, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            Weights.open(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = tmp_path / "model.safetensors.index.json"
    for places, words in (({"a": "b.safetensors"}, "missing"), ({"a": "../x"}, "elsewhere")):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(WeightsError, match=words):
            Weights.open(tmp_path)


def test_a_tensor_is_written_once_and_whole(tmp_path: Path) -> None:
    writer = WeightsWriter(tmp_path)
    writer.add("a", np.ones(2, np.float32))
    with pytest.raises(WeightsError, match="before"):
        writer.add("a", np.ones(2, np.float32))
    with pytest.raises(WeightsError, match="no F32 of shape"):
        writer.add("b", b"123", "F32", (1,))


def test_a_header_that_is_full_begins_another_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "HEADER_BYTES", 1000)
    monkeypatch.setattr(writing, "BUFFER_BYTES", 0)
    writer = WeightsWriter(tmp_path)
    for k in range(20):
        writer.add(f"layer.{k}", np.full(3, k, np.float32))
    writer.finish()
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert sum(len(read_header(shard)) for shard in shards) == 20
    assert all(load_file(shard) for shard in shards)
