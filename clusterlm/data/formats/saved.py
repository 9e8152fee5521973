"""Folders that `datasets` or `hf download` wrote: which of their files are a split, in which order.

    FOLDER/state.json                  one saved dataset: `_data_files`, in that order
    FOLDER/dataset_dict.json           several splits, each such a folder
    FOLDER/.cache/huggingface/         made by `hf download --local-dir FOLDER`

In a downloaded folder the splits show in the names only (`data/train-00000-of-00004.parquet`), and
a README is no document. Where nothing else is said, the split is `train`, or the only one there is.
Light: standard library and the spec only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clusterlm.data.formats.slices import parse_split
from clusterlm.errors import DataError
from clusterlm.spec.sources import Source

DEFAULT_SPLIT = "train"

_USUAL_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "eval")


def saved_names(base: Path, source: Source) -> list[str] | None:
    """The files of a dataset saved in `base`, below it; None when none was saved there.

    Raises:
        DataError: there is no such split, or a file is missing.
    """
    prefix = f"{source.subset}/" if source.subset else ""
    split, _ = parse_split(source.split)
    splits = _json(base / prefix / "dataset_dict.json", "splits")
    if splits is not None:
        split = choose_split(split, list(splits), f"data source {source.path!r}")
        prefix += f"{split}/"
    files = _json(base / prefix / "state.json", "_data_files")
    if files is None and splits is not None:
        raise DataError(f"{base / prefix}: a saved dataset without its state.json; copy it again")
    if files is None:
        return None
    if splits is None and split is not None:
        own = _json(base / prefix / "state.json", "_split")
        choose_split(split, [own] if own else [], f"data source {source.path!r}")
    return [prefix + str(file["filename"]) for file in files]


def downloaded_names(
    base: Path, names: Sequence[str], source: Source, holds_records: Callable[[str], bool]
) -> list[str]:
    """Those of the `names` in a folder that are the chosen subset and split.

    A folder that `hf download` did not make has neither, and all its names are given back.

    Raises:
        DataError: no name is of that subset or split.
    """
    split, _ = parse_split(source.split)
    if not (base / ".cache" / "huggingface").is_dir():
        if (asked := refused_choice(source)) is not None:
            raise DataError(asked)
        return list(names)
    found = [name for name in names if holds_records(name)] or list(names)
    # a description, not data
    found = [name for name in found if name.split("/")[-1] != "dataset_infos.json"]
    if source.subset:
        found = [name for name in found if name.startswith(f"{source.subset}/")]
        if not found:
            there = sorted({name.split("/")[0] for name in names if "/" in name})
            raise DataError(
                f"data source {source.path!r}: no folder {source.subset!r} in it; there are:"
                f" {', '.join(there) or 'none'}"
            )
    by_split = {name: [n for n in found if _is_of(n, name)] for name in _USUAL_SPLITS}
    there = [name for name, members in by_split.items() if members]
    if split is None and not there:
        return found
    of_split = [name for name in found if split is not None and _is_of(name, split)]
    if of_split:
        return of_split
    return by_split[choose_split(split, there, f"data source {source.path!r}")]


def choose_split(asked: str | None, there: Sequence[str], whose: str) -> str:
    """The split that was asked for, else `train`, else the only one.

    Raises:
        DataError: it is not there, or it is not clear which.
    """
    if asked in there:
        return str(asked)
    listed = ", ".join(there) or "none"
    if asked is not None:
        raise DataError(f"{whose}: no split {asked!r}; there are: {listed}")
    if DEFAULT_SPLIT in there:
        return DEFAULT_SPLIT
    if len(there) != 1:
        raise DataError(f"{whose}: say which split; there are: {listed}")
    return there[0]


def refused_choice(source: Source) -> str | None:
    """What is wrong with choosing a split or subset of files that have none; None for nothing."""
    split, _ = parse_split(source.split)
    if split is not None:
        return (
            f"data source {source.path!r}: split {split!r}, but these files have no splits; write"
            " only the rows, as [:1000], or name the files of the split in `path`"
        )
    if source.subset is not None:
        return (
            f"data source {source.path!r}: subset {source.subset!r}, but these files have no"
            " subsets; name the folder in `path`"
        )
    return None


def _is_of(name: str, split: str) -> bool:
    # data/train-00000-of-00002.parquet, train/0.jsonl, en_train.csv
    return re.search(rf"(?:^|[-_./ ]){re.escape(split)}(?:[-_./ ]|$)", name) is not None


def _json(path: Path, key: str) -> Any:
    # a pipe is none: it would be waited for
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    return value.get(key) if isinstance(value, dict) else None
