"""Which files a source means, and in which order they are read.

Names are sorted by their bytes below the folder that the path starts in, so the order is the same
on every machine and wherever the folder lies. Hidden files and `__pycache__` are left out unless
the pattern names them; pipes and devices always are, since to open one may wait without end.
Folders that `datasets` or `hf download` wrote have their own order and splits, see `saved.py`.
Light: standard library and the spec only.
"""

from __future__ import annotations

import os
import re
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clusterlm.data.formats.saved import downloaded_names, refused_choice, saved_names
from clusterlm.errors import DataError
from clusterlm.spec.sources import Source, TextSource

Packing = Literal["gz", "zst"]
Format = Literal["text", "lines", "rows", "parquet", "arrow"]

FORMATS: dict[str, Format] = {
    ".jsonl": "lines",
    ".json": "lines",
    ".csv": "rows",
    ".tsv": "rows",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
"""By the end of the name, before that of the packing; any other file is plain text."""

PACKINGS: dict[str, Packing] = {".gz": "gz", ".zst": "zst"}

_MAGIC = re.compile(r"[*?\[]")
_GLOB_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_TRANSLATED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: where it lies.
        name: below the folder that the source's path starts in, with `/`.
        is_list: a .json file that holds one list, and not lines.
        is_by_line: where it is plain text, each of its lines is a document.
    """

    path: Path
    name: str
    num_bytes: int
    is_list: bool = False
    is_by_line: bool = False

    @property
    def packing(self) -> Packing | None:
        return PACKINGS.get(self.path.suffix.lower())

    @property
    def suffix(self) -> str:
        """What tells the format: `.jsonl` of `a.jsonl.gz`."""
        name = self.path.name.lower()
        return Path(name[: name.rindex(".")] if self.packing else name).suffix

    @property
    def format(self) -> Format:
        if self.has_text_lines:
            return "lines"
        return "rows" if self.is_list else FORMATS.get(self.suffix, "text")

    @property
    def has_text_lines(self) -> bool:
        """Whether its lines are documents as they stand, and no JSON."""
        return self.is_by_line and self.suffix not in FORMATS

    @property
    def is_sequential(self) -> bool:
        """Whether it can be read from its beginning only."""
        return self.format == "rows" or (self.format == "lines" and self.packing is not None)

    @property
    def how_read(self) -> str:
        """What besides its bytes settles its records; it is in every key, and the name is not.

        # a.jsonl, b.json -> lines      a.txt, README -> text      list.json -> rows .json list
        # a.jsonl.gz -> lines .jsonl gz            a.txt.gz by line -> lines gz by-line
        """
        # .csv and .tsv part fields in their own way, and a packed .json alone may turn out a list
        has_own_way = self.is_sequential and not self.has_text_lines
        parts = (
            self.format,
            self.suffix if has_own_way else "",
            self.packing or "",
            "list" if self.is_list else "",
            "by-line" if self.has_text_lines else "",
        )
        return " ".join(filter(None, parts))


def list_files(source: Source) -> list[SourceFile]:
    """The files of `source`, in reading order; at least one, but none for a hub dataset.

    Those of a hub dataset are known only where it is loaded, see `hub.py`.

    Raises:
        DataError: nothing is there, or no regular file, there is no such split, or a conversation
            source meets a file that holds no records.
    """
    if source.path is None:
        return []
    base, pattern = _base_and_pattern(source.path)
    by_line = isinstance(source, TextSource) and source.documents == "line"
    if pattern == "**" and (saved := saved_names(base, source)) is not None:
        return [_regular_file(base, name) for name in saved]
    is_one = pattern != "**" and (base / pattern).exists()
    names = [pattern] if is_one else list(_walk(base, pattern, source.exclude))
    if pattern == "**":
        names = downloaded_names(base, names, source, holds_records)
    elif (asked := refused_choice(source)) is not None:
        raise DataError(asked)
    file_of = _regular_file if is_one else _file_of
    found = (file_of(base, name, by_line=by_line) for name in sorted(names, key=os.fsencode))
    files = [file for file in found if file is not None]
    if source.kind != "text":
        some = f"{len(files)} files, and none" if files else ""
        files = _with_records(files, is_folder=pattern == "**", path=source.path)
        if some and not files:
            raise DataError(
                f"data source {source.path!r}: {some} of them holds records"
                f" ({', '.join(FORMATS)}); plain texts are `kind: text`"
            )
    if not files:
        raise DataError(_nothing_found(source.path, source.exclude, base, pattern))
    if by_line and not any(file.has_text_lines for file in files):
        raise DataError(
            f"{files[0].path}: holds records, and `documents: line` is for plain text; leave it"
            f" out (data source {source.path!r})"
        )
    return files


def holds_records(name: str) -> bool:
    """Whether a file of that name holds records, and not one document."""
    return SourceFile(Path(name), name, 0).format != "text"


def regex_of(glob: str) -> re.Pattern[str]:
    """A glob as a pattern for the whole relative path; `**/` is any number of folders.

    # "lib/**/*" -> lib/(?:.*/)?[^/]*
    """
    out = []
    for token in _GLOB_TOKENS.findall(glob):
        if len(token) > 1 and token[0] == "[":
            body = token[1:-1].replace("\\", "\\\\")
            out.append(f"[^{body[1:]}]" if body.startswith("!") else f"[{body}]")
        else:
            out.append(_TRANSLATED.get(token) or re.escape(token))
    return re.compile("".join(out), re.DOTALL)


def _base_and_pattern(path: str) -> tuple[Path, str]:
    text = path.replace("{stdlib}", sysconfig.get_paths()["stdlib"])
    whole = Path(text).expanduser().absolute()
    if whole.is_dir():
        return whole, "**"
    if whole.exists() or not _MAGIC.search(text):
        return whole.parent, whole.name
    parts = whole.parts
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    return Path(*parts[:first]), "/".join(parts[first:])


def _walk(base: Path, pattern: str, exclude: list[str]) -> Iterator[str]:
    if not base.is_dir():
        return
    wanted = regex_of(pattern)
    unwanted = [regex_of(glob) for glob in exclude]
    with_hidden = any(part.startswith(".") for part in pattern.split("/"))
    depth = None if "**" in pattern else pattern.count("/")
    seen: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(base, onerror=_refuse, followlinks=True):
        inside = os.path.relpath(folder, base).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        # a link to a folder above would be walked without end
        identity = (os.stat(folder).st_dev, os.stat(folder).st_ino)
        is_too_deep = depth is not None and prefix.count("/") >= depth
        if identity in seen or is_too_deep:
            folders.clear()
        if identity in seen:
            continue
        seen.add(identity)
        folders[:] = sorted(
            name
            for name in folders
            if (with_hidden or not name.startswith("."))
            and name != "__pycache__"
            and not _is_excluded(f"{prefix}{name}/", unwanted)
        )
        if {"state.json", "dataset_info.json"} <= set(names):
            # one that `datasets` saved, among others: the rest only describes it
            names = [name for name in names if name.endswith(".arrow")]
        for name in names:
            path = prefix + name
            is_visible = (with_hidden or not name.startswith(".")) and name != "dataset_dict.json"
            if is_visible and wanted.fullmatch(path) and not _is_excluded(path, unwanted):
                yield path


def _refuse(error: OSError) -> None:
    # os.walk would pass over a folder that it may not read
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_excluded(path: str, unwanted: list[re.Pattern[str]]) -> bool:
    # "test" and "test/**" both leave out everything below test
    return any(glob.fullmatch(path) or glob.fullmatch(path.rstrip("/")) for glob in unwanted)


def _regular_file(base: Path, name: str, *, by_line: bool = False) -> SourceFile:
    file = _file_of(base, name, by_line=by_line)
    if file is None:
        raise DataError(
            f"{base / name}: no regular file but a pipe, socket or device, which cannot be read"
            " twice; write what comes out of it to a file"
        )
    return file


def _file_of(base: Path, name: str, *, by_line: bool = False) -> SourceFile | None:
    """The file of that name; None where it is a pipe, a socket or a device."""
    path = base / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        is_list = path.suffix.lower() == ".json" and _begins_with_bracket(path)
        return SourceFile(path, name, status.st_size, is_list=is_list, is_by_line=by_line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _begins_with_bracket(path: Path) -> bool:
    with path.open("rb") as handle:
        start = handle.read(4096).removeprefix(b"\xef\xbb\xbf")
    return start.lstrip().startswith(b"[")


def _with_records(files: list[SourceFile], *, is_folder: bool, path: str) -> list[SourceFile]:
    holding = [file for file in files if file.format != "text"]
    if not is_folder and len(holding) < len(files):
        odd = next(file for file in files if file.format == "text")
        raise DataError(
            f"{odd.path}: a chat or instruct source reads {', '.join(FORMATS)}, and this is none"
            f" of them (data source {path!r})"
        )
    return holding


def _nothing_found(path: str, exclude: list[str], base: Path, pattern: str) -> str:
    if not base.exists():
        found = f"the folder {base} does not exist"
    elif pattern == "**":
        found = f"no file in the folder {base}"
    elif _MAGIC.search(pattern):
        found = f"no file matches {pattern} in {base}"
    else:
        found = f"{base / pattern} does not exist"
    left_out = f" (leaving out {', '.join(exclude)})" if exclude else ""
    return f"data source {path!r}: {found}{left_out}; a path is relative to the YAML"
