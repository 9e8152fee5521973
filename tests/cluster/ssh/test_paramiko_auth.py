"""A login that a broken line ends is none that was refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

paramiko = pytest.importorskip("paramiko")

from clusterlm.cluster.ssh.paramiko_auth import log_in  # noqa: E402
from clusterlm.errors import SshError  # noqa: E402
from tests.bed.ssh_fixture import SshHome  # noqa: E402


class Link:
    """A server that takes keys, and whose answer to one does not come."""

    def __init__(self, words: str, ends_after: int) -> None:
        self.words, self.left = words, ends_after

    def auth_none(self, user: str) -> None:
        raise paramiko.BadAuthenticationType("no", ["publickey"])

    def auth_publickey(self, user: str, key: object) -> None:
        self.left -= 1
        raise paramiko.AuthenticationException(self.words)

    def is_active(self) -> bool:
        return self.left > 0


def _log_in(ssh: SshHome, link: Link, num_keys: int) -> None:
    keys = [ssh.keys.new(f"key{number}") for number in range(num_keys)]
    config: Any = SimpleNamespace(
        agent=None, user="me", keys=[Path(k) for k in keys], keys_only=True, certificates=[]
    )
    target: Any = "me@there"
    log_in(link, config, target)  # type: ignore[arg-type]


def test_no_answer_to_a_key_is_silence(ssh: SshHome) -> None:
    with pytest.raises(TimeoutError):
        _log_in(ssh, Link("Authentication timeout.", 9), 2)


def test_a_connection_that_ends_at_the_first_key_has_broken(ssh: SshHome) -> None:
    with pytest.raises(EOFError):
        _log_in(ssh, Link("transport shut down or saw EOF", 1), 2)


def test_a_server_that_has_enough_of_keys_has_refused_them(
    ssh: SshHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.cluster.ssh.paramiko_auth.not_let_in", lambda *a: "refused")
    with pytest.raises(SshError, match="refused"):
        _log_in(ssh, Link("transport shut down or saw EOF", 2), 3)
