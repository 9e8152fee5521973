"""Wheels for images that are built without a network: what this environment has, packed anew.

Nothing is downloaded or compiled: the files that an installed distribution lists are put back into
a wheel. So an image gets the very versions that the tests outside it run with.
"""

import base64
import hashlib
import importlib.metadata
import io
import re
import zipfile
from collections.abc import Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

FIXED_TIME = (1980, 1, 1, 0, 0, 0)


def closure(*wanted: str, without: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Names of everything that these requirements bring, themselves included, sorted."""
    found: set[str] = set()
    todo = [Requirement(text) for text in wanted]
    while todo:
        requirement = todo.pop()
        name = canonical(requirement.name)
        for line in distribution(name).requires or []:
            inner = Requirement(line)
            extras = requirement.extras or {""}
            if canonical(inner.name) in without | found:
                continue
            if inner.marker is None or any(inner.marker.evaluate({"extra": e}) for e in extras):
                todo.append(inner)
        found.add(name)
    return sorted(found)


def canonical(name: str) -> str:
    """As pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_files(dist: Distribution) -> dict[str, Path]:
    """What a distribution brought, by path below site-packages; what it compiled is left out."""
    return {
        str(file): Path(str(dist.locate_file(file)))
        for file in dist.files or []
        if ".." not in file.parts and file.suffix != ".pyc"
    }


def repack(name: str, folder: Path) -> Path:
    """Write the wheel of an installed distribution."""
    dist = distribution(name)
    # py2-none-any and py3-none-any: py2.py3-none-any
    tags = re.findall(r"(?m)^Tag: (\S+)-(\S+)-(\S+)$", dist.read_text("WHEEL") or "")
    tag = "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True))
    files = {n: p.read_bytes() for n, p in installed_files(dist).items() if p.is_file()}
    stem = f"{re.sub(r'[-_.]+', '_', dist.metadata['Name'])}-{dist.version}"
    entry_points = {e.name for e in dist.entry_points}
    for file in dist.files or []:
        # ../../../bin/deepspeed: a script that no entry point makes
        if ".." in file.parts and "bin" in file.parts and file.name not in entry_points:
            data = Path(str(dist.locate_file(file))).read_bytes()
            files[f"{stem}.data/scripts/{file.name}"] = re.sub(rb"\A#!.*", b"#!python", data)
    info = next(str(PurePosixPath(n).parent) for n in files if n.endswith(".dist-info/METADATA"))
    # the installer's own notes
    for note in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        files.pop(f"{info}/{note}", None)
    return write_wheel(folder, f"{stem}-{tag}.whl", files, info=info)


def plain_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: tuple[str, ...] = (),
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A small wheel made up for a test: a module of its name, and `files`."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {r}\n" for r in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    content = {
        f"{module}.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **(files or {}),
    }
    return write_wheel(folder, f"{module}-{version}-py3-none-any.whl", content, info=info)


def write_wheel(folder: Path, name: str, files: Mapping[str, bytes], *, info: str) -> Path:
    """Zip `files` with a RECORD; the same files give the same bytes."""
    record = io.StringIO()
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        for member, data in sorted(files.items()):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.write(f'"{member}",sha256={digest},{len(data)}\n')
            wheel.writestr(_member(member), data)
        wheel.writestr(_member(f"{info}/RECORD"), f"{record.getvalue()}{info}/RECORD,,\n")
    return path


def versions_of(names: list[str]) -> str:
    """One line for a cache key."""
    return " ".join(f"{n}=={importlib.metadata.version(n)}" for n in names)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, FIXED_TIME)
    # scripts must stay executable, and no one asks the rest
    member.external_attr = 0o100755 << 16
    return member
