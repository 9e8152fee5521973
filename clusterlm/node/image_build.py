"""What clusterlm leaves in an image that it builds, and how an image is looked at from inside.

`docker build` runs the steps `base`, `apt`, `pip` and `verify` (`image_main.py`) before and after
clusterlm is installed, so these files are copied beside the Dockerfile and stand alone. What they
leave in /opt/clusterlm is read by the check at the start of a job (`image_check.py`).

A refusal is a block of lines that begin with MARKER, and exit code EXIT_REPLACED when a package
wants to put, or has put, its own torch (or NCCL, or flash-attn) in place of the base's.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
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


def is_guarded(name: str) -> bool:
    """Whether the base's build of this distribution must stay."""
    return _GUARDED.fullmatch(canonical(name)) is not None


def code_digest(package: Path) -> str:
    """Digest of a package's files, names and contents; what Python compiles is left out."""
    whole = hashlib.sha256()
    for path in sorted(package.rglob("*"), key=lambda p: p.relative_to(package).as_posix()):
        if path.is_file() and path.suffix != ".pyc":
            name = path.relative_to(package).as_posix().encode()
            whole.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def distributions() -> dict[str, str]:
    """Version by canonical name; of two on sys.path, the one that is imported."""
    found: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if name:
            found.setdefault(canonical(name), dist.version)
    return found


def torch_files() -> list[Path]:
    """Every file of the package `torch`, whatever installed it."""
    spec = importlib.util.find_spec("torch")
    roots = (spec.submodule_search_locations or []) if spec else []
    return [p for r in roots for p in Path(r).rglob("*") if p.is_file() and p.suffix != ".pyc"]


def hashes(files: list[Path]) -> dict[str, str]:
    """sha256 by path."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(map(str, files), pool.map(_sha256, files), strict=True))


def _sha256(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as handle:
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


def secret_env() -> dict[str, str]:
    """The environment of a step with the build secrets in it."""
    secrets = {p.name: p.read_text(errors="replace").rstrip("\n") for p in secret_files()}
    return {**os.environ, **secrets}


def refuse(code: int, *lines: str) -> NoReturn:
    """Say why on lines that the one who builds looks for, and end."""
    for line in lines:
        print(MARKER + line, file=sys.stderr, flush=True)
    sys.exit(code)
