"""What clusterlm leaves in an image that it builds, and how an image is looked at from inside.

`docker build` runs the steps `base`, `apt`, `pip` and `verify` (`image_main.py`) before and after
clusterlm is installed, so these files are copied beside the Dockerfile and stand alone. What they
leave in /opt/clusterlm is read by the check at the start of a job (`image_check.py`).

A refusal is a block of lines that begin with MARKER, and exit code EXIT_REPLACED when a package
wants to put, or has put, its own torch (or NCCL, or flash-attn) in place of the base's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

ROOT = Path("/opt/clusterlm")
"""Everything of ours in an image."""
PYTHON = ROOT / "python"
"""Starts the image's own Python: a path that is known before the image is built."""
ENVIRONMENT = ROOT / "environment"
"""`export NAME='value'` lines: the image's ENV, which some runtimes lose."""
RECORD = ROOT / "image.json"
"""Written last: what the image is."""
BASE = ROOT / "base.json"
CONSTRAINTS = ROOT / "constraints.txt"
"""What must stay: the guarded packages, and the generation of numpy that torch was built with."""
BASE_CONSTRAINTS = ROOT / "base-constraints.txt"
"""What the base asks pip to keep; a pin that nothing can be installed with gives way."""
SECRETS = Path("/run/secrets")
SHORTEST = 4
"""A shorter secret of a build is not looked for in its output: it stands anywhere by chance."""

TOPS = ("torch", "functorch", "torchgen", "triton")
"""Packages that nothing may add a file to; other guarded ones share their folder (`nvidia`)."""
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""For all that a step starts: a .pyc below the guarded packages is then somebody's doing."""

MARKER = "clusterlm image: "
EXIT_REPLACED = 65
EXIT_REFUSED = 66

# What the base was built around. nvidia-ml-py only reads counters: a newer one harms nothing.
_GUARDED = re.compile(
    r"torch|torchvision|torchaudio|torch-tensorrt|triton|pytorch-triton.*|flash-attn.*"
    r"|transformer-engine.*|apex|xformers|nvidia-(?!ml-py$|pyindex$).+"
)
_GUARDED_APT = re.compile(r"cuda-.+|lib(cudnn|nccl|cublas)\d*.*")


def canonical(name: str) -> str:
    """A distribution's name as pip compares it: `Flash_Attn` is `flash-attn`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    """The canonical name of what is required."""
    return canonical(re.split(r"[^A-Za-z0-9._-]", requirement.strip(), maxsplit=1)[0])


def allows(wish: str, version: str) -> bool:
    """Whether a requirement is content with this version; where nothing can tell, it is."""
    bounds = re.sub(r"^[\w.-]+\s*(\[[^]]*\])?", "", wish.partition(";")[0]).strip(" ()")
    if bounds.startswith("@"):
        # an address: not the base's build, whatever its version
        return False
    for package in ("pip._vendor.packaging", "packaging"):
        try:
            specifiers = importlib.import_module(f"{package}.specifiers")
            return bool(specifiers.SpecifierSet(bounds).contains(version, prereleases=True))
        except (ImportError, ValueError):
            # a pip that was taken apart; a version that is not of PEP 440
            continue
    pinned = re.search(r"(?<![=!<>~])==\s*([^\s,*=]+)(?=\s*(,|$))", bounds)
    return pinned is None or pinned.group(1) in (version, version.partition("+")[0])


def is_guarded(name: str) -> bool:
    """Whether the base's build of this distribution must stay."""
    return _GUARDED.fullmatch(canonical(name)) is not None


def code_digest(package: Path) -> str:
    """Digest of a package's files, names and contents; what Python compiles is left out."""
    whole = hashlib.sha256()
    for name, path in code_files(package).items():
        whole.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def code_files(package: Path) -> dict[str, Path]:
    """A package's files by their name in it, sorted, without what Python compiles.

    While Python compiles, a `__pycache__` holds names such as `x.cpython-311.pyc.1234` as well.
    The recipes that an installed package brings are not its code.
    """
    found = {
        path.relative_to(package).as_posix(): path
        for path in package.rglob("*")
        if path.suffix != ".pyc"
        and "__pycache__" not in path.relative_to(package).parts
        and path.relative_to(package).parts[0] != "recipes"
        and path.is_file()
    }
    return {name: found[name] for name in sorted(found)}


def distributions() -> dict[str, str]:
    """Version by canonical name; of two on sys.path, the one that is imported."""
    return {name: dist.version for name, dist in _distributions().items()}


def _distributions() -> dict[str, importlib.metadata.Distribution]:
    found: dict[str, importlib.metadata.Distribution] = {}
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if name:
            found.setdefault(canonical(name), dist)
    return found


def guarded_files() -> list[str]:
    """Every file of the guarded packages: of their RECORD, and of TOPS whatever installed it."""
    found = {file for top in TOPS for file in files_below(top)}
    for name, dist in _distributions().items():
        if is_guarded(name):
            found.update(_files_of(name, dist))
    return sorted(found)


def files_below(module: str) -> set[str]:
    """The files of an importable package, what is compiled included; empty where there is none."""
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:
        # imported already, and without a spec
        return set()
    if spec is None:
        return set()
    if spec.submodule_search_locations is None:
        return {spec.origin} if spec.origin and os.path.isfile(spec.origin) else set()
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    return {str(p) for folder in folders for p in folder.rglob("*") if p.is_file()}


def _files_of(name: str, dist: importlib.metadata.Distribution) -> set[str]:
    # without a RECORD `dist.files` may be the list of the sources
    if dist.read_text("RECORD"):
        listed = (os.path.normpath(str(dist.locate_file(f))) for f in dist.files or [])
        return {file for file in listed if os.path.isfile(file)}
    modules = (dist.read_text("top_level.txt") or name.replace("-", "_")).split()
    return {f for module in modules if module.isidentifier() for f in files_below(module)}


def hashes(files: Iterable[str]) -> dict[str, str]:
    """sha256 by path, of those that are there; a gigabyte takes a second on two cores."""
    there = [file for file in files if os.path.isfile(file)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(there, pool.map(_sha256, there), strict=True))


def _sha256(path: str) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


def apt_versions() -> dict[str, str]:
    """Versions of the Debian packages that torch was built with."""
    argv = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return {}
    rows = (line.split(" ") for line in done.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2 and _GUARDED_APT.fullmatch(row[0])}


def secret_files() -> list[Path]:
    """The build secrets of this step, one file each, named as the variable."""
    return [p for p in SECRETS.iterdir() if p.is_file()] if SECRETS.is_dir() else []


def secret_values() -> list[str]:
    """What they hold."""
    return [p.read_text(errors="replace").rstrip("\n") for p in secret_files()]


def secret_env() -> dict[str, str]:
    """The environment of what a step starts, with the build secrets in it."""
    secrets = {p.name: p.read_text(errors="replace").rstrip("\n") for p in secret_files()}
    return {**os.environ, **NO_BYTECODE, **secrets}


def refuse(code: int, *lines: str) -> NoReturn:
    """Say why on lines that the one who builds looks for, and end."""
    for line in lines:
        print(MARKER + line, file=sys.stderr, flush=True)
    sys.exit(code)
