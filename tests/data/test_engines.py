from __future__ import annotations

import json
import os
import re
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clusterlm.data.tokens import engine_choice, engine_trial, engines
from clusterlm.data.tokens.engine_choice import choose_engine
from clusterlm.data.tokens.engine_trial import NUM_RANDOM, Trial, Trials, run_trials
from clusterlm.data.tokens.engines import FAST, Engine, is_installed, open_engine
from clusterlm.errors import DataError
from tests.data.styles import TEXTS, write_style

LARGE = 10**9
installed = [name for name in FAST if is_installed(name)]
needs_fast = pytest.mark.skipif(not installed, reason="needs the extra `fast`")


@pytest.fixture(autouse=True)
def threads_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # opening an engine sets them for the whole process
    for name in ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))


def _ids_of_each(engine: Engine, texts: list[str]) -> list[list[int]]:
    ids, ends = engine.encode(texts)
    assert (ids.dtype, ends.dtype) == (np.uint32, np.int64)
    assert len(ends) == len(texts)
    starts = [0, *ends.tolist()]
    return [ids[a:b].tolist() for a, b in zip(starts, starts[1:], strict=False)]


@pytest.mark.parametrize("name", ["tokenizers", *FAST])
@pytest.mark.parametrize("style", ["gpt2", "llama3", "qwen2", "o200k"])
def test_every_engine_gives_the_ids_of_the_library(tmp_path: Path, name: str, style: str) -> None:
    if not is_installed(name):
        pytest.skip(f"needs {name}")
    path = write_style(tmp_path, style, [{"content": "<|two|>", "special": True}])
    parts = json.loads(path.read_text())
    # somebody encoded with these last
    parts["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    path.write_text(json.dumps(parts))
    reference = engines.TokenizersEngine(path).tokenizer
    texts = ["", *TEXTS, "", "a<|end|>b <|two|><|end|>\n", "x" * 3000, *engine_trial._ODD_TEXTS]
    wanted = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    engine = open_engine(name, path)
    assert engine.name == name
    assert _ids_of_each(engine, texts) == wanted
    assert _ids_of_each(engine, []) == []
    assert _ids_of_each(engine, ["", ""]) == [[], []]


def test_large_texts_are_encoded_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine("tokenizers", write_style(tmp_path, "gpt2"))
    whole = _ids_of_each(engine, TEXTS)
    monkeypatch.setattr(engines, "_BATCH_CHARS", 100)
    assert _ids_of_each(engine, TEXTS) == whole


@pytest.mark.skipif(not is_installed("gigatoken"), reason="needs gigatoken")
def test_gigatoken_is_opened_anew_when_it_has_grown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = engines.GigatokenEngine._open
    monkeypatch.setattr(
        engines.GigatokenEngine, "_open", lambda self: (opened.append(1), real(self))
    )
    monkeypatch.setattr(engines, "CHECK_CHARS", 1000)
    path = write_style(tmp_path, "gpt2")
    expected = _ids_of_each(open_engine("tokenizers", path), TEXTS * 5)
    assert _ids_of_each(open_engine("gigatoken", path), TEXTS * 5) == expected
    assert len(opened) == 1
    monkeypatch.setattr(engines, "GROWTH_BYTES", -LARGE)
    assert _ids_of_each(open_engine("gigatoken", path), TEXTS * 5) == expected
    assert len(opened) > 5


def test_an_engine_that_is_named_needs_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "is_installed", lambda name: False)
    path = write_style(tmp_path, "gpt2")
    with pytest.raises(DataError, match=r"gigatoken is not installed; pip install 'clusterlm\[fa"):
        choose_engine("gigatoken", path, TEXTS, total_bytes=LARGE)
    choice = choose_engine("auto", path, TEXTS, total_bytes=LARGE)
    assert choice.names == ("tokenizers",)
    assert "pip install 'clusterlm[fast]'" in choice.lines[0]


def test_little_text_is_not_worth_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_choice, "run_trials", None)
    path = write_style(tmp_path, "gpt2")
    named = choose_engine("tokenizers", path, TEXTS, total_bytes=LARGE)
    assert named.names == ("tokenizers",)
    for size, workers in [(6_000_000, 1), (40_000_000, 8), (0, 1)]:
        choice = choose_engine("auto", path, TEXTS, total_bytes=size, workers=workers)
        assert (choice.names, choice.lines) == (("tokenizers",), ())
    # more: the fast ones in their order, each with the gate before it
    more = choose_engine("auto", path, TEXTS, total_bytes=200_000_000, workers=2)
    assert (more.names, more.lines) == ((*installed, "tokenizers"), ())


def _trial(ids: list[int], *, speed: float, load_s: float = 0.0) -> Trial:
    encoded = (np.array(ids, dtype=np.uint32), np.array([1, len(ids)], dtype=np.int64))
    return Trial((encoded,), load_s, speed)


def _pretend(monkeypatch: pytest.MonkeyPatch, **found: Trial) -> None:
    right = _trial([1, 2, 3, 4], speed=2e6)
    monkeypatch.setattr(engine_choice, "is_installed", lambda name: name in found)
    monkeypatch.setattr(
        engine_choice,
        "run_trials",
        lambda names, path, sample: Trials((["a", "text " * 20],), right, found),
    )


def test_the_one_that_is_through_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_start = _trial([1, 2, 3, 4], speed=60e6, load_s=0.5)
    quick_run = _trial([1, 2, 3, 4], speed=100e6, load_s=2)
    _pretend(monkeypatch, gigatoken=quick_start, fastokens=quick_run)
    choice = choose_engine("auto", Path("t"), TEXTS, total_bytes=10 * LARGE)
    assert choice.names == ("fastokens", "gigatoken", "tokenizers")
    assert choice.lines == (
        "engines on a trial, MB/s a worker: tokenizers 2, gigatoken 60, fastokens 100",
    )


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (_trial([1, 2, 9, 4], speed=9e9), r"for 'text .*'\.\.\.: \[9, 4\] and not \[3, 4\], from "),
        (_trial([1, 2, 3], speed=9e9), r": \[\] and not \[4\], from token 2"),
        (_trial([1, 2, 3, 4, 5], speed=9e9), r": \[5\] and not \[\], from token 3"),
        (Trial(failure="crashed (SIGSEGV)"), r"crashed \(SIGSEGV\)"),
    ],
)
def test_an_engine_with_other_ids_is_never_taken(
    monkeypatch: pytest.MonkeyPatch, wrong: Trial, reason: str
) -> None:
    _pretend(monkeypatch, gigatoken=wrong, fastokens=_trial([1, 2, 3, 4], speed=50e6))
    choice = choose_engine("auto", Path("t"), TEXTS, total_bytes=LARGE)
    assert choice.names == ("fastokens", "tokenizers")
    assert len(choice.lines) == 2
    assert re.fullmatch(rf"gigatoken .*{reason}.*; it is not used", choice.lines[0])


@needs_fast
def test_a_trial_runs_every_engine_on_difficult_texts_too(tmp_path: Path) -> None:
    path = write_style(tmp_path, "llama3", [{"content": "<|two|>", "special": True}])
    trials = run_trials(installed, path, TEXTS)
    odd, first, second = trials.texts
    assert (first, second) == (TEXTS[::2], TEXTS[1::2])
    assert len(odd) > NUM_RANDOM
    assert any("<|two|>" in text for text in odd)
    assert {len(text) for text in odd} > {0, 1, 5000}
    for trial in trials.found.values():
        assert trial.failure is None
        assert trial.load_s > 0
        for (ids, ends), (right_ids, right_ends) in zip(
            trial.encoded, trials.right.encoded, strict=True
        ):
            assert ids.tolist() == right_ids.tolist()
            assert ends.tolist() == right_ends.tolist()
    assert choose_engine("auto", path, TEXTS, total_bytes=LARGE).names[0] in installed


@needs_fast
def test_an_engine_that_cannot_load_a_tokenizer_says_so(tmp_path: Path) -> None:
    path = write_style(tmp_path, "gpt2")
    parts = json.loads(path.read_text())
    parts["pre_tokenizer"] = {"type": "Whitespace"}
    path.write_text(json.dumps(parts))
    choice = choose_engine("auto", path, TEXTS, total_bytes=LARGE)
    if choice.names == ("tokenizers",):
        assert all("it is not used" in line for line in choice.lines[:-1])
    found = run_trials(["gigatoken"], path, TEXTS).found if "gigatoken" in installed else {}
    for trial in found.values():
        assert trial.failure is None or "cannot use this tokenizer (" in trial.failure


def _crash(name: str, path: Path, texts_file: Path, connection: Connection) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit(name: str, path: Path, texts_file: Path, connection: Connection) -> None:
    os._exit(3)


def _hang(name: str, path: Path, texts_file: Path, connection: Connection) -> None:
    time.sleep(60)


@pytest.mark.parametrize(
    ("candidate", "failure"),
    [
        (_crash, "crashed (SIGSEGV)"),
        (_exit, "crashed (exit 3)"),
        (_hang, "gave no answer in 1 s"),
    ],
)
def test_native_code_that_crashes_or_hangs_takes_nothing_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidate: Any, failure: str
) -> None:
    monkeypatch.setattr(engine_trial, "_run_candidate", candidate)
    if candidate is _hang:
        monkeypatch.setattr(engine_trial, "TIMEOUT_S", 1)
    trials = run_trials(["fastokens"], write_style(tmp_path, "gpt2"), TEXTS)
    assert trials.found["fastokens"].failure == failure
