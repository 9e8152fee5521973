"""The gate: no engine writes a token before its ids are known to be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from clusterlm.data.preprocess import preprocess
from clusterlm.data.store import make_shards
from clusterlm.data.store.workers import Answer, Order, WorkerKilled
from clusterlm.data.tokens.engine_choice import Choice
from clusterlm.data.tokens.engine_gate import EngineRefused, Gate
from clusterlm.data.tokens.engines import FAST, TokenizersEngine
from clusterlm.errors import DataError
from clusterlm.paths import CachePaths
from clusterlm.spec.data import Data
from tests.data.corpus import data_of, fingerprint_of, prepare, stream_of, text_source, write_texts
from tests.data.styles import TEXTS, write_style


@pytest.fixture
def data(tmp_path: Path) -> Data:
    folder = tmp_path / "tok"
    folder.mkdir()
    path = write_style(folder, "gpt2")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(path))
    source = text_source(write_texts(tmp_path / "a.jsonl", 40))
    return data_of(source, tokenizer={"name": str(folder)})


def _told(data: Data) -> list[str]:
    told: list[str] = []
    root = CachePaths.of(fingerprint_of(data)).root
    preprocess(data, root, workers=2, report=lambda progress: None, tell=told.append)
    return told


def _choose(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("clusterlm.data.encoding.choose_engine", lambda *a, **o: Choice(names))


@pytest.mark.parametrize("engine", FAST)
def test_a_fast_engine_gives_the_ids_of_the_library(
    data: Data, monkeypatch: pytest.MonkeyPatch, engine: str, tmp_path: Path
) -> None:
    _choose(monkeypatch, engine)
    told = _told(data)
    assert told[-1].endswith(f"({engine})")
    ids = stream_of(prepare(data))
    _choose(monkeypatch, "tokenizers")
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "other"))
    assert stream_of(prepare(data)) == ids


def test_an_engine_with_other_ids_is_dropped_with_a_line_and_the_next_one_is_used(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Gate.difference

    def differs(self: Gate, found: Any) -> str | None:
        # as if the first engine had given one other id
        if not tried:
            tried.append(True)
            ids, ends = found
            found = np.where(np.arange(len(ids)) == 3, ids + 1, ids), ends
        return real(self, found)

    tried: list[bool] = []
    monkeypatch.setattr(Gate, "difference", differs)
    _choose(monkeypatch, "gigatoken", "tokenizers")
    told = _told(data)
    assert told[0].startswith("gigatoken gives other ids than tokenizers for ")
    assert told[0].endswith("; it is not used")
    assert told[-1].endswith("(tokenizers)")


def test_an_engine_that_was_asked_for_by_name_and_is_wrong_is_an_error(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate, "difference", lambda self, found: "gives other ids")
    asked = data.model_copy(update={"engine": "gigatoken"})
    with pytest.raises(DataError, match=r"data\.engine: gigatoken gives other ids; write auto"):
        prepare(asked)


def test_where_a_cut_changes_ids_nothing_is_cut(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.data.encode.check_cuts", lambda *a: False)
    told = _told(data)
    assert told[0] == "long texts are not cut: this tokenizer gives other tokens for the pieces"
    assert _told(data)[0] == told[0] or _told(data) == []


class _Gone:
    """A crew whose only worker dies, or says nothing."""

    size = 1

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    def send(self, worker: int, order: Order) -> None:
        pass

    def answer(self, timeout_s: float | None = None) -> tuple[int, Answer]:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "says"), [(WorkerKilled, "crashed"), (TimeoutError, "gave no answer in 120 s")]
)
def test_an_engine_that_crashes_or_hangs_is_refused(
    data: Data, monkeypatch: pytest.MonkeyPatch, error: type[Exception], says: str
) -> None:
    monkeypatch.setattr(make_shards, "crew_of", lambda *a: _Gone(error))
    _choose(monkeypatch, "fastokens")
    with pytest.raises(DataError, match=rf"fastokens {says}"):
        prepare(data)


def test_the_gate_names_the_first_text_that_differs(tmp_path: Path) -> None:
    encoder = Tokenizer.from_file(str(write_style(tmp_path, "llama3")))
    gate = Gate(encoder, TEXTS)
    right = TokenizersEngine.around(encoder).encode(gate.texts)
    assert gate.difference(right) is None
    ids, ends = right
    wrong = ids.copy()
    wrong[-1] += 1
    assert "gives other ids than tokenizers for" in str(gate.difference((wrong, ends)))
    assert "and not" in str(gate.difference((ids[:-1], np.minimum(ends, len(ids) - 1))))
    assert issubclass(EngineRefused, Exception)
