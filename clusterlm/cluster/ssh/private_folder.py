"""A folder for sockets: ours alone, and short, as a socket's path may have 104 bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from clusterlm.errors import SshError

# ssh binds PATH.XXXXXXXXXXXXXXXX first; names have 16 letters; macOS takes 104 bytes with a NUL
LONGEST_FOLDER = 104 - 1 - 17 - 17


def socket_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder, made if it is not there.

    Raises:
        SshError: something of somebody else is in its place.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    places = [Path(runtime) / "clusterlm-ssh"] if runtime.startswith("/") else []
    places.append(Path(f"/tmp/clusterlm-ssh-{os.getuid()}"))
    problems = []
    for place in places:
        if len(os.fsencode(place)) > LONGEST_FOLDER:
            continue
        if (problem := _claim(place)) is None:
            return place
        problems.append(problem)
    raise SshError("no private folder for the sockets of SSH: " + "; ".join(problems))


def _claim(place: Path) -> str | None:
    """Make it ours; else say why not."""
    try:
        place.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        return f"{place}: {error.strerror}"
    # a link to a folder of ours would let somebody else move it
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return f"{place} is not your own folder: remove it"
    if found.st_mode & 0o077:
        return f"{place} is open to others: chmod 700 {place}"
    return None
