"""Engines on trial: each encodes the same texts in a process of its own, beside the reference.

Native code that crashes, hangs or panics takes only its own process with it, and is told in words.
Time is that of the processor, so two candidates on one core do not spoil each other's figures.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from clusterlm.data.tokens.engines import Engine, Ids, Numbers, TokenizersEngine, open_engine

TIMEOUT_S = 90
"""How long a candidate may take; it needs 2 s, and more on a busy machine."""

NUM_RANDOM = 1500
"""Texts made of the pieces that tokenizers disagree about."""
_SPECIALS = 40

# letters and marks that compose, spaces of all kinds, ends of lines, digits, marks of a vocabulary
_PIECES = (
    *"abZé\u0301ﬁßſКйЙ中。のก\u0e33한\u1100\u1161א🙂👩\u200d🔧🇷1²٣½/_-.,#'\"",
    *" \t\n\r\x0b\x85\xa0\u2003\u2028\u3000\ufeff\x00",
    *("  ", "\r\n", "\n\n", "'s", "'LL", "<|", "▁", "Ġ", "the ", " of", "привет", "2024"),
)
_ODD_TEXTS = (
    "",
    " ",
    "\n",
    "\x00",
    "a\x00b\x00\x00",
    "e\u0301 é \u0301a \u1e9b\u0323 \u212b \u2126",
    "line\r\nline\r\n\r\nline\rline\n\r\n\n\n  line",
    "a" * 5000,
    " " * 3000 + "x" + "\t" * 700 + "\n" * 900,
    "1234567890" * 200,
    "ab" * 1500 + "中文" * 800,
    "-" * 1000 + "=" * 77 + "!?" * 300,
    "🙂👩\u200d👩\u200d👧\u200d👦🏳\ufe0f\u200d🌈🇷🇺\u200b\u200e\ufeff",
    "x\xa0y\u2009z\u3000w\u1680v\u180eu\x85t",
    "DON'T we'Re I'M it'ſ ’s ''' 'd",
    "   leading, trailing   \n   and \t between \n",
    "def f(x):\n\n\n    return x  # ok\n\tif a:\n\t\tb\r\n",
    "\u0130\u0131 ǅ ß ﷺ \u0f0c \U0001d400 \U0010ffff \ue000",
)

Encoded = tuple[Ids, Numbers]


@dataclass(frozen=True)
class Trial:
    """What an engine made of the texts.

    Attributes:
        encoded: ids and ends of the odd texts, and of the two halves of the sample.
        load_s: until it had encoded its first letter.
        bytes_per_s: in the second half, when its cache had begun to fill.
        failure: in words, why there is nothing of this.
    """

    encoded: tuple[Encoded, ...] = ()
    load_s: float = 0.0
    bytes_per_s: float = 1.0
    failure: str | None = None


@dataclass(frozen=True)
class Trials:
    """The texts, in the three groups of `Trial.encoded`; what is right; what the others say."""

    texts: tuple[list[str], ...]
    right: Trial
    found: dict[str, Trial]


def run_trials(names: Sequence[str], tokenizer_json: Path, sample: Sequence[str]) -> Trials:
    """Let each named engine encode `sample` and texts that are made to be difficult."""
    with tempfile.TemporaryDirectory(prefix="clusterlm-engines-") as folder:
        texts_file = Path(folder) / "texts"
        with _candidates(names, tokenizer_json, texts_file) as candidates:
            # they load while the reference loads and encodes
            started = time.process_time()
            reference = TokenizersEngine(tokenizer_json)
            load_s = time.process_time() - started
            # every second text: both halves hold the same mix
            texts = ([*odd_texts(reference)], [*sample[::2]], [*sample[1::2]])
            texts_file.write_bytes(pickle.dumps(texts))
            for connection, _ in candidates.values():
                with suppress(OSError):  # it has given up
                    connection.send(None)
            right = _try(reference, texts, load_s)
            found = {name: _answer(*candidate) for name, candidate in candidates.items()}
    return Trials(texts, right, found)


def _try(engine: Engine, texts: Sequence[list[str]], load_s: float) -> Trial:
    encoded, speed = [], 1.0
    for group in texts:
        started = time.process_time()
        encoded.append(engine.encode(group))
        if group:
            seconds = time.process_time() - started
            speed = sum(len(text.encode()) for text in group) / max(seconds, 1e-6)
    return Trial(tuple(encoded), load_s, speed)


def odd_texts(reference: TokenizersEngine) -> Iterator[str]:
    """Texts that are made to be difficult for this tokenizer."""
    yield from _ODD_TEXTS
    added = sorted(
        token.content for token in reference.tokenizer.get_added_tokens_decoder().values()
    )
    # some of many, at even distances
    for token in added[:: len(added) // _SPECIALS + 1]:
        yield f"{token}a {token} b\n{token}\n{token}{token}  {token[:-1]} {token[1:]}c{token}"
    pick = random.Random(0)
    pieces = (*_PIECES, *added[:4])
    for _ in range(NUM_RANDOM):
        yield "".join(pick.choices(pieces, k=pick.randrange(1, 24)))


@contextmanager
def _candidates(
    names: Sequence[str], tokenizer_json: Path, texts_file: Path
) -> Iterator[dict[str, tuple[Connection, Any]]]:
    """A process for each name, loading already; gone at the end, whatever it does."""
    # a fork of a process that has used these libraries can hang
    context = multiprocessing.get_context("spawn")
    started: dict[str, tuple[Connection, Any]] = {}
    try:
        for name in names:
            ours, theirs = context.Pipe()
            arguments = (name, tokenizer_json, texts_file, theirs)
            process = context.Process(target=_run_candidate, args=arguments, daemon=True)
            process.start()
            theirs.close()
            started[name] = (ours, process)
        yield started
    finally:
        for connection, process in started.values():
            connection.close()
            process.kill()
            process.join()


def _run_candidate(
    name: str, tokenizer_json: Path, texts_file: Path, connection: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ends native code that hangs, also when the parent is gone
    signal.alarm(TIMEOUT_S)
    # a panic of Rust code is printed there, and comes as an exception too
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        started = time.process_time()
        engine = open_engine(name, tokenizer_json)
        engine.encode(["a"])
        load_s = time.process_time() - started
        connection.recv()
        trial = _try(engine, pickle.loads(texts_file.read_bytes()), load_s)
    except BaseException as error:  # a panic is no Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        trial = Trial(failure=f"cannot use this tokenizer ({reason[:160]})")
    connection.send(trial)


def _answer(connection: Connection, process: Any) -> Trial:
    try:
        if connection.poll(TIMEOUT_S):
            answer: Trial = connection.recv()
            return answer
    except (EOFError, OSError):
        process.join(TIMEOUT_S)
    code = process.exitcode
    if code is None or code == -signal.SIGALRM:
        return Trial(failure=f"gave no answer in {TIMEOUT_S} s")
    # -11 -> SIGSEGV
    how = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return Trial(failure=f"crashed ({how})")
