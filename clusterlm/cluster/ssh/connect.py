"""From a profile to a transport: which program makes the connection."""

from __future__ import annotations

import os
import shutil

from clusterlm.cluster.ssh.address import Address
from clusterlm.cluster.ssh.transport import Transport
from clusterlm.errors import SshError
from clusterlm.spec.profile import Profile


def connect(name: str, profile: Profile) -> Transport:
    """The way to a cluster. Nothing is sent before the first call of it.

    Args:
        name: of the profile, for messages.
        profile: one with a `host`.

    Raises:
        SshError: the profile has no host, or the chosen transport is not installed.
    """
    if profile.host is None:
        raise SshError(f"clusters.{name}: has no `host`: it is this machine, not one behind SSH")
    address = Address(profile.host, profile.user, profile.port)
    if _backend(profile) == "openssh":
        from clusterlm.cluster.ssh.openssh import OpenSsh

        return OpenSsh(address, profile.setup)
    from clusterlm.cluster.ssh.paramiko_ssh import ParamikoSsh

    return ParamikoSsh(address, profile.setup)


def _backend(profile: Profile) -> str:
    """The program wherever it is: it alone knows every way of logging in."""
    if profile.transport != "auto":
        return profile.transport
    # Windows' ssh shares no connections
    return "openssh" if shutil.which("ssh") and os.name == "posix" else "paramiko"
