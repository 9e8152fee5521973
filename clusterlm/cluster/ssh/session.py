"""What a backend opens for a program over there; `talk.py` pumps it."""

from __future__ import annotations

from typing import Protocol


class Session(Protocol):
    """One program's way in and out. Reads block; `close` ends them."""

    def read_out(self) -> bytes:
        """Some bytes; none at the end."""

    def read_err(self) -> bytes:
        """Some bytes; none at the end."""

    def write(self, data: bytes) -> None:
        """All of it. OSError when nobody takes it."""

    def close_input(self) -> None:
        """The program sees the end of its input."""

    def close(self) -> None:
        """Give it up; what waits in a read or write comes back."""

    def release(self) -> None:
        """Free its files; nothing reads or writes any more."""

    def exit_code(self) -> int | None:
        """Of the login shell, None when the connection went first. Called after both ends."""
