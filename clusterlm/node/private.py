"""What others could have touched is not trusted: secrets, and folders whose pickles are loaded.

Whoever may write into a folder may put another file in the place of one: the folder counts, not
only the file. A folder with the sticky bit, such as /tmp, lets nobody rename what is not theirs.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 20
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotPrivate(Exception):
    """Says which file or folder, what is wrong with it and what to do; never what it holds."""


def read_private(path: Path) -> str:
    """The text of a file that this user alone can read.

    Raises:
        NotPrivate: it belongs to somebody else, others can read it, it is a link or no file.
        OSError: it cannot be opened.
    """
    try:
        # a FIFO must not keep us waiting
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise NotPrivate(f"{path}: a symbolic link; give the file itself") from None
        raise error
    with os.fdopen(fd, "rb") as handle:
        about = os.fstat(handle.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise NotPrivate(f"{path}: no regular file")
        if about.st_uid not in (os.geteuid(), 0):
            raise NotPrivate(f"{path}: belongs to user {about.st_uid}, not to you")
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o077:
            raise NotPrivate(f"{path}: mode {mode:04o}, others can read it; chmod 600 {path}")
        data = handle.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise NotPrivate(f"{path}: larger than {MAX_BYTES} bytes")
    return data.decode("utf-8", "surrogateescape")


def refuse_open_folder(folder: Path) -> None:
    """Raise if another user could put a file into `folder`, or another folder in its place.

    Raises:
        NotPrivate: with the command that mends it.
        OSError: it is not there.
    """
    about = os.lstat(folder)
    if not stat.S_ISDIR(about.st_mode):
        raise NotPrivate(f"{folder}: no folder of its own (a link, or a file)")
    if about.st_uid != os.geteuid():
        raise NotPrivate(f"{folder}: belongs to user {about.st_uid}, not to you")
    if about.st_mode & _OTHERS_WRITE:
        raise NotPrivate(f"{folder}: {_writers(about)} may write into it; chmod go-w {folder}")
    refuse_open_parent(folder.parent)


def refuse_open_parent(above: Path) -> None:
    """Raise if another user could exchange what lies in `above`.

    Raises:
        NotPrivate: with the command that mends it.
        OSError: it is not there.
    """
    about = os.stat(above)
    if about.st_mode & stat.S_ISVTX:
        return
    if about.st_mode & _OTHERS_WRITE:
        raise NotPrivate(
            f"{above}: {_writers(about)} may replace what lies in it; "
            f"chmod go-w {above}, or where others keep theirs in it too: chmod +t {above}"
        )
    if about.st_uid not in (os.geteuid(), 0):
        raise NotPrivate(
            f"{above}: belongs to user {about.st_uid}, who may replace what lies in it; "
            "take a folder of yours, or ask for: chmod +t"
        )


def _writers(about: os.stat_result) -> str:
    return "everybody" if about.st_mode & stat.S_IWOTH else f"its group ({about.st_gid})"
