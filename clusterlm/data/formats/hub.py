"""Datasets of the hub: loaded by `datasets` into its own cache, then read as its arrow files.

Where they are is known only where they can be fetched, so the preprocess phase resolves them and
the login node does not. `HF_HOME`, `HF_HUB_OFFLINE` and the rest hold as `datasets` has it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusterlm.data.files import SourceFile, list_files
from clusterlm.data.formats.saved import choose_split
from clusterlm.data.formats.slices import parse_split
from clusterlm.errors import DataError
from clusterlm.spec.sources import Source

MAX_REASON_CHARS = 300


def resolve_files(source: Source) -> list[SourceFile]:
    """The files of any source, in reading order; a hub dataset is fetched for it.

    Raises:
        DataError: nothing is there, or the hub's dataset cannot be had.
    """
    if source.hub is None:
        return list_files(source)
    # imported here: it takes seconds, and most sources are files
    import datasets

    split, _ = parse_split(source.split)
    try:
        found = datasets.load_dataset(
            source.hub,
            source.subset,
            split=split,
            revision=source.revision,
            keep_in_memory=False,
        )
    # `datasets` lets through whatever its network and format libraries raise
    except Exception as error:
        raise DataError(_in_words(source, error, is_offline=_is_offline(datasets))) from error
    if isinstance(found, Mapping):
        found = found[choose_split(split, list(found), f"data source {source.hub!r}")]
    files = [_file_of(Path(entry["filename"])) for entry in found.cache_files]
    if not files:
        raise DataError(f"data source {source.hub!r}: it has no rows")
    return files


def _file_of(path: Path) -> SourceFile:
    try:
        return SourceFile(path, path.name, path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _in_words(source: Source, error: Exception, *, is_offline: bool) -> str:
    parts = [source.subset and f"subset {source.subset}", source.split and f"split {source.split}"]
    parts.append(source.revision and f"revision {source.revision}")
    asked = ", ".join([f"data source {source.hub!r} on the hub", *filter(None, parts)])
    revision = f" --revision {source.revision}" if source.revision else ""
    return (
        f"{asked}: {_reason(error, is_offline=is_offline)}\n"
        f"  or fetch it where there is a network: hf download {source.hub} --repo-type dataset"
        f"{revision} --local-dir FOLDER\n"
        f"  then write `path: FOLDER` in place of `hub: {source.hub}`"
    )


def _reason(error: Exception, *, is_offline: bool) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    said = text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]}..."
    name = type(error).__name__
    if "gated" in text:
        return "it is gated; ask for access on its page, log in with `hf auth login`"
    if "script" in text and isinstance(error, RuntimeError):
        return (
            "it is made by a script, which `datasets` no longer runs; try `revision:"
            " refs/convert/parquet`, where the hub keeps its files"
        )
    if is_offline or isinstance(error, ConnectionError) or "Offline" in name or "Connect" in name:
        why = "HF_HUB_OFFLINE is set" if is_offline else "this machine cannot reach it"
        return f"it is not in the cache, and {why} ({said})"
    if name == "DatasetNotFoundError":
        return f"there is none of that name, or it is private; `hf auth login` if it is ({said})"
    return said


def _is_offline(datasets: Any) -> bool:
    value = getattr(datasets.config, "HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE"))
    return str(value).upper() in ("1", "TRUE", "YES", "ON")
