"""The one seam to a machine behind SSH: programs are run there, bytes go in and out of them.

Everything else (transfers, snapshots, commands of the clusterlm over there) is made of these calls,
so that both backends (`openssh.py`, `paramiko_ssh.py`) pass the same tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

from clusterlm.cluster.host import Completed, Host


class Transport(Host, Protocol):
    """A machine behind SSH. Programs run in a login shell there; what it prints is left out.

    Every call raises:
        SshError: no connection can be made: address, host key, credentials. Nothing has happened.
        ConnectionLost: it broke during the call; whether the program ran, or runs on, is unknown.
    """

    @property
    def name(self) -> str:
        """What the user calls it, for messages: `user@host`, or a name of ssh_config."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30.0,
        stdin: bytes | None = None,
        doing: str = "",
    ) -> Completed:
        """Run to the end, or for `timeout_s`; `stdin` never stands in an argument list.

        What is told of a broken connection says `doing`, in the user's words, rather than `argv`.
        """

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        """Run to the end, however long; `each` gets every line of both outputs as it comes."""

    def pipe(
        self,
        argv: Sequence[str],
        *,
        source: BinaryIO | None = None,
        sink: BinaryIO | None = None,
        moved: Callable[[int], None] = lambda count: None,
        doing: str = "",
    ) -> Completed:
        """Run with bytes from `source` as its input and its output, byte for byte, into `sink`.

        Args:
            argv: the program.
            source: read to its end.
            sink: written to; `Completed.out` is empty then.
            moved: gets the number of bytes of each piece that went over.
            doing: as of `run`.
        """

    def close(self) -> None:
        """End the connection; a later call opens another."""
