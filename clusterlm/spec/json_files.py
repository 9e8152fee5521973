"""JSON files that a job names: made by others, so perhaps cut off, endless, or no files at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

LARGEST = 4 * 2**20
"""Bytes; a settings file of more is something else."""


class NoJsonError(Exception):
    """The file holds no JSON; the text says why, for a message."""


def read_json_file(path: str, most: int = LARGEST) -> Any:
    """What the file holds.

    Raises:
        NoJsonError: it is not there, has more than `most` bytes, or is no JSON.
    """
    # a device or a pipe would be read for ever
    if not os.path.isabs(path) or not os.path.isfile(path):
        raise NoJsonError("there is no such file")
    import json  # few jobs have such a file

    try:
        if os.path.getsize(path) > most:
            raise NoJsonError(f"it has more than {most >> 20} MiB")
        return json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise NoJsonError(str(error.strerror)) from None
    except UnicodeDecodeError:
        raise NoJsonError("it is not UTF-8") from None
    except ValueError as error:
        raise NoJsonError(str(error)) from None
    except RecursionError:
        raise NoJsonError("it is nested too deeply") from None
