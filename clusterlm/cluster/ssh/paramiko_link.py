"""A connection made by paramiko: the way to the host, its key, the login, and a watch over it.

Hosts on the way (ProxyJump) are connections of the same kind, each with its own lines of ssh_config
and its own host key. A key that known_hosts does not vouch for ends it before anything is shown.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import paramiko

from clusterlm.cluster.ssh import ssh_errors
from clusterlm.cluster.ssh.address import Address, config_files
from clusterlm.cluster.ssh.host_certificate import parse_certificate, why_refused
from clusterlm.cluster.ssh.known_hosts import (
    CERTIFICATE,
    KnownHosts,
    Trust,
    fingerprint,
    read_known_hosts,
)
from clusterlm.cluster.ssh.paramiko_auth import log_in
from clusterlm.cluster.ssh.ssh_config import HostConfig, read_config
from clusterlm.cluster.ssh.ssh_errors import Target
from clusterlm.errors import SshError

LONGEST_WAY = 8
HANDSHAKE_S = 15.0
# as with the ssh program: 30 s of silence
ALIVE_EVERY_S, ALIVE_PATIENCE_S = 10.0, 20.0
# names that keys of one kind sign under; SHA-1 is not among them
SIGNED_AS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}


class Link:
    """One connection and those that it goes through."""

    def __init__(self, transport: paramiko.Transport, below: Link | None, wire: Wire) -> None:
        self.transport = transport
        self._below = below
        self._wire = wire
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def is_active(self) -> bool:
        return self.transport.is_active() and not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        self.transport.close()
        self._wire.close()
        if self._below is not None:
            self._below.close()

    def _watch(self) -> None:
        """End a connection whose other end is silent: paramiko would wait for ever."""
        while not self._closed.wait(ALIVE_EVERY_S) and self.transport.is_active():
            answered = threading.Event()

            def ask(answered: threading.Event = answered) -> None:
                self.transport.global_request("keepalive@openssh.com", wait=True)
                answered.set()

            threading.Thread(target=ask, daemon=True).start()
            if not answered.wait(ALIVE_PATIENCE_S):
                self.transport.close()


def make_link(address: Address, below: Link | None = None, steps: int = 0) -> Link:
    """Connect and log in.

    Args:
        address: of the host.
        below: the connection that leads to it; None: what ssh_config says.
        steps: how many hosts the way has had.

    Raises:
        SshError: it cannot be made; the text says what to do.
    """
    if steps > LONGEST_WAY:
        raise SshError(f"{address}: more than {LONGEST_WAY} hosts on the way: a circle?")
    config = read_config(address, config_files())
    if below is None:
        for jump in config.jumps:
            below = make_link(jump, below, steps + 1)
    target = Target(
        address, config.host, config.port, below is None and config.proxy_command is None
    )
    known = read_known_hosts(config.known_hosts)
    try:
        wire = Wire(config, target, below)
        try:
            transport = _shake_hands(wire, config, target, known)
        except BaseException:
            wire.close()
            raise
    except BaseException:
        if below is not None:
            below.close()
        raise
    return Link(transport, below, wire)


class Wire:
    """What carries the bytes: a socket, a channel of the host before, or a program."""

    def __init__(self, config: HostConfig, target: Target, below: Link | None) -> None:
        self._program: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | paramiko.Channel
        if below is not None:
            self.socket = _through(below, config, target)
        elif config.proxy_command is not None:
            self.socket = self._start(config.proxy_command)
        else:
            self.socket = _dial(config, target)

    def close(self) -> None:
        self.socket.close()
        if self._program is not None:
            self._program.terminate()
            self._program.wait()

    def _start(self, command: str) -> socket.socket:
        print(f"note: ssh_config starts: {command}", file=sys.stderr)
        ours, theirs = socket.socketpair()
        with theirs:
            # ssh_config means a shell's words here
            self._program = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
            )
        return ours


def _dial(config: HostConfig, target: Target) -> socket.socket:
    try:
        return socket.create_connection((config.host, config.port), timeout=config.connect_s)
    except socket.gaierror as error:
        raise SshError(ssh_errors.no_name(target)) from error
    except TimeoutError as error:
        raise SshError(ssh_errors.timed_out(target)) from error
    except ConnectionRefusedError as error:
        raise SshError(ssh_errors.refused(target)) from error
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN):
            raise SshError(ssh_errors.no_route(target)) from error
        raise SshError(f"{target}: {error.strerror or error}") from error


def _through(below: Link, config: HostConfig, target: Target) -> paramiko.Channel:
    try:
        return below.transport.open_channel(
            "direct-tcpip", (config.host, config.port), ("127.0.0.1", 0), timeout=config.connect_s
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise SshError(
            f"{target}: the host before it on the way does not lead there: {error}"
        ) from error


class _Transport(paramiko.Transport):  # type: ignore[misc]
    """Asks for the host keys that known_hosts can judge, in that order."""

    asked_keys: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self.asked_keys


def _shake_hands(
    wire: Wire, config: HostConfig, target: Target, known: KnownHosts
) -> paramiko.Transport:
    transport = _Transport(wire.socket)
    transport.asked_keys = _asked_keys(transport, config, known)
    transport.banner_timeout = config.connect_s
    transport.daemon = True
    try:
        transport.start_client(timeout=config.connect_s + HANDSHAKE_S)
        if not transport.initial_kex_done:
            raise TimeoutError("timed out")
        _check_key(transport, config, target, known)
        log_in(transport, config, target)
    except (paramiko.SSHException, EOFError, OSError) as error:
        transport.close()
        raise SshError(_explain(target, error)) from error
    except BaseException:
        transport.close()
        raise
    return transport


def _asked_keys(
    transport: paramiko.Transport, config: HostConfig, known: KnownHosts
) -> tuple[str, ...]:
    all_kinds = tuple(transport._preferred_keys)
    name = config.alias or config.host
    port = 22 if config.alias else config.port
    plain = [
        kind
        for known_kind in known.kinds(name, port)
        for kind in SIGNED_AS.get(known_kind, (known_kind,))
    ]
    certified = [f"{kind}{CERTIFICATE}" for kind in all_kinds]
    first = [*(certified if known.authorities(name, port) else []), *plain]
    usable = [kind for kind in first if kind in transport._key_info]
    return tuple(dict.fromkeys([*usable, *all_kinds]))


def _check_key(
    transport: paramiko.Transport, config: HostConfig, target: Target, known: KnownHosts
) -> None:
    """Refuse a host that known_hosts does not vouch for."""
    shown = transport.get_remote_server_key()
    key = _plain(shown)
    name = config.alias or config.host
    port = 22 if config.alias else config.port
    trust = known.trust(name, port, key)
    if trust is Trust.REVOKED:
        raise SshError(ssh_errors.revoked_key(target, fingerprint(key)))
    if shown.public_blob is not None and (authorities := known.authorities(name, port)):
        why = _why_no_certificate(shown.public_blob.key_blob, name, port, known, authorities)
        if why is None:
            return
        if trust is not Trust.KNOWN:
            raise SshError(f"{target}: its certificate does not hold: {why}")
    if trust is Trust.CHANGED:
        places = known.places(name, port)
        raise SshError(ssh_errors.changed_key(target, fingerprint(key), places))
    if trust is Trust.UNKNOWN:
        raise SshError(ssh_errors.unknown_key(target, [key]))


def _plain(shown: paramiko.PKey) -> bytes:
    """The key without its certificate."""
    return bytes(shown.asbytes())


def _why_no_certificate(
    blob: bytes, host: str, port: int, known: KnownHosts, authorities: Sequence[bytes]
) -> str | None:
    try:
        certificate = parse_certificate(blob)
        if why := why_refused(certificate, host, authorities, time.time()):
            return why
        if known.is_revoked(host, port, certificate.authority):
            return "its authority is revoked"
        authority = paramiko.PKey.from_type_string(*_typed(certificate.authority))
        message = paramiko.Message(certificate.signature)
        if not authority.verify_ssh_sig(certificate.signed, message):
            return "its signature is wrong"
    except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        return f"it cannot be read ({error})"
    return None


def _typed(key: bytes) -> tuple[str, bytes]:
    return paramiko.Message(key).get_text(), key


def _explain(target: Target, error: Exception) -> str:
    text = str(error)
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return f"{target}: too old for paramiko ({text}); set `transport: openssh`"
    if "banner" in text:
        return ssh_errors.no_banner(target)
    if isinstance(error, (EOFError, ConnectionResetError)) or "EOF" in text:
        return ssh_errors.cut_off(target)
    if isinstance(error, TimeoutError) or "Timeout" in text or "timed out" in text:
        return ssh_errors.timed_out(target)
    return f"{target}: no connection: {text or type(error).__name__}"


with contextlib.suppress(AttributeError):
    # it prints the traceback of every connection that fails
    paramiko.util.get_logger("paramiko").setLevel("CRITICAL")
