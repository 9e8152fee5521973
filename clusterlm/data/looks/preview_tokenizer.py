"""The tokenizer for a look at data that nobody has prepared yet.

One that exists is laid into a folder for the time of the look. One that is to be trained is taken
from the cache, where an earlier run has left it; else a stand-in is trained on a small sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clusterlm.data.fingerprint import describe
from clusterlm.data.looks.cache_names import TOKENIZERS, tokenizer_key
from clusterlm.data.reading import reading_order
from clusterlm.data.sample import sample_of
from clusterlm.data.summary import size_in_words
from clusterlm.data.tokenizer import fetch_tokenizer, train_tokenizer
from clusterlm.data.tokenizer_stage import is_done
from clusterlm.data.tokens.extend import extend_tokenizer
from clusterlm.paths import cache_dir
from clusterlm.spec.data import Data

SAMPLE_BYTES = 2_000_000
"""Trained on in a second or two."""


@contextmanager
def tokenizer_to_look(data: Data, tell: Callable[[str], None]) -> Iterator[Path]:
    """The folder of the tokenizer; `tell` gets a line when it is a stand-in.

    Raises:
        DataError: it is not there, or a source is not.
    """
    spec = data.tokenizer
    with_chat = any(source.kind != "text" for source in [*data.sources, *data.validation.sources])
    learns = spec.train is not None or (spec.extend is not None and spec.extend.learn > 0)
    if learns and (known := _known(data)) is not None:
        yield known
        return
    with tempfile.TemporaryDirectory(prefix="clusterlm-") as name:
        folder = Path(name) / "tokenizer"
        sample = None
        if learns:
            readings = [reading for reading in reading_order(data) if not reading.is_held_back]
            sample = sample_of(readings, max_bytes=SAMPLE_BYTES)
            tell(
                "the tokenizer is not trained yet; this one is, on"
                f" {size_in_words(sample.num_bytes)} of the sources: ids and cuts will differ"
            )
        if spec.train is not None:
            assert sample is not None
            train_tokenizer(spec, folder, sample.texts(), with_chat=with_chat)
        else:
            fetch_tokenizer(spec, folder, with_chat=with_chat)
        if spec.extend is not None:
            extend_tokenizer(folder, spec.extend, sample.texts() if sample else [])
        yield folder


def _known(data: Data) -> Path | None:
    """The one that an earlier run has trained on the same sources."""
    folder = cache_dir() / TOKENIZERS
    # the sources are hashed for the key: not for nothing
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    root = folder / tokenizer_key(describe(data))
    return root if is_done(root) else None
