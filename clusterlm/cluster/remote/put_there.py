"""Small files of our own on a cluster, where there is no clusterlm yet: by its shell alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterlm.cluster.log_text import readable
from clusterlm.errors import SshRefused

if TYPE_CHECKING:
    from clusterlm.cluster.ssh.transport import Transport

INSTALLING = "the installation of clusterlm there"

# written aside, compared with its size, renamed; never through a link. Of one that was cut
# nothing stays.
_PUT = r"""
umask 077
mkdir -p "$(dirname "$1")" && cat > "$1.$$" &&
[ "$(wc -c < "$1.$$")" -eq "$2" ] && mv -f "$1.$$" "$1" || { rm -f "$1.$$"; exit 1; }
"""


def put(transport: Transport, data: bytes, target: str) -> None:
    """Write a file there, whole or not at all.

    Raises:
        SshRefused: it cannot be written.
    """
    done = transport.run(
        ["sh", "-c", _PUT, "sh", target, str(len(data))],
        stdin=data,
        timeout_s=600.0,
        doing=INSTALLING,
    )
    if not done.is_ok:
        words = readable(" ".join(done.err.split()).encode())
        raise SshRefused(f"{transport.name}: {target} cannot be written there: {words}")
