r"""Many small files of a cluster in one stream, here and there: one round trip, not two for each.

    python -I -m clusterlm.cluster.remote.bundle ROOT < [["logs/rank0.log", 4096], ...]

What comes, file by file in the order that was asked for:

    4096 644\n  (4096 bytes)  SHA256\n        size, mode; then the bytes; then their digest
    -1 0\n                                    it is gone, or is no file any more

The receiver alone decides names: it takes so many bytes for the file that it has asked for and
counts, never a name that comes. No file becomes larger than was said before. Each is written aside
and gets its name when its digest is right, so a cut leaves whole files, and the rest is asked for
again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from clusterlm.cluster.remote.tree import CHUNK, is_inside
from clusterlm.cluster.ssh.ssh_errors import why_refused
from clusterlm.errors import ClusterLMError, SshRefused

_HEADER = re.compile(rb"(-1|\d{1,15}) ([0-7]{1,4})")
_LINE = -1
_LONGEST_LINE = 80


def give(root: Path, wanted: Sequence[tuple[str, int]], sink: BinaryIO) -> None:
    """Write files to `sink`; of one that grows as much as it had."""
    for path, size in wanted:
        if not is_inside(path):
            raise SshRefused(f"{path!r} is no path below a folder")
        _give_one(root / path, size, sink)
    sink.flush()


def _give_one(path: Path, most: int, sink: BinaryIO) -> None:
    try:
        # a pipe would be waited for
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError:
        sink.write(b"-1 0\n")
        return
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            sink.write(b"-1 0\n")
            return
        left = min(most, found.st_size)
        sink.write(f"{left} {found.st_mode & 0o777:o}\n".encode())
        whole = hashlib.sha256()
        while left:
            piece = file.read(min(left, CHUNK))
            if not piece:
                raise SshRefused(f"{path} became shorter while it was sent")
            left -= len(piece)
            whole.update(piece)
            sink.write(piece)
        sink.write(f"{whole.hexdigest()}\n".encode())


class Receiver(io.RawIOBase):
    """Takes the stream and writes the files; `left` are those that have not come whole."""

    def __init__(
        self,
        wanted: Sequence[tuple[str, int]],
        place: Callable[[str], Path],
        *,
        came: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Of one stream.

        Args:
            wanted: paths and largest sizes, as they are asked for.
            place: where a file lies here.
            came: gets how many bytes have come, as they come.
        """
        self.num_done = 0
        """Files that have come whole, or that are gone."""
        self._wanted, self._place, self._came = list(wanted), place, came
        self._rest = b""
        self._steps = self._receive()
        self._need = next(self._steps)

    @property
    def left(self) -> list[tuple[str, int]]:
        return self._wanted[self.num_done :]

    def writable(self) -> bool:
        return True

    def as_file(self) -> BinaryIO:
        """For an argument of that type."""
        return cast(BinaryIO, self)

    def write(self, data: object) -> int:
        """Take a piece.

        Raises:
            SshRefused: it is not what was asked for.
        """
        piece = bytes(cast(bytes, data))
        buffer, at = self._rest + piece, 0
        while at < len(buffer):
            if self._need == _LINE:
                end = buffer.find(b"\n", at, at + _LONGEST_LINE)
                if end < 0 and len(buffer) - at < _LONGEST_LINE:
                    break
                part, at = buffer[at : max(end, at)], max(end, at) + 1
            else:
                part = buffer[at : at + self._need]
                at += len(part)
            self._need = self._steps.send(part)
        self._rest = buffer[at:]
        return len(piece)

    def close(self) -> None:
        """Remove what has not come whole."""
        self._steps.close()
        super().close()

    def _receive(self) -> Generator[int, bytes, None]:
        """Each step says what it needs: a line, or so many bytes at most."""
        for path, most in self._wanted:
            match = _HEADER.fullmatch((yield _LINE))
            if match is None or int(match[1]) > most:
                raise SshRefused(f"{path}: what came back is no file that was asked for")
            if not match[1].startswith(b"-"):
                yield from self._take(self._place(path), int(match[1]), int(match[2], 8))
            self.num_done += 1
        yield _LINE
        raise SshRefused("more came back than was asked for")

    def _take(self, target: Path, size: int, mode: int) -> Generator[int, bytes, None]:
        target.parent.mkdir(parents=True, exist_ok=True)
        # one name for each file: what a killed fetch has left is written over by the next
        aside = target.with_name(f".{hashlib.sha256(target.name.encode()).hexdigest()[:16]}.part")
        whole, left = hashlib.sha256(), size
        try:
            aside.unlink(missing_ok=True)
            # never through a link that lies there
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
                while left:
                    piece = yield left
                    whole.update(piece)
                    file.write(piece)
                    left -= len(piece)
                    self._came(len(piece))
            if (yield _LINE) != whole.hexdigest().encode():
                raise SshRefused(f"{target.name} arrived damaged; fetch it again")
            # ours to read and write, whatever is told; nobody else's to write
            aside.chmod(mode & 0o755 | 0o600)
            aside.replace(target)
        except OSError as error:
            why = why_refused(error.errno, error.strerror or str(error))
            raise SshRefused(f"{target}: {why}") from error
        finally:
            aside.unlink(missing_ok=True)


def main(root: Path) -> int:
    """Give what stdin asks for; a refusal goes to stderr with exit code 2."""
    try:
        give(
            root, [(str(path), int(size)) for path, size in json.load(sys.stdin)], sys.stdout.buffer
        )
    except (ClusterLMError, OSError, ValueError, TypeError) as error:
        print(f"clusterlm: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
