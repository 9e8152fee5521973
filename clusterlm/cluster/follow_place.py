"""The place that a follower of logs has come to: small enough to be an argument of a command.

    {"events": 812, "over": ["attempts/1"], "failed": [["train", 1]],
     "files": {"attempts/2/logs/rank0.log": [4711, false, false]}}

A file has an offset behind its last line that was shown, whether the rest of a line that was too
long is being skipped, and whether a traceback is being shown.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from clusterlm.errors import ClusterLMError

LARGEST = 16 * 2**20

Place = dict[str, Any]


def merged(place: Place | None, news: Place) -> Place:
    """A place with what has changed since; files of attempts that are over are left out."""
    whole = {**(place or {}), **news}
    files = {**(place or {}).get("files", {}), **news.get("files", {})}
    over = tuple(f"{folder}/" for folder in whole.get("over", []))
    return {**whole, "files": {f: at for f, at in files.items() if not f.startswith(over or "\0")}}


def changes(before: Place | None, now: Place) -> Place:
    """What `merged` needs to make `now` of `before`."""
    known = (before or {}).get("files", {})
    news = {file: at for file, at in now["files"].items() if known.get(file) != at}
    return {**now, "files": news}


def packed(place: Place) -> str:
    """As an argument: thousands of files make some kilobytes."""
    text = json.dumps(place, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(text: str) -> Place:
    """What `packed` has made.

    Raises:
        ClusterLMError: it is something else.
    """
    try:
        raw = zlib.decompressobj().decompress(base64.urlsafe_b64decode(text), LARGEST)
        place = json.loads(raw)
        files = {str(f): [int(at[0]), bool(at[1]), bool(at[2])] for f, at in place["files"].items()}
        failed = [[str(phase), int(number)] for phase, number in place["failed"]]
        over = [str(folder) for folder in place["over"]]
        return {"events": int(place["events"]), "over": over, "failed": failed, "files": files}
    except (KeyError, TypeError, ValueError, IndexError, zlib.error) as error:
        raise ClusterLMError("--from takes what `logs --json` printed as its place") from error
