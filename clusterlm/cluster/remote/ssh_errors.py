"""Why a connection failed, in words, and what to do."""

from __future__ import annotations

from clusterlm.cluster.remote.address import Address
from clusterlm.cluster.remote.lines import last_lines


def explain_openssh(address: Address, said: str) -> str:
    """The message for what `ssh` printed."""
    return f"{address}: no connection\n{last_lines(said.encode())}\ntry: {address.command}"
