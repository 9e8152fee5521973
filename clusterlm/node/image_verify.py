"""The last step in an image: torch is still the base's, clusterlm starts; writes image.json."""

from __future__ import annotations

import ast
import ctypes
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
    PYTHON,
    RECORD,
    ROOT,
    apt_versions,
    canonical,
    code_digest,
    distributions,
    hashes,
    refuse,
    secret_files,
    torch_files,
)

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
        wants = [(n, w) for n in new for w in _requirements(n) if canonical(_name(w)) == name]
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
    has = hashes(torch_files())
    changed = sorted(f for f, digest in base["files"].items() if has.get(f) != digest)
    changed += sorted(has.keys() - base["files"].keys())
    if not changed:
        return
    culprits = _owners(changed)
    who = ", ".join(sorted(culprits)) if culprits else "a package that lists no files"
    rows = changed[:5] + ([f"and {len(changed) - 5} more"] if len(changed) > 5 else [])
    refuse(
        EXIT_REPLACED,
        f"{who} wrote into the torch of the base",
        *(f"  {row}" for row in rows),
        f"  the base {base['name']} has torch {base['guarded']['torch']}",
        "  leave that package out, or ask its authors for a version that stays out of torch",
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
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
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


def _refuse_deaf_stack(found: dict[str, str]) -> None:
    """What pip has put together must start, and transformers must want the base's torch.

    pip sees neither: pyarrow 26 needs numpy 2 when it is imported, and a transformers that finds
    torch too old goes on without it.
    """
    for name in _STARTED:
        code = f"import {name} as m; print(getattr(m, 'is_torch_available', lambda: True)())"
        argv = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
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
        value = secret.read_bytes().strip()
        if len(value) < _SHORTEST_SECRET:
            continue
        for path in _small_texts(left):
            if value in path.read_bytes():
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


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def _owners(files: list[str]) -> set[str]:
    """Distributions other than torch whose RECORD lists one of these files."""
    wanted = {os.path.realpath(f) for f in files}
    found = set()
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"] or ""
        if canonical(name) != "torch" and any(
            os.path.realpath(str(dist.locate_file(f))) in wanted for f in dist.files or []
        ):
            found.add(f"{name} {dist.version}")
    return found


def _cuda_version() -> str | None:
    """What torch says in its version.py; importing torch takes seconds and may need a GPU."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
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
