"""Build secrets: files that only the build sees, and nothing of them in what is shown or logged."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clusterlm.cluster.secret_values import find_secrets
from clusterlm.node.image_build import SHORTEST
from clusterlm.node.redact import Redactor

_PREFIX = "clusterlm-build-"
_IN_MEMORY = Path("/dev/shm")


def build_secrets(names: Sequence[str]) -> dict[str, str]:
    """The values of `image.build_secrets`, see `secret_values.py`.

    Raises:
        ClusterLMError: one is nowhere.
    """
    return find_secrets(names, "image.build_secrets")


@contextmanager
def secret_files(values: dict[str, str]) -> Iterator[dict[str, Path]]:
    """Each value in a private file, in memory where there is such a folder; gone afterwards."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    _remove_remains(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        files = {}
        for name, value in values.items():
            files[name] = folder / name
            descriptor = os.open(files[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                handle.write(value)
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_remains(parent: Path) -> None:
    """What a killed build of this user has left."""
    for folder in parent.glob(f"{_PREFIX}*-*"):
        found = re.match(rf"{_PREFIX}(\d+)-", folder.name)
        with contextlib.suppress(OSError):
            is_ours = folder.lstat().st_uid == os.getuid()
            if found and is_ours and not Path("/proc", found[1]).exists():
                shutil.rmtree(folder, ignore_errors=True)


def hider(values: Iterable[str]) -> Redactor:
    """What takes the values out of a line, however they are written there."""
    return Redactor(values, shortest=SHORTEST)
