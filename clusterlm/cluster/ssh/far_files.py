"""What a transfer runs on the other machine: `python3 -c <this file> VERB ...`. Standard library.

    look PATH SIZE SHA256          is it there whole? else how much of it is in the part
    take PATH SIZE SHA256 AT MODE  input from byte AT goes into the part; once whole it is renamed
    tell PATH                      size, digest and mode
    give PATH AT                   bytes from AT on

The last line on the errors is JSON. A part is named after the content that it is of, and bytes are
written at their place: so two senders of the same content, one of them a connection that is dead
and does not know it, write the same and cannot hurt each other. Nothing is locked.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

PIECE = 1 << 20


def part_of(path: str, sha256: str) -> str:
    """Beside the file: on the same disk, so that it can be renamed."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:200]}.{sha256[:16]}.part")


def digest(file: BinaryIO, size: int) -> "hashlib._Hash":
    """Of the next `size` bytes."""
    found = hashlib.sha256()
    while size > 0:
        piece = file.read(min(PIECE, size))
        if not piece:
            break
        found.update(piece)
        size -= len(piece)
    return found


def is_whole(path: str, size: int, sha256: str) -> bool:
    """Whether the file is there, and is this content."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            return digest(file, size).hexdigest() == sha256
    except FileNotFoundError:
        return False


def look(path: str, num_bytes: str, sha256: str) -> "dict[str, Any]":
    """Answer for a sender."""
    size = int(num_bytes)
    if is_whole(path, size, sha256):
        return {"whole": True}
    try:
        have = os.lstat(part_of(path, sha256)).st_size
    except FileNotFoundError:
        have = 0
    return {"whole": False, "part": min(have, size)}


def take(path: str, num_bytes: str, sha256: str, begin: str, mode: str) -> "dict[str, Any]":
    """Receive; the part stays when the input breaks off."""
    size, at = int(num_bytes), int(begin)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    part = part_of(path, sha256)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "r+b", buffering=0) as file:
        found = digest(file, at)
        file.seek(at)
        while at < size:
            piece = os.read(0, min(PIECE, size - at))
            if not piece:
                return {"part": at}
            found.update(piece)
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
            at += len(piece)
        if found.hexdigest() != sha256:
            os.unlink(part)
            return {"wrong": found.hexdigest()}
        os.fchmod(file.fileno(), int(mode, 8))
        os.fsync(file.fileno())
    os.rename(part, path)
    return {"whole": True}


def tell(path: str) -> "dict[str, Any]":
    """Answer for a receiver."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        return {
            "size": found.st_size,
            "mode": found.st_mode & 0o777,
            "sha256": digest(file, found.st_size).hexdigest(),
        }


def give(path: str, begin: str) -> "dict[str, Any]":
    """Send."""
    with open(path, "rb") as file:
        file.seek(int(begin))
        while True:
            piece = file.read(PIECE)
            if not piece:
                return {}
            sys.stdout.buffer.write(piece)


VERBS: "dict[str, Callable[..., dict[str, Any]]]" = {
    "look": look,
    "take": take,
    "tell": tell,
    "give": give,
}


def main(verb: str, *words: str) -> int:
    """Exit code 3 for what the system refused."""
    try:
        answer = VERBS[verb](*words)
        sys.stdout.flush()
    except OSError as error:
        answer = {"errno": error.errno, "error": error.strerror or str(error)}
    sys.stderr.write("\n" + json.dumps(answer) + "\n")
    return 3 if "errno" in answer else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
