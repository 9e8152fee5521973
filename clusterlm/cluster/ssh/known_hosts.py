"""known_hosts as OpenSSH reads it, for the transport that has no `ssh` program.

paramiko's own reader stops at lines of an authority and knows no wildcards. Here are: hashed names,
`[host]:port`, wildcards and `!`, @cert-authority and @revoked. A line that cannot be read is left
out, as OpenSSH does. Nothing is ever written: a key that is not known is refused, with the words
for getting to know it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.ssh.ssh_config import matches
from clusterlm.errors import SshError

PORT = 22
CERTIFICATE = "-cert-v01@openssh.com"


class Trust(enum.Enum):
    """What known_hosts says of a key that a host shows."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line. `marker` is "", "@cert-authority" or "@revoked"."""

    marker: str
    names: str
    kind: str
    key: bytes
    place: str

    def is_of(self, name: str) -> bool:
        """`name` as it stands in the file: login.org, or [login.org]:2222."""
        if self.names.startswith("|1|"):
            return _is_hash_of(self.names, name.lower())
        found = False
        for pattern in self.names.split(","):
            if matches(pattern.removeprefix("!").lower(), name.lower()):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


class KnownHosts:
    """All lines of some files."""

    def __init__(self, keys: Sequence[KnownKey]) -> None:
        self._keys = keys

    def trust(self, host: str, port: int, key: bytes) -> Trust:
        """Whether this is the host's key. Another one of the same kind means that it changed."""
        if self.is_revoked(host, port, key):
            return Trust.REVOKED
        own = self._of(name_of(host, port))
        if any(known.key == key for known in own):
            return Trust.KNOWN
        if any(known.kind == kind_of(key) for known in own):
            return Trust.CHANGED
        # as OpenSSH: a key that is known without the port is known with it
        if port != PORT and any(known.key == key for known in self._of(host)):
            return Trust.KNOWN
        return Trust.UNKNOWN

    def is_revoked(self, host: str, port: int, key: bytes) -> bool:
        return any(known.key == key for known in self._of(name_of(host, port), "@revoked"))

    def authorities(self, host: str, port: int) -> list[bytes]:
        """Keys that may certify the host."""
        return [known.key for known in self._of(name_of(host, port), "@cert-authority")]

    def kinds(self, host: str, port: int) -> list[str]:
        """Kinds of key that are known of the host: these are asked for first."""
        names = [name_of(host, port), host]
        return list(dict.fromkeys(known.kind for name in names for known in self._of(name)))

    def places(self, host: str, port: int) -> list[str]:
        """Where the host's keys stand: file and line."""
        return [known.place for known in self._of(name_of(host, port))]

    def _of(self, name: str, marker: str = "") -> list[KnownKey]:
        return [known for known in self._keys if known.marker == marker and known.is_of(name)]


def read_known_hosts(files: Iterable[Path]) -> KnownHosts:
    """All lines of those files that are there.

    Raises:
        SshError: one is there and cannot be read; a revoked key may stand in it.
    """
    keys = []
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise SshError(f"{file}: {error.strerror}") from error
        for number, line in enumerate(text.splitlines(), start=1):
            if known := _parse(line, f"{file} line {number}"):
                keys.append(known)
    return KnownHosts(keys)


def name_of(host: str, port: int) -> str:
    """How known_hosts calls it."""
    return host if port == PORT else f"[{host}]:{port}"


def fingerprint(key: bytes) -> str:
    """As ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


def kind_of(key: bytes) -> str:
    """The kind that a key names itself: ssh-ed25519."""
    length = int.from_bytes(key[:4], "big")
    return key[4 : 4 + length].decode("ascii", "replace")


def _parse(line: str, place: str) -> KnownKey | None:
    words = line.split()
    if not words or words[0].startswith("#"):
        return None
    marker = words.pop(0) if words[0].startswith("@") else ""
    if marker not in ("", "@cert-authority", "@revoked") or len(words) < 3:
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    # `ssh-rsa` names a kind of key here, whatever it signs with
    return KnownKey(marker, words[0], words[1], key, place) if kind_of(key) == words[1] else None


def _is_hash_of(hashed: str, name: str) -> bool:
    # |1|salt|HMAC-SHA1 of the name
    try:
        salt, digest = (base64.b64decode(part) for part in hashed.split("|")[2:4])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
