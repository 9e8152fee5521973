"""The network interface that leads to the head node.

gloo takes the address that the node's own name resolves to, and on Debian that is 127.0.1.1: the
ranks then listen on loopback and the other nodes wait for half an hour. So it is told by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915


def interface_towards(address: str) -> str | None:
    """Name of the interface that the kernel uses towards `address`, such as `ib0`.

    None when there is no route or no interface bears the address (some virtual networks).
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # UDP connect sends nothing; it only chooses the route
            probe.connect((address, 9))
            own = probe.getsockname()[0]
    except OSError:
        return None
    return next((name for _, name in socket.if_nameindex() if _address_of(name) == own), None)


def _address_of(interface: str) -> str | None:
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        request = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24])
    return None
