"""The `ssh` program as transport: whatever it can log in with (FIDO, Kerberos, codes), we can."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence

from clusterlm.cluster.ssh.address import Address
from clusterlm.cluster.ssh.master import Master
from clusterlm.cluster.ssh.session import Session
from clusterlm.cluster.ssh.talk import PIECE_BYTES, SshTransport

CLOSE_S = 5.0


class OpenSsh(SshTransport):
    """Programs over one shared connection (`master.py`), which outlives this process."""

    def __init__(self, address: Address, setup: Sequence[str] = ()) -> None:
        super().__init__(str(address), setup)
        self._master = Master(address)

    def close(self) -> None:
        """Leave the connection to the next command; it ends after ten idle minutes."""

    def hang_up(self) -> None:
        """End the connection, for every clusterlm that uses it."""
        self._master.close()

    def _open(self, command: str) -> Session:
        self._master.ensure()
        return _Process(self._master.command_argv(command))


class _Process:
    """An `ssh` that speaks to the master."""

    def __init__(self, argv: Sequence[str]) -> None:
        # a session of its own: Ctrl-C at the terminal is ours to hand on
        self._child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        files = (self._child.stdin, self._child.stdout, self._child.stderr)
        assert None not in files
        self._in, self._out, self._err = (file for file in files if file is not None)

    def read_out(self) -> bytes:
        return os.read(self._out.fileno(), PIECE_BYTES)

    def read_err(self) -> bytes:
        return os.read(self._err.fileno(), PIECE_BYTES)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._in.fileno(), view) :]

    def close_input(self) -> None:
        self._in.close()

    def close(self) -> None:
        # its end wakes whoever reads or writes; a closed number could be somebody else's by then
        self._child.terminate()
        try:
            self._child.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def release(self) -> None:
        for file in (self._in, self._out, self._err):
            file.close()

    def exit_code(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._child.wait(CLOSE_S)
            # ssh's own word for a connection that failed
            return None if code == 255 or code < 0 else code
        return None
