"""Files that a process keeps open because it cannot jump in them: each with its place in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from clusterlm.data.files import SourceFile

MAX_OPEN = 4
"""More than one: a worker may be sent back and forth between files."""

T = TypeVar("T")


class KeptOpen(Generic[T]):
    """The readers used last. A file that has changed is another file."""

    def __init__(self, open_reader: Callable[[SourceFile], T]) -> None:
        self._open_reader = open_reader
        self._readers: OrderedDict[tuple[str, int, int], T] = OrderedDict()

    def take(self, file: SourceFile, can_reach: Callable[[T], bool]) -> T:
        """The open reader of `file`, or a new one when there is none that can reach the place."""
        key = _key_of(file)
        reader = self._readers.pop(key, None)
        if reader is None or not can_reach(reader):
            reader = self._open_reader(file)
        self._readers[key] = reader
        while len(self._readers) > MAX_OPEN:
            self._readers.popitem(last=False)
        return reader

    def peek(self, file: SourceFile) -> T | None:
        """The open reader of `file`, if there is one."""
        return self._readers.get(_key_of(file))

    def drop(self, file: SourceFile) -> None:
        """Forget the reader of `file`: it failed, and asked again it must fail again."""
        self._readers.pop(_key_of(file), None)


def _key_of(file: SourceFile) -> tuple[str, int, int]:
    stat = file.path.stat()
    return str(file.path), stat.st_size, stat.st_mtime_ns
