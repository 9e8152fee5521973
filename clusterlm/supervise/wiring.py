"""Where the ranks meet: an address that the other nodes reach, and a port that is free.

The port lies outside the ephemeral range (32768-60999), where any outgoing connection may sit on
it, and follows from job and attempt, so that two jobs on a node, or an attempt and its stale ranks,
do not meet. It is tried on the head node before it is given out.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

PORTS = range(20000, 32000)
HERE = "127.0.0.1"


def head_address(hosts: Sequence[str]) -> str:
    """IPv4 address of this machine, the first of `hosts`, as the second sees it.

    The kernel is asked which address it would use towards the other node: `hostname -i` may give
    127.0.1.1 (Debian), several addresses, or one of a network that the nodes do not share.

    Raises:
        OSError: the other host has no address, or only a loopback one is to be had.
    """
    if len(hosts) == 1:
        return HERE
    other = socket.getaddrinfo(hosts[1], None, socket.AF_INET)[0][4][0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # UDP connect sends nothing; it only chooses the route
        probe.connect((other, 9))
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        raise OSError(f"this node reaches {hosts[1]} ({other}) only by its loopback address")
    return address


def free_port(
    address: str, job_id: str, attempt: int, *, is_free: Callable[[str, int], bool]
) -> int:
    """The first free port from the one that job and attempt give.

    Raises:
        OSError: none of 200 was free.
    """
    digits = int("".join(c for c in job_id if c.isdigit()) or 0)
    first = (digits * 131 + attempt * 17) % len(PORTS)
    for offset in range(200):
        port = PORTS[(first + offset) % len(PORTS)]
        if is_free(address, port):
            return port
    raise OSError(f"no free port for the rendezvous on {address} (tried 200 from {PORTS[first]})")


def can_bind(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError:
            return False
    return True
