from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import CacheNotReady, TrainError
from clusterlm.train.opened import block_size, open_same_cache
from clusterlm.train.rank import Rank


class Ranks:
    """Two ranks of which the second one may see something else."""

    def __init__(self, *, same: bool) -> None:
        self._same = same

    def gather(self, text: str) -> list[str]:
        return [text, text if self._same else "else"]


def open_for(run: Path, cache: Path, *, same: bool = True) -> Any:
    rank = Rank.read(run, {"CLUSTERLM_CACHE": str(cache)})
    return open_same_cache(rank, Ranks(same=same))  # type: ignore[arg-type]


def test_the_data_of_the_run_is_opened(tmp_path: Path, cache: Path) -> None:
    fingerprint = json.loads((cache / "manifest.json").read_text())["fingerprint"]
    (tmp_path / "lock.json").write_text(json.dumps({"fingerprint": fingerprint}))
    assert block_size(open_for(tmp_path, cache)) == 32


def test_data_of_another_fingerprint_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "lock.json").write_text(json.dumps({"fingerprint": "0" * 32}))
    with pytest.raises(CacheNotReady, match="0000 is asked for"):
        open_for(tmp_path, cache)


def test_ranks_that_see_different_data_are_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(TrainError, match="rank 0 and rank 1 see different data"):
        open_for(tmp_path, cache, same=False)
