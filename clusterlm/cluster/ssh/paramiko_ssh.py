"""The transport in pure Python, for machines without an `ssh` program that can share connections.

One connection for the life of the process. Programs are channels of it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from clusterlm.cluster.ssh.address import Address
from clusterlm.cluster.ssh.session import Session
from clusterlm.cluster.ssh.ssh_errors import no_further_session
from clusterlm.cluster.ssh.talk import PIECE_BYTES, SshTransport
from clusterlm.errors import ConnectionLost, SshError

try:
    import paramiko

    from clusterlm.cluster.ssh.paramiko_link import Link, make_link
except ImportError as missing:
    raise SshError(
        f"`transport: paramiko` needs a package that is not here ({missing.name}): "
        "pip install 'clusterlm[ssh]', or install OpenSSH and set `transport: openssh`"
    ) from missing

OPEN_S = 30.0
EXIT_S = 5.0


class ParamikoSsh(SshTransport):
    """Programs over one connection of this process."""

    def __init__(self, address: Address, setup: Sequence[str] = ()) -> None:
        super().__init__(str(address), setup)
        self._address = address
        self._link: Link | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None

    hang_up = close

    def _open(self, command: str) -> Session:
        with self._lock:
            channel = self._channel()
        try:
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as error:
            channel.close()
            raise ConnectionLost(
                f"{self.name}: the connection broke as a program was started; whether it ran is "
                f"not known ({error})"
            ) from error
        return _Channel(channel)

    def _channel(self) -> paramiko.Channel:
        """A new one; the connection is made again if it has gone."""
        for is_last in (False, True):
            if self._link is None or not self._link.is_active():
                if self._link is not None:
                    self._link.close()
                self._link = make_link(self._address)
            try:
                # nothing has been asked of it yet: trying again is safe
                return self._link.transport.open_session(timeout=OPEN_S)
            except paramiko.ChannelException as error:
                # the others over this connection go on
                raise no_further_session(self.name) from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                alive = self._link.is_active()
                self._link.close()
                self._link = None
                if is_last or alive:
                    raise SshError(f"{self.name}: no session could be opened: {error}") from error
        raise AssertionError


class _Channel:
    """One program."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def read_out(self) -> bytes:
        return bytes(self._channel.recv(PIECE_BYTES))

    def read_err(self) -> bytes:
        return bytes(self._channel.recv_stderr(PIECE_BYTES))

    def write(self, data: bytes) -> None:
        with _as_os_errors():
            self._channel.sendall(data)

    def close_input(self) -> None:
        with _as_os_errors():
            self._channel.shutdown_write()

    def close(self) -> None:
        with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
            self._channel.close()

    def release(self) -> None:
        """Nothing is left to free."""

    def exit_code(self) -> int | None:
        if not self._channel.status_event.wait(EXIT_S):
            return None
        code = self._channel.exit_status
        return None if code < 0 else int(code)


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Paramiko says EOFError when it cannot write."""
    try:
        yield
    except (EOFError, paramiko.SSHException) as error:
        raise BrokenPipeError(str(error)) from error
