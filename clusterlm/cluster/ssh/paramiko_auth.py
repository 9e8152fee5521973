"""Logging in with paramiko: an agent, key files, at a terminal a code or password. Nothing is kept.

OpenSSH's order: keys that both the agent and ssh_config name, the agent's others, files. A key file
with a passphrase is opened at a terminal only.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import paramiko
from paramiko.agent import AgentKey, AgentSSH

from clusterlm.cluster.ssh.known_hosts import fingerprint
from clusterlm.cluster.ssh.ssh_config import HostConfig
from clusterlm.cluster.ssh.ssh_errors import Target, not_let_in
from clusterlm.errors import SshError


def log_in(link: paramiko.Transport, config: HostConfig, target: Target) -> None:
    """Try every way there is.

    Raises:
        SshError: none of them led in; the text names the keys that were tried.
        TimeoutError: no answer came.
        EOFError: the connection broke.
    """
    with _Agent(config.agent) as agent:
        tried, takes = _offer_keys(link, config, agent)
    if not takes or _ask_person(link, config.user, takes):
        return
    raise SshError(not_let_in(target, tried, takes, _is_person()))


def _offer_keys(
    link: paramiko.Transport, config: HostConfig, agent: _Agent
) -> tuple[list[str], Sequence[str]]:
    """The keys that were tried, and what is wanted still: nothing once we are in."""
    tried: list[str] = []
    takes: Sequence[str] = _ask_what_it_takes(link, config.user)
    for key, name in _keys(config, agent.keys) if "publickey" in takes else ():
        if not link.is_active():
            break
        tried.append(f"{name}  {fingerprint(key.asbytes())}")
        try:
            # what is left: the key is good, and the site may want something more
            return tried, link.auth_publickey(config.user, key)
        except paramiko.AuthenticationException as error:
            # a server ends the connection itself only when several keys were wrong
            _refuse_silence(link, error, may_end=len(tried) > 1)
    return tried, takes


def _ask_what_it_takes(link: paramiko.Transport, user: str) -> Sequence[str]:
    try:
        link.auth_none(user)
    except paramiko.BadAuthenticationType as error:
        return list(error.allowed_types)
    except paramiko.AuthenticationException as error:
        _refuse_silence(link, error, may_end=False)
        return ["publickey"]
    return []


def _refuse_silence(
    link: paramiko.Transport, error: paramiko.AuthenticationException, *, may_end: bool
) -> None:
    """Tell a line that broke from a key that was not taken: paramiko calls both the same."""
    if "timeout" in str(error).lower():
        raise TimeoutError("timed out") from error
    if not may_end and not link.is_active():
        raise EOFError from error


def _keys(
    config: HostConfig, agent_keys: Sequence[AgentKey]
) -> Iterator[tuple[paramiko.PKey, str]]:
    """Every key with what the user calls it."""
    in_agent = {key.asbytes(): key for key in agent_keys}
    of_files = {path: _public(path) for path in config.keys}
    chosen = [blob for blob in of_files.values() if blob in in_agent]
    others = [] if config.keys_only else [blob for blob in in_agent if blob not in chosen]
    for blob in [*chosen, *others]:
        yield in_agent[blob], f"{in_agent[blob].comment or 'a key'} of your agent"
    for path, blob in of_files.items():
        if blob in in_agent or not path.is_file():
            continue
        key = _load(path)
        if key is None:
            continue
        for certificate in [*config.certificates, Path(f"{path}-cert.pub")]:
            if certificate.is_file() and (certified := _load(path)) is not None:
                # ValueError: it certifies another key
                with contextlib.suppress(ValueError, paramiko.SSHException):
                    certified.load_certificate(str(certificate))
                    yield certified, f"{path} with {certificate}"
        yield key, str(path)


class _Agent:
    """The keys of an agent, which signs as long as the block lasts."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self.keys: Sequence[AgentKey] = ()

    def __enter__(self) -> _Agent:
        self._wire = socket.socket(socket.AF_UNIX)
        if self._path is not None:
            agent = AgentSSH()
            # one that hangs, or speaks another tongue, is none
            with contextlib.suppress(OSError, paramiko.SSHException, struct.error):
                self._wire.settimeout(10)
                self._wire.connect(self._path)
                agent._connect(self._wire)
                self.keys = agent.get_keys()
                # a touch of a key may take its time
                self._wire.settimeout(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()


def _public(path: Path) -> bytes | None:
    """The public half beside a key file."""
    with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
        return bytes(paramiko.pkey.PublicBlob.from_file(f"{path}.pub").key_blob)
    return None


def _load(path: Path) -> paramiko.PKey | None:
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException:
        pass
    except (OSError, ValueError, TypeError, paramiko.SSHException):
        return _load_locked(path)
    return _load_locked(path)


def _load_locked(path: Path) -> paramiko.PKey | None:
    if not _is_person():
        return None
    with contextlib.suppress(OSError, ValueError, paramiko.SSHException):
        return paramiko.PKey.from_path(path, getpass.getpass(f"passphrase of {path}: ").encode())
    return None


def _ask_person(link: paramiko.Transport, user: str, takes: Sequence[str]) -> bool:
    """Codes and passwords, at a terminal."""
    if not _is_person() or not link.is_active():
        return False
    with contextlib.suppress(paramiko.AuthenticationException):
        if "keyboard-interactive" in takes:
            return not link.auth_interactive(user, _answer)
        if "password" in takes:
            return not link.auth_password(user, getpass.getpass(f"password of {user}: "))
    return False


def _answer(title: str, text: str, questions: Sequence[tuple[str, bool]]) -> list[str]:
    for line in (title, text):
        if line.strip():
            print("".join(c for c in line if c.isprintable() or c == "\n"), file=sys.stderr)
    return [input(ask) if shown else getpass.getpass(ask) for ask, shown in questions]


def _is_person() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
