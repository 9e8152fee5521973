"""One file to a cluster or back: only what is missing, checked, and renamed when it is whole.

A file that is there with the same content is not sent. What a broken connection left is gone on
with: the part is named after the content, so it is never mixed with another. Size and SHA-256 are
compared before the file gets its name. Python 3.6 or newer does the work over there
(`far_files.py`), without anything installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from clusterlm.cluster.ssh import far_files
from clusterlm.cluster.ssh.lines import last_lines
from clusterlm.cluster.ssh.ssh_errors import why_refused
from clusterlm.cluster.ssh.transport import Transport
from clusterlm.errors import ConnectionLost, SshError, SshRefused

TRIES = 6
"""Connections in a row that break without a byte gained."""
LONGEST_PAUSE_S = 30.0
PIECE_BYTES = 1 << 20
_DOING = {"take": "sending of", "give": "fetching of"}

Progress = Callable[[int, int], None]
"""Gets the bytes that are there, and how many there will be."""


@dataclass(frozen=True)
class Moved:
    """A file that is whole at its place. `num_sent`: bytes that went over; 0 if it was there."""

    size: int
    sha256: str
    num_sent: int


def send_file(
    transport: Transport,
    local: Path,
    remote: str,
    *,
    python: str = "python3",
    mode: int | None = None,
    sha256: str | None = None,
    progress: Progress = lambda done, total: None,
    tries: int = TRIES,
    pause: Callable[[float], None] = time.sleep,
) -> Moved:
    """Send a file.

    Args:
        transport: the way.
        local: the file; it must not change meanwhile.
        remote: absolute; folders above it are made.
        python: over there.
        mode: permissions; those of `local` if not given.
        sha256: of the file, where it is known.
        progress: called as it goes.
        tries: connections in a row that may break without a byte gained.
        pause: waits between them.

    Raises:
        SshError: it cannot be read or written; the disk is full; `local` changed.
        ConnectionLost: too many broke. What has arrived stays, and is gone on with.
    """
    far = _Far(transport, python, remote)
    with _opened(local) as file:
        found = os.fstat(file.fileno())
        size = found.st_size
        sha256 = sha256 or far_files.digest(file, size).hexdigest()
        mode_text = f"{(found.st_mode if mode is None else mode) & 0o777:o}"
        sent = 0

        def once(gained: Callable[[int], None]) -> bool:
            nonlocal sent
            seen = far.ask("look", str(size), sha256)
            if seen.get("whole") is True:
                return True
            at = _number(seen, "part", far.where, most=size)
            # what we write may still be on its way: only what has arrived is a gain
            gained(at)
            progress(at, size)
            file.seek(at)

            def moved(count: int) -> None:
                nonlocal at, sent
                at, sent = at + count, sent + count
                progress(at, size)

            source = _Limited(file, size - at)
            answer = far.ask(
                "take", str(size), sha256, str(at), mode_text, source=source, moved=moved
            )
            if "wrong" in answer and sent >= size:
                raise SshRefused(f"{local}: it changed while it was sent; try again")
            return "whole" in answer

        _until_done(once, transport, tries, pause)
    progress(size, size)
    return Moved(size, sha256, sent)


def fetch_file(
    transport: Transport,
    remote: str,
    local: Path,
    *,
    python: str = "python3",
    progress: Progress = lambda done, total: None,
    tries: int = TRIES,
    pause: Callable[[float], None] = time.sleep,
    has_answered: bool = False,
) -> Moved:
    """Fetch a file; folders above `local` are made. As `send_file`, the other way round.

    `has_answered`: the other side was reached before, so a connection that cannot be made is waited
    for.
    """
    far = _Far(transport, python, remote)
    local.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}
    got = 0

    def once(gained: Callable[[int], None]) -> bool:
        nonlocal got
        if not told:
            told.update(_described(far.ask("tell"), far.where))
        size, sha256 = told["size"], told["sha256"]
        if far_files.is_whole(str(local), size, sha256):
            return True
        part = Path(far_files.part_of(str(local), sha256))
        with _part(part) as file:
            at = min(os.fstat(file.fileno()).st_size, size)
            found = far_files.digest(file, at)
            file.seek(at)
            file.truncate()

            def moved(count: int) -> None:
                nonlocal at, got
                at, got = at + count, got + count
                gained(at)
                progress(at, size)

            progress(at, size)
            if at < size:
                far.ask("give", str(at), sink=_Hashed(file, found, size - at), moved=moved)
            os.fsync(file.fileno())
        if found.hexdigest() != sha256:
            part.unlink()
            told.clear()
            if got >= size:
                raise SshRefused(f"{transport.name}:{remote}: it changed while it was fetched")
            return False
        part.chmod(told["mode"] & 0o777)
        part.replace(local)
        return True

    try:
        _until_done(once, transport, tries, pause, has_answered)
    except OSError as error:
        raise SshRefused(
            f"{local}: {why_refused(error.errno, error.strerror or str(error))}"
        ) from error
    progress(told["size"], told["size"])
    return Moved(told["size"], told["sha256"], got)


def _until_done(
    once: Callable[[Callable[[int], None]], bool],
    transport: Transport,
    tries: int,
    pause: Callable[[float], None],
    has_answered: bool = False,
) -> None:
    """Go on after every break, as long as each connection brings some bytes."""
    furthest = failures = 0
    was_connected = has_answered

    def gained(at: int) -> None:
        nonlocal furthest, failures, was_connected
        if at > furthest:
            furthest, failures, was_connected = at, 0, True

    while True:
        try:
            if once(gained):
                return
            was_connected = True
            reason: SshError = ConnectionLost(f"{transport.name}: the transfer broke off")
        except ConnectionLost as error:
            was_connected, reason = True, error
        except SshRefused:
            raise
        except SshError as error:
            # a network that went away may come back; one that never was there may not
            if not was_connected:
                raise
            reason = error
        failures += 1
        if failures >= tries:
            raise reason
        pause(min(LONGEST_PAUSE_S, 2.0 ** (failures - 1)))


class _Far:
    """`far_files.py` over there, for one path."""

    def __init__(self, transport: Transport, python: str, path: str) -> None:
        if not path.startswith("/") or "\0" in path or path.endswith("/"):
            raise SshRefused(f"{path!r}: write the absolute path of a file")
        self._transport = transport
        self._python = python
        self._path = path
        self.where = f"{transport.name}:{path}"
        self._text = Path(far_files.__file__).read_text()

    def ask(
        self,
        verb: str,
        *words: str,
        source: Any = None,
        sink: Any = None,
        moved: Callable[[int], None] = lambda count: None,
    ) -> dict[str, Any]:
        argv = [self._python, "-c", self._text, verb, self._path, *words]
        doing = f"the {_DOING.get(verb, 'look at')} {self._path}"
        done = self._transport.pipe(argv, source=source, sink=sink, moved=moved, doing=doing)
        answer = _last_json(done.err)
        where = self.where
        if "errno" in answer:
            raise SshRefused(f"{where}: {why_refused(answer['errno'], str(answer.get('error')))}")
        if done.code != 0 or not answer and verb != "give":
            said = last_lines(done.err.encode())
            raise SshRefused(f"{where}: {self._python} there failed (exit {done.code}):\n{said}")
        return answer


def _described(answer: dict[str, Any], where: str) -> dict[str, Any]:
    """What is told of a file there; its digest becomes a part of a name here."""
    if not re.fullmatch("[0-9a-f]{64}", str(answer.get("sha256"))):
        raise SshRefused(f"{where}: what came back describes no file")
    numbers = {key: _number(answer, key, where) for key in ("size", "mode")}
    return {"sha256": str(answer["sha256"]), **numbers}


def _number(answer: dict[str, Any], key: str, where: str, most: int = 1 << 62) -> int:
    value = answer.get(key)
    if type(value) is not int or not 0 <= value <= most:
        raise SshRefused(f"{where}: what came back describes no file")
    return value


def _last_json(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    with contextlib.suppress(ValueError, RecursionError):
        answer = json.loads(lines[-1]) if lines else {}
        if isinstance(answer, dict):
            return answer
    return {}


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        file = path.open("rb")
    except OSError as error:
        raise SshRefused(f"{path}: {error.strerror}") from error
    with file:
        yield file


def _part(path: Path) -> BinaryIO:
    """Written to at its end; never through a link that somebody laid there."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return os.fdopen(number, "r+b", buffering=0)


class _Limited:
    """So many bytes of a file, should it grow meanwhile."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        return piece


class _Hashed:
    """Takes at most so many bytes, and keeps their digest."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash, left: int) -> None:
        self._file, self._digest, self._left = file, digest, left

    def write(self, data: bytes) -> int:
        view = memoryview(data)[: self._left]
        self._digest.update(view)
        self._left -= len(view)
        while view:
            view = view[self._file.write(view) :]
        return len(data)
