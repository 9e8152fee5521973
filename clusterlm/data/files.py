"""Which files a source means, and in which order they are read.

Names are sorted by their bytes below the folder that the path starts in, so the order is the same
on every machine and wherever the folder lies. Hidden files and `__pycache__` are left out unless
the pattern names them. Light: standard library and the spec only.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clusterlm.errors import DataError
from clusterlm.spec.data import Source

Format = Literal["lines", "parquet", "text"]

FORMATS: dict[str, Format] = {".jsonl": "lines", ".json": "lines", ".parquet": "parquet"}
"""By the end of the name; any other file is one document."""

_MAGIC = re.compile(r"[*?\[]")
_GLOB_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)
_TRANSLATED = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: where it lies.
        name: below the folder that the source's path starts in, with `/`.
    """

    path: Path
    name: str
    num_bytes: int

    @property
    def format(self) -> Format:
        return FORMATS.get(self.path.suffix.lower(), "text")


def list_files(source: Source) -> list[SourceFile]:
    """The files of `source`, in reading order; at least one.

    Raises:
        DataError: nothing is there, or a conversation source meets a file that holds no records.
    """
    base, pattern = _base_and_pattern(source.path)
    names = [pattern] if (base / pattern).is_file() else list(_walk(base, pattern, source.exclude))
    files = [_file_of(base, name) for name in sorted(names, key=os.fsencode)]
    if source.kind != "text":
        files = _with_records(files, is_folder=pattern == "**", path=source.path)
    if not files:
        raise DataError(_nothing_found(source, base, pattern))
    return files


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
        for name in names:
            path = prefix + name
            is_visible = with_hidden or not name.startswith(".")
            if is_visible and wanted.fullmatch(path) and not _is_excluded(path, unwanted):
                yield path


def _refuse(error: OSError) -> None:
    # os.walk would pass over a folder that it may not read
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_excluded(path: str, unwanted: list[re.Pattern[str]]) -> bool:
    # "test" and "test/**" both leave out everything below test
    return any(glob.fullmatch(path) or glob.fullmatch(path.rstrip("/")) for glob in unwanted)


def _file_of(base: Path, name: str) -> SourceFile:
    path = base / name
    try:
        return SourceFile(path=path, name=name, num_bytes=path.stat().st_size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _with_records(files: list[SourceFile], *, is_folder: bool, path: str) -> list[SourceFile]:
    holding = [file for file in files if file.format != "text"]
    if not is_folder and len(holding) < len(files):
        odd = next(file for file in files if file.format == "text")
        raise DataError(
            f"{odd.path}: a chat or instruct source reads {', '.join(FORMATS)}, and this is none"
            f" of them (data source {path!r})"
        )
    return holding


def _nothing_found(source: Source, base: Path, pattern: str) -> str:
    if not base.exists():
        found = f"the folder {base} does not exist"
    elif pattern == "**":
        found = f"no file in the folder {base}"
    elif _MAGIC.search(pattern):
        found = f"no file matches {pattern} in {base}"
    else:
        found = f"{base / pattern} does not exist"
    left_out = f" (leaving out {', '.join(source.exclude)})" if source.exclude else ""
    return f"data source {source.path!r}: {found}{left_out}; a path is relative to the YAML"
