"""Each test of this room has a cache folder of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.data.corpus import cache_at, data_of, prepare, text_source, write_texts


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> dict[str, str]:
    """One that is not trained on the sources, so that these may grow."""
    with cache_at(tmp_path / "other"):
        cache = prepare(data_of(text_source(write_texts(tmp_path / "t.jsonl", 50))))
    shutil.copytree(cache.tokenizer_dir, tmp_path / "tok")
    return {"name": str(tmp_path / "tok")}
