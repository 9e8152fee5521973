"""A heartbeat over the network, beside the one in the run directory: a datagram every few seconds.

The two tell different troubles apart. A node whose network is cut may still write to a shared
folder and would look healthy for ever; a file system that hangs silences the files of every node at
once while all of them are fine. Datagrams need no answer and no connection: a lost one costs
nothing, and where a firewall drops all of them the supervisor never sees one and goes by the files.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping

SEND_EVERY_S = 3.0

TARGET = "CLUSTERLM_BEAT_TO"
"""`address:port token` of the supervisor; empty or absent: nobody listens."""


def start_net_beat(environ: Mapping[str, str], node_rank: int) -> bool:
    """Send from now on until the process ends; whether somebody listens."""
    place, _, token = environ.get(TARGET, "").partition(" ")
    address, _, port = place.rpartition(":")
    if not address or not port.isdigit():
        return False
    message = f"{token} {node_rank} {os.getpid()}".encode()
    target = (address, int(port))
    threading.Thread(target=_send_for_ever, args=(target, message), daemon=True).start()
    return True


def _send_for_ever(target: tuple[str, int], message: bytes) -> None:
    pause = threading.Event()
    while True:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(message, target)
        except OSError:
            # no route, link down: silence is the message
            pass
        pause.wait(SEND_EVERY_S)
