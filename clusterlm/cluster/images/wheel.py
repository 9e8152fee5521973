"""The wheel of the clusterlm that runs now, made from its own files: no build tool, no network.

The bytes are the same whenever the files are: members are sorted, stored without compression (which
differs between versions of zlib) and carry one fixed time. So an unchanged clusterlm leaves the
digest of an image alone.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import re
import zipfile
from functools import lru_cache
from pathlib import Path

import clusterlm
from clusterlm import __version__
from clusterlm.errors import ImageError
from clusterlm.node import image_build

WHEEL_NAME = f"clusterlm-{__version__}-py3-none-any.whl"

_INFO = f"clusterlm-{__version__}.dist-info"
_WHEEL_FILE = "Wheel-Version: 1.0\nGenerator: clusterlm\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# the first that a zip can hold
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of the package as it lies on this machine; the image's check compares it."""
    return image_build.code_digest(_package())


def build_wheel() -> bytes:
    """The wheel, named WHEEL_NAME.

    Raises:
        ImageError: clusterlm runs from a folder and was never installed, so its requirements are
            not known.
    """
    files = {f"clusterlm/{name}": data for name, data in _package_files().items()}
    files[f"{_INFO}/METADATA"] = _metadata().encode()
    files[f"{_INFO}/WHEEL"] = _WHEEL_FILE.encode()
    files[f"{_INFO}/entry_points.txt"] = (
        _distribution().read_text("entry_points.txt") or ""
    ).encode()
    files[f"{_INFO}/RECORD"] = _record(files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as wheel:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, _FIXED_TIME)
            # a plain file that all may read
            member.external_attr = 0o100644 << 16
            member.create_system = 3
            wheel.writestr(member, data)
    return out.getvalue()


def requirements_of(extra: str | None = None) -> list[str]:
    """What clusterlm itself requires, or what its extra adds, as its metadata say it."""
    wanted = []
    for line in _distribution().requires or []:
        requirement, _, marker = line.partition(";")
        named = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        if (named.group(1) if named else None) == extra:
            wanted.append(requirement.strip())
    return wanted


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("clusterlm")
    except importlib.metadata.PackageNotFoundError as error:
        raise ImageError(
            f"clusterlm runs from {_package()} and is not installed there, so what it requires is"
            " not known\n  install it once: pip install -e FOLDER_WITH_PYPROJECT"
        ) from error


def _metadata() -> str:
    """METADATA with the version of the code: an editable install may keep an older one."""
    text = _distribution().read_text("METADATA") or ""
    return re.sub(r"(?m)^Version: .*$", f"Version: {__version__}", text, count=1)


def _package() -> Path:
    return Path(clusterlm.__file__).parent


def _package_files() -> dict[str, bytes]:
    files = image_build.code_files(_package())
    return {name: path.read_bytes() for name, path in files.items()}


def _record(files: dict[str, bytes]) -> bytes:
    """Name, hash and size of each file; its own line has neither."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((f"{_INFO}/RECORD", "", ""))
    return out.getvalue().encode()
