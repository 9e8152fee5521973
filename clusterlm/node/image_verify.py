"""The last step in an image: torch is still the base's, clusterlm starts; writes image.json."""

from __future__ import annotations

import ast
import base64
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clusterlm.node.image_build import (
    BASE,
    ENVIRONMENT,
    EXIT_REFUSED,
    EXIT_REPLACED,
    NO_BYTECODE,
    PYTHON,
    RECORD,
    ROOT,
    apt_versions,
    canonical,
    code_digest,
    code_files,
    distributions,
    files_below,
    hashes,
    name_of,
    refuse,
    secret_files,
)
from clusterlm.node.redact import Redactor

# of the build and not of the image; LC_CTYPE is Python's own doing
_NOT_ENV = {
    "HOME",
    "LC_CTYPE",
    "HOSTNAME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "TERM",
    "USER",
    "LOGNAME",
    "_",
}
# what trains; torch, peft and deepspeed may look for a GPU when they start, and a build has none
_STARTED = ("datasets", "transformers")
_PROXY = re.compile(r"(?i)(https?|ftp|no|all)_proxy")
# a shorter value is a word that stands anywhere
_SHORTEST_SECRET = 8


def verify_image(recipe: str, version: str, own_env: Iterable[str]) -> None:
    """Refuse an image whose torch is no longer the base's; else write what the image is."""
    base = json.loads(BASE.read_text())
    found = distributions()
    _refuse_other_versions(base, found)
    _refuse_other_files(base)
    _refuse_other_apt(base)
    package = _clusterlm_package(version)
    _refuse_guests(package)
    _refuse_deaf_stack(found)
    PYTHON.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    PYTHON.chmod(0o755)
    ENVIRONMENT.write_text(_environment_text(set(own_env)))
    _refuse_secrets()
    record = {
        "recipe": recipe,
        "clusterlm": version,
        "code_digest": code_digest(package),
        "python": sys.executable,
        "python_version": platform.python_version(),
        "torch": found["torch"],
        "torch_file": _torch_file(),
        "cuda": _cuda_version(),
        "nccl": _nccl_version(base),
        "guarded": base["guarded"],
        "arch": platform.machine(),
        "built": time.time(),
    }
    RECORD.write_text(json.dumps(record) + "\n")
    print(f"whole: torch {found['torch']} of the base, clusterlm {version}", flush=True)


def _refuse_other_versions(base: dict[str, Any], found: dict[str, str]) -> None:
    for name, had in base["guarded"].items():
        has = found.get(name)
        if has == had:
            continue
        new = [n for n, v in found.items() if base["distributions"].get(n) != v and n != name]
        wants = [(n, w) for n in new for w in _requirements(n) if name_of(w) == name]
        refuse(
            EXIT_REPLACED,
            f"{name} {had} of the base was "
            + (f"replaced by {name} {has}" if has else "removed")
            + (f", by {wants[0][0]}" if wants else ""),
            *(f"  {n} {found[n]} wants {w}" for n, w in wants),
            f"  the base {base['name']} has {name} {had}",
            "  choose a version of that package that goes with the base, or leave it out",
        )


def _refuse_other_files(base: dict[str, Any]) -> None:
    has = hashes(base["files"])
    changed = sorted(f for f, digest in base["files"].items() if has.get(f) != digest)
    added = {top: files_below(top) - base["files"].keys() for top in base["tops"]}
    changed += sorted(set().union(*added.values()))
    if not changed:
        return
    owners = _owners(changed)
    whose = {name for name in owners if name in base["guarded"]}
    # a package of the base may share a file with a guarded one
    new = {n: v for n, v in owners.items() if n not in whose}
    new = {n: v for n, v in new.items() if base["distributions"].get(n) != v} or new
    whose |= {top for top, files in added.items() if files}
    what = ", ".join(sorted(whose)) or "torch"
    refuse(
        EXIT_REPLACED,
        f"{_told(new)} wrote into the {what} of the base",
        *_first(changed),
        f"  the base {base['name']} has torch {base['guarded']['torch']}",
        f"  leave that package out, or ask its authors for a version that stays out of {what}",
    )


def _refuse_other_apt(base: dict[str, Any]) -> None:
    has = apt_versions()
    for name, had in base["apt"].items():
        if has.get(name) != had:
            refuse(
                EXIT_REPLACED,
                f"apt put {name} {has.get(name, '(nothing)')} in place of the base's {had}",
                "  torch was built with that; leave out the entry of image.apt that brings another",
            )


def _clusterlm_package(version: str) -> Path:
    """Folder of the installed clusterlm, after it was started once."""
    # in a process of its own: in this one, `clusterlm` is the folder of the steps
    code = "import clusterlm.cli as c; print(c.__file__); print(clusterlm.__version__)"
    argv = [sys.executable, "-c", f"import clusterlm; {code}"]
    done = _start(argv)
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 2 or lines[1] != version:
        errors = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        refuse(
            EXIT_REFUSED,
            f"clusterlm {version} does not start in the image",
            f"  {errors[-1]}",
            "  an entry of image.pip or image.env disturbs it: leave it out",
        )
    return Path(lines[0]).parents[1]


def _start(argv: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **NO_BYTECODE}
    return subprocess.run(argv, env=env, capture_output=True, text=True, cwd="/", check=False)


def _refuse_guests(package: Path) -> None:
    """Only clusterlm's own files are in its folder: each run compares their digest."""
    dist = importlib.metadata.distribution("clusterlm")
    own = {os.path.realpath(str(dist.locate_file(f))): f.hash for f in dist.files or []}
    guests = []
    for path in code_files(package).values():
        stated = own.get(os.path.realpath(path))
        # "sha256=" and unpadded base64
        has = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=")
        if stated is None or stated.value != has.decode():
            guests.append(str(path))
    if guests:
        owners = {n: v for n, v in _owners(guests).items() if n != "clusterlm"}
        refuse(
            EXIT_REFUSED,
            f"{_told(owners)} wrote into clusterlm's own package",
            *_first(guests),
            "  no run would start in that image: leave that package out of image.pip and"
            " image.requirements, or choose a base without it",
        )


def _refuse_deaf_stack(found: dict[str, str]) -> None:
    """What pip has put together must start, and transformers must want the base's torch.

    pip sees neither: pyarrow 26 needs numpy 2 when it is imported, and a transformers that finds
    torch too old goes on without it.
    """
    for name in _STARTED:
        code = f"import {name} as m; print(getattr(m, 'is_torch_available', lambda: True)())"
        argv = [sys.executable, "-W", "ignore", "-c", code]
        done = _start(argv)
        version = found.get(name, "")
        if done.returncode:
            refuse(
                EXIT_REFUSED,
                f"{name} {version} does not start in the image",
                f"  {(done.stderr.strip().splitlines() or ['no output'])[-1]}",
                f"  an older one may go with this base: image.pip: [{name}<{version}]",
            )
        if done.stdout.split()[-1:] == ["False"]:
            refuse(
                EXIT_REFUSED,
                f"{name} {version} finds torch {found['torch']} of the base too old",
                f"  take an older one, image.pip: [{name}<{version}], or a newer image.base",
            )


def _environment_text(own: set[str]) -> str:
    """The ENV of the image; proxies and secrets of the build are not part of it."""
    secrets = {path.name for path in secret_files()}
    rows = []
    for name, value in sorted(os.environ.items()):
        of_build = name in _NOT_ENV or _PROXY.fullmatch(name) is not None or name in secrets
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and (name in own or not of_build):
            rows.append(f"export {name}={shlex.quote(value)}")
    return "\n".join(rows) + "\n"


def _refuse_secrets() -> None:
    """No build secret may stay in what pip and this program leave behind."""
    left = [Path("/etc/pip.conf"), Path.home() / ".pip", Path.home() / ".config/pip", ROOT]
    left += [Path(p) for p in sys.path if p.endswith("-packages")]
    for secret in secret_files():
        value = secret.read_text(errors="replace").strip()
        hide = Redactor([value], shortest=_SHORTEST_SECRET)
        if not hide:
            continue
        for path in _small_texts(left):
            if hide.places(path.read_bytes()):
                refuse(
                    EXIT_REFUSED,
                    f"the value of the build secret {secret.name} is in {path}",
                    "  take it out of image.env, image.pip and image.requirements",
                )


def _small_texts(roots: Iterable[Path]) -> Iterable[Path]:
    """Configuration and metadata: where pip notes what it installed from where."""
    for root in roots:
        if root.is_file():
            yield root
        elif root == ROOT or "pip" in root.name:
            yield from (p for p in root.rglob("*") if p.is_file())
        else:
            yield from root.glob("*.dist-info/direct_url.json")


def _requirements(name: str) -> list[str]:
    wanted = importlib.metadata.distribution(name).requires or []
    return [w for w in wanted if "extra ==" not in w]


def _owners(files: list[str]) -> dict[str, str]:
    """Name and version of the distributions whose RECORD lists one of these files."""
    wanted = {os.path.realpath(f) for f in files}
    leaves = {os.path.basename(f) for f in files}
    found = {}
    for dist in importlib.metadata.distributions():
        listed = (f for f in dist.files or [] if f.name in leaves)
        if any(os.path.realpath(str(dist.locate_file(f))) in wanted for f in listed):
            found[canonical(dist.metadata["Name"] or "")] = dist.version
    return found


def _told(owners: dict[str, str]) -> str:
    named = ", ".join(f"{name} {version}" for name, version in sorted(owners.items()))
    return named or "a package that lists no files"


def _first(files: list[str]) -> list[str]:
    rows = [f"  {file}" for file in files[:5]]
    return rows + ([f"  and {len(files) - 5} more"] if len(files) > 5 else [])


def _torch_file() -> str | None:
    """Where `import torch` finds it, here and in a run."""
    spec = importlib.util.find_spec("torch")
    return spec.origin if spec else None


def _cuda_version() -> str | None:
    """What torch says in its version.py; importing torch takes seconds and may need a GPU."""
    torch = _torch_file()
    file = Path(torch).with_name("version.py") if torch else None
    if file is None or not file.is_file():
        return None
    # cuda: Optional[str] = '12.6'
    for node in ast.parse(file.read_text()).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if "cuda" in {getattr(target, "id", "") for target in targets}:
            value = getattr(node.value, "value", None)
            return str(value) if value else None
    return None


def _nccl_version(base: dict[str, Any]) -> str | None:
    """Asked of the library itself, else of the package that brought it."""
    try:
        number = ctypes.c_int()
        ctypes.CDLL("libnccl.so.2").ncclGetVersion(ctypes.byref(number))
        # 22203 is 2.22.3
        return f"{number.value // 10000}.{number.value // 100 % 100}.{number.value % 100}"
    except (OSError, AttributeError):
        packages = {**base["apt"], **base["distributions"]}
        versions = [v for n, v in packages.items() if re.fullmatch(r"libnccl2|nvidia-nccl-.+", n)]
        return versions[0].split("-")[0] if versions else None
