"""What is known of an image that was built: one JSON file each, written last.

Beside it lies, for enroot and apptainer, the imported file with a seal (`<file>.json`: bytes and
sha256), which the import writes last. A file without a seal, or of another size, is not whole.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from clusterlm.image_paths import ImagePaths
from clusterlm.node.files import has_appeared, read_json, write_json


@dataclass(frozen=True)
class ImageRecord:
    """An image, as it was built."""

    recipe: str
    base: str
    base_digest: str
    """`repository@sha256:...`, or the id of a base that never came from a registry."""
    image_id: str
    builder: str
    tag: str
    python: str
    python_version: str
    torch: str | None
    cuda: str | None
    nccl: str | None
    clusterlm: str
    code_digest: str
    size_bytes: int
    arch: str
    built: float
    file: str | None = None
    """Name of the .sqsh or .sif in the images folder."""
    file_bytes: int | None = None
    file_sha256: str | None = None
    pushed: str | None = None
    """`repository@sha256:...` in `image.registry`."""


@dataclass(frozen=True)
class Seal:
    """What the import says of the file that it made."""

    bytes: int
    sha256: str


def read_record(paths: ImagePaths) -> ImageRecord | None:
    """The record of a recipe's image; None when it was not built, or by a version unlike this."""
    found = read_json(paths.record)
    if not found or found.get("recipe") != paths.recipe:
        return None
    return record_from(found)


def record_from(found: dict[str, Any]) -> ImageRecord | None:
    """A record out of what a file holds; keys that are not known are left out."""
    known = {f.name for f in fields(ImageRecord)}
    try:
        record = ImageRecord(**{k: v for k, v in found.items() if k in known})
    except TypeError:
        return None
    return record if _is_sane(record) else None


def _is_sane(record: ImageRecord) -> bool:
    """Whether somebody's hand has left every value what it was."""
    texts = (record.recipe, record.base, record.base_digest, record.image_id, record.tag)
    may_be_absent = (record.torch, record.cuda, record.nccl, record.file, record.pushed)
    return (
        all(isinstance(text, str) for text in texts)
        and all(text is None or isinstance(text, str) for text in may_be_absent)
        and all(isinstance(n, int | float) for n in (record.built, record.size_bytes))
        and (record.file is None or "/" not in record.file)
    )


def write_record(paths: ImagePaths, record: ImageRecord) -> None:
    """Write a record whole."""
    write_json(paths.record, asdict(record))


def seal_path(file: Path) -> Path:
    """Where the seal of an imported file lies."""
    return file.with_name(f"{file.name}.json")


def read_seal(file: Path) -> Seal | None:
    """The seal of a whole file; None when the file is not there or not whole."""
    found = read_json(seal_path(file)) if has_appeared(file) else None
    try:
        seal = Seal(int(found["bytes"]), str(found["sha256"])) if found else None
        return seal if seal and file.stat().st_size == seal.bytes else None
    except (KeyError, TypeError, ValueError, OSError):
        return None
