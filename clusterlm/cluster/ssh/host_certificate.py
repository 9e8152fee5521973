"""Whether a host's certificate holds: what OpenSSH checks, for the transport without it.

Format: PROTOCOL.certkeys of OpenSSH. A certificate is the host's key with names, a time and an
authority's signature; who the authorities are is said by @cert-authority lines of known_hosts.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from clusterlm.cluster.ssh.ssh_config import matches

HOST_CERTIFICATE = 2
# numbers that a key of this kind is made of, which stand between nonce and serial
NUM_KEY_FIELDS = {"ssh-ed25519": 1, "ssh-rsa": 2, "ecdsa-sha2": 2}
# an authority that signs with SHA-1 proves nothing any more
SIGNATURES = (
    *("ssh-ed25519", "rsa-sha2-256", "rsa-sha2-512"),
    *("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
)


@dataclass(frozen=True)
class Certificate:
    """A host's certificate, not yet checked.

    Attributes:
        signed: the bytes that the signature is of.
        after, before: unix seconds between which it holds.
    """

    kind: int
    names: tuple[str, ...]
    after: int
    before: int
    options: bytes
    authority: bytes
    signature: bytes
    signed: bytes


def parse_certificate(blob: bytes) -> Certificate:
    """Take it apart.

    Raises:
        ValueError: it is none.
    """
    read = _Reader(blob)
    name = read.string().decode("ascii", "replace")
    read.string()  # nonce
    for _ in range(next((n for kind, n in NUM_KEY_FIELDS.items() if name.startswith(kind)), 0)):
        read.string()
    read.number(8)  # serial
    kind = read.number(4)
    read.string()  # the certificate's own name
    names = _Reader(read.string())
    principals = []
    while names.is_more:
        principals.append(names.string().decode("utf-8", "replace"))
    after, before = read.number(8), read.number(8)
    options = read.string()
    read.string()  # extensions: for users alone
    read.string()  # reserved
    authority = read.string()
    signed = blob[: read.at]
    signature = read.string()
    if read.is_more or not authority:
        raise ValueError("a certificate with something behind its end")
    return Certificate(
        kind, tuple(principals), after, before, options, authority, signature, signed
    )


def why_refused(
    certificate: Certificate, host: str, authorities: Sequence[bytes], now: float
) -> str | None:
    """Why it does not hold for `host`, but for its signature; None if it does."""
    if certificate.authority not in authorities:
        return "its authority is not the one of known_hosts"
    if certificate.kind != HOST_CERTIFICATE:
        return "it is a user's certificate, not a host's"
    if not any(matches(name.lower(), host.lower()) for name in certificate.names):
        return f"it is for {', '.join(certificate.names) or 'no name'}, not for {host}"
    if not certificate.after <= now < certificate.before:
        return "its time is over, or has not come"
    if certificate.options:
        return "it has conditions that are not known here"
    algorithm = _Reader(certificate.signature).string().decode("ascii", "replace")
    if algorithm not in SIGNATURES:
        return f"it is signed with {algorithm}"
    return None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def is_more(self) -> bool:
        return self.at < len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        (length,) = struct.unpack(">I", self._take(4))
        return self._take(length)

    def _take(self, size: int) -> bytes:
        piece = self._data[self.at : self.at + size]
        if len(piece) != size:
            raise ValueError("a certificate that breaks off")
        self.at += size
        return piece
