"""A small text file of the user's: read whole, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

from clusterlm.errors import ClusterLMError
from clusterlm.spec.wording import printable

LARGEST_FILE = 2**20


def read_text(path: Path, *, wanted: str, in_folder: str = "") -> str:
    """The text of a file, without a byte order mark.

    Args:
        path: of the file.
        wanted: ends each refusal: what kind of file is meant.
        in_folder: instead of it where the path is a folder.

    Raises:
        ClusterLMError: it is absent, a folder, too large, binary or not UTF-8.
    """
    shown = printable(str(path))
    if path.is_dir():
        raise ClusterLMError(f"{shown} is a folder; {in_folder or wanted}")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ClusterLMError(f"{shown}: no such file; {wanted}") from None
    # ValueError: a path with a zero byte
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ClusterLMError(f"{shown}: cannot be read: {said}") from error
    if len(raw) > LARGEST_FILE:
        raise ClusterLMError(f"{shown} is larger than 1 MiB; {wanted}")
    if b"\x00" in raw:
        raise ClusterLMError(f"{shown} is no text; {wanted}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ClusterLMError(f"{shown} is not UTF-8 (line {line}): save it so; {wanted}") from error
