from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterlm.data.preprocess import preprocess
from clusterlm.spec.data import Data
from tests.train import forked
from tests.train.launching import TINY, Run

BLOCK_SIZE = 32


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 24,000 tokens of real text, 555 blocks of 32 tokens and some to validate on."""
    data = Data.model_validate(
        {
            "tokenizer": {"train": {"vocab_size": 400}},
            "block_size": BLOCK_SIZE,
            "sources": [{"kind": "text", "path": str(Path(sysconfig.get_path("stdlib"), "json"))}],
            "validation": {"fraction": 0.02},
        }
    )
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERLM_CACHE_DIR", str(folder))
        preprocess(data, folder / "data", workers=1, report=lambda progress: None)
    return folder / "data"


@pytest.fixture
def make_run(tmp_path: Path, cache: Path) -> Callable[..., Run]:
    """`make_run("name", train={...})` gives a run that can be trained."""

    def make(name: str = "run", **values: Any) -> Run:
        return Run(tmp_path / name, cache, **values)

    return make


@pytest.fixture(scope="session")
def forks() -> Iterator[forked.Forks]:
    """The process that ranks are forked from."""
    yield from forked.forks()


@pytest.fixture(scope="session")
def tokenizer(cache: Path) -> Any:
    """The tokenizer of the prepared data: 400 entries."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(cache / "tokenizer")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder with a model of two layers that fits the prepared data."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **TINY["config"])
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def varlen() -> Iterator[str]:
    """Name of an attention that works as FlashAttention does, for `config._attn_implementation`."""
    from transformers import AttentionInterface

    from tests.train import varlen as stand_in

    AttentionInterface.register(stand_in.NAME, stand_in.attend_within)
    yield stand_in.NAME
    del AttentionInterface._global_mapping[stand_in.NAME]
