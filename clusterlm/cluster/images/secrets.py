"""Build secrets: files that only the build sees, and nothing of them in what is shown or logged."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, quote_plus, urlsplit

from clusterlm.errors import ClusterLMError

HIDDEN = "[secret]"
_SHORTEST = 3
"""A shorter value stands anywhere by chance."""
_PREFIX = "clusterlm-build-"
_IN_MEMORY = Path("/dev/shm")


def build_secrets(names: Sequence[str]) -> dict[str, str]:
    """The values of `image.build_secrets`, from this environment.

    Raises:
        ClusterLMError: one is not set.
    """
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise ClusterLMError(
            f"image.build_secrets: {', '.join(missing)} not set in the environment\n"
            f"  export {missing[0]}=... in the shell that builds, or leave it out of the list"
        )
    return {name: os.environ[name] for name in names}


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


def hider(values: Iterable[str]) -> Callable[[str], str]:
    """A function that takes the values out of a line, however they are written there."""
    forms = sorted({f for v in values for f in _forms(v)}, key=len, reverse=True)
    if not forms:
        return lambda line: line
    pattern = re.compile("|".join(map(re.escape, forms)))
    return lambda line: pattern.sub(HIDDEN, line)


def _forms(value: str) -> Iterator[str]:
    """A value plain, in a URL, in base64; of a URL also its password; of many lines each."""
    for part in {value, value.strip(), *value.splitlines(), *_credentials(value)}:
        if len(part.strip()) < _SHORTEST:
            continue
        yield part
        yield quote(part, safe="")
        yield quote(part)
        yield quote_plus(part)
        # as header values have it: alone, or behind a user name, which shifts it
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + part.encode()).decode()
            # the first characters mix with what stands before, the last with what follows
            inner = text[(0, 2, 3)[shift] :].rstrip("=")
            inner = inner if (len(part.encode()) + shift) % 3 == 0 else inner[:-1]
            if len(inner) >= 2 * _SHORTEST:
                yield inner
                yield inner.replace("+", "-").replace("/", "_")


def _credentials(value: str) -> Iterator[str]:
    try:
        found = urlsplit(value)
        if found.username and found.hostname:
            yield f"{found.username}:{found.password or ''}"
        if found.password or found.username:
            yield found.password or found.username or ""
    except ValueError:
        return
