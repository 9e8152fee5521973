"""A small text file of the user's, or why it cannot be read."""

from __future__ import annotations

from pathlib import Path

from clusterlm.errors import ClusterLMError
from clusterlm.spec.wording import printable

LARGEST_FILE = 2**20


def read_text(path: Path, kind: str) -> str:
    """The text of a file of at most 1 MiB.

    Args:
        path: absolute.
        kind: what it should be, for the message: `job.yaml`.

    Raises:
        ClusterLMError: it is not there, is a folder, too large, or no UTF-8.
    """
    shown = printable(str(path))
    if path.is_dir():
        raise ClusterLMError(f"{shown} is a folder; give the {kind} in it")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise ClusterLMError(f"{shown}: no such file; give the path of a {kind}") from None
    except (OSError, ValueError) as error:
        raise ClusterLMError(f"{shown}: cannot be read: {error}") from error
    if len(raw) > LARGEST_FILE:
        raise ClusterLMError(f"{shown} is larger than 1 MiB; this is no {kind}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ClusterLMError(f"{shown} is not UTF-8 (line {line}); save it as UTF-8") from error
