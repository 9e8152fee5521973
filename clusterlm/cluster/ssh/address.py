"""Where a cluster is: what the user wrote, and files of SSH that stand in for the usual ones."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from clusterlm.errors import SshError

CONFIG_VARIABLE = "CLUSTERLM_SSH_CONFIG"
"""An ssh_config that is read in place of the user's and the system's."""
HOST_WORD = re.compile(r"[A-Za-z0-9_:\[]([A-Za-z0-9._:%\]-]{0,253}[A-Za-z0-9\]])?", re.ASCII)
USER_WORD = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._@+\\-]{0,126}[A-Za-z0-9_$])?", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A host as the user wrote it; user and port are None where ssh_config decides."""

    host: str
    user: str | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        # whatever begins with a dash would be an option, and these words meet shells of others
        if not HOST_WORD.fullmatch(self.host):
            raise SshError(f"{self.host!r} is no host name")
        if self.user is not None and not USER_WORD.fullmatch(self.user):
            raise SshError(f"{self.user!r} is no user name")

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{self.host}{port}"

    @property
    def command(self) -> str:
        """What a user types to try the connection."""
        user = f"{self.user}@" if self.user else ""
        port = f"-p {self.port} " if self.port else ""
        config = f"-F {os.environ[CONFIG_VARIABLE]} " if os.environ.get(CONFIG_VARIABLE) else ""
        return f"ssh {config}{port}{user}{self.host}"


def config_files() -> list[Path]:
    """The files of ssh_config, the one that wins first. They need not be there."""
    if chosen := os.environ.get(CONFIG_VARIABLE):
        return [Path(chosen).absolute()]
    return [Path.home() / ".ssh/config", Path("/etc/ssh/ssh_config")]
