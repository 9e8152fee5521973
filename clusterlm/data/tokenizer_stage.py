"""The tokenizer of a spec: fetched, extended or trained once, then found in the cache.

    <cache>/tokenizers/<key>/        tokenizer.json, its config, the chat template; DONE last

A trained one counts by what it is trained on, so that another block size, split or mix does not
train it again. The chat template is laid beside it here.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.data.fingerprint import Parts
from clusterlm.data.hashes import hash_file
from clusterlm.data.looks.cache_names import TOKENIZERS, learns_of_sources, tokenizer_key
from clusterlm.data.progress import Progress, Report
from clusterlm.data.reading import Reading
from clusterlm.data.sample import Sample, sample_of
from clusterlm.data.store.aside import WRITER, Aside
from clusterlm.data.summary import size_in_words
from clusterlm.data.tokenizer import (
    FACTS,
    Vocabulary,
    fetch_tokenizer,
    note_vocabulary,
    read_vocabulary,
    train_tokenizer,
)
from clusterlm.errors import DataError
from clusterlm.node.files import read_json, write_json
from clusterlm.spec.data import Data, Tokenizer

DONE = "DONE"


@dataclass(frozen=True)
class PreparedTokenizer:
    """A tokenizer in the cache.

    Attributes:
        about: for the manifest: where it came from, or what it was trained on.
    """

    folder: Path
    about: dict[str, Any]


def prepare_tokenizer(
    data: Data, readings: Sequence[Reading], parts: Parts, cache: Path, report: Report
) -> PreparedTokenizer:
    """The tokenizer that the spec asks for.

    Args:
        data: the spec.
        readings: its sources.
        parts: of the fingerprint; those of the sources count only where it is trained on them.
        cache: the folder of all prepared data.
        report: told how far it is.

    Raises:
        DataError: it is not there, or cannot be extended.
    """
    spec = data.tokenizer
    learns = learns_of_sources(parts)
    with_chat = any(reading.is_conversation for reading in readings)
    root = cache / TOKENIZERS / tokenizer_key(parts)
    if not is_done(root):
        aside = Aside(root)
        try:
            sample = sample_of(_trained_on(readings)) if learns else None
            about = _make(spec, aside.folder, sample, report, with_chat=with_chat)
            note_vocabulary(_checked(spec, aside.folder))
            done = {"about": about, "files": _hashes_of(aside.folder)}
            write_json(aside.folder / DONE, done, mode=0o644)
            aside.publish(is_done)
        except BaseException:
            aside.discard()
            raise
    return PreparedTokenizer(root, (read_json(root / DONE) or {}).get("about") or {})


def copy_tokenizer(origin: Path, folder: Path) -> None:
    """Lay a prepared tokenizer into a folder of its own."""
    folder.mkdir()
    for path in sorted(origin.iterdir()):
        if path.name not in (DONE, FACTS):
            shutil.copyfile(path, folder / path.name)


def _checked(spec: Tokenizer, folder: Path) -> Vocabulary:
    try:
        return read_vocabulary(folder)
    except DataError as error:
        # the user knows where it came from, and not where it is copied to
        raise DataError(str(error).replace(str(folder), str(spec.name))) from error


def is_done(root: Path) -> bool:
    """Whether the tokenizer in `root` is whole: every file is what was written."""
    files = (read_json(root / DONE) or {}).get("files")
    try:
        return bool(files) and files == _hashes_of(root)
    except DataError:
        return False


def _hashes_of(folder: Path) -> dict[str, str]:
    names = sorted(path.name for path in folder.iterdir() if path.name not in (DONE, WRITER))
    return {name: hash_file(folder / name) for name in names}


def _trained_on(readings: Sequence[Reading]) -> list[Reading]:
    return [reading for reading in readings if not reading.is_held_back]


def _make(
    spec: Tokenizer, folder: Path, sample: Sample | None, report: Report, *, with_chat: bool
) -> dict[str, Any]:
    about: dict[str, Any] = {}
    if sample is not None:
        about = {"trained_on_bytes": sample.num_bytes, "of_bytes": sample.of_bytes}
        report(Progress(f"training the tokenizer on {size_in_words(sample.num_bytes)}"))
    if spec.train is not None:
        assert sample is not None
        train_tokenizer(spec, folder, sample.texts(), with_chat=with_chat)
    else:
        report(Progress("loading the tokenizer"))
        texts = sample.texts() if sample else ()
        fetch_tokenizer(spec, folder, texts, with_chat=with_chat)
        about |= {"name": spec.name, "revision": spec.revision}
    return about
