"""The supervisor's end of the network heartbeats (`node/net_beat.py`)."""

from __future__ import annotations

import contextlib
import secrets
import socket


class Listener:
    """Takes in datagrams of the agents; never waits."""

    def __init__(self, address: str, port: int) -> None:
        """Listen at the rendezvous' own number: its port is TCP's, this one UDP's.

        Where it cannot be had, nobody listens and the files alone tell.
        """
        self._token = secrets.token_hex(8)
        self._heard: dict[int, float] = {}
        self._socket: socket.socket | None = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.target = f"{address}:{port} {self._token}"
        try:
            self._socket.bind((address, port))
        except OSError:
            self.close()
            self.target = ""

    def silence(self, now: float) -> dict[int, float]:
        """Seconds since each node was heard, by node rank; nodes never heard are left out.

        Args:
            now: `time.monotonic()`.
        """
        self._drain(now)
        return {rank: now - heard for rank, heard in self._heard.items()}

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _drain(self, now: float) -> None:
        if self._socket is None:
            return
        # ends when nothing is left: a non-blocking socket raises BlockingIOError then
        with contextlib.suppress(BlockingIOError):
            while True:
                token, _, rest = self._socket.recv(256).decode(errors="replace").partition(" ")
                rank = rest.partition(" ")[0]
                if token == self._token and rank.isdigit():
                    self._heard[int(rank)] = now
