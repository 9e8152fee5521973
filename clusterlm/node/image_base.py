"""The first steps in an image: note what the base brings, add Debian packages."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from clusterlm.node.image_build import (
    BASE,
    BASE_CONSTRAINTS,
    CONSTRAINTS,
    EXIT_REFUSED,
    ROOT,
    TOPS,
    apt_versions,
    distributions,
    files_below,
    guarded_files,
    hashes,
    is_guarded,
    refuse,
    secret_env,
)

# what pip takes in a constraint; other versions are compared by `verify` alone
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-zA-Z0-9.]+)?")


def record_base(name: str) -> None:
    """Write base.json and constraints.txt."""
    found = distributions()
    if "torch" not in found or importlib.util.find_spec("torch") is None:
        refuse(
            EXIT_REFUSED,
            f"the base {name} has no torch",
            f"  looked with {sys.executable}, Python {platform.python_version()}",
            "  choose an NGC PyTorch image for image.base, or one whose python3 imports torch",
        )
    guarded = {n: v for n, v in found.items() if is_guarded(n)}
    ROOT.mkdir(parents=True, exist_ok=True)
    lines = [f"{n}=={v}" for n, v in sorted(guarded.items()) if _VERSION.fullmatch(v)]
    # a torch built with numpy 1 cannot hand tensors to numpy 2
    numpy = ["numpy<2"] if found.get("numpy", "").startswith("1.") else []
    CONSTRAINTS.write_text("\n".join(lines + numpy) + "\n")
    BASE_CONSTRAINTS.write_text(_own_constraints())
    base = {
        "name": name,
        "python": platform.python_version(),
        "guarded": guarded,
        "distributions": found,
        "apt": apt_versions(),
        "tops": [top for top in TOPS if files_below(top)],
        "files": hashes(guarded_files()),
    }
    BASE.write_text(json.dumps(base))
    print(f"base: Python {base['python']}, " + ", ".join(lines), flush=True)


def _own_constraints() -> str:
    """What the base's PIP_CONSTRAINT names: since 25.03 NVIDIA pins all that it installs."""
    files = os.environ.get("PIP_CONSTRAINT", "").split()
    return "".join(f"{Path(f).read_text()}\n" for f in files if Path(f).is_file())


def install_apt(packages: list[str]) -> None:
    """`apt-get install` without recommends; the package lists do not stay in the layer."""
    env = {**secret_env(), "DEBIAN_FRONTEND": "noninteractive"}
    steps = (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "--", *packages],
    )
    for folder in ("/var/cache/apt/archives/partial", "/var/lib/apt/lists/partial"):
        # small bases leave them out, and apt does not make them
        Path(folder).mkdir(parents=True, exist_ok=True)
    for argv in steps:
        done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            refuse(
                EXIT_REFUSED,
                f"apt-get could not install {' '.join(packages)} (exit {done.returncode})",
                "  a name that apt does not find: see the lines above, correct image.apt",
                "  no package index reached: build where one is, or leave image.apt out",
            )
    for path in [*Path("/var/lib/apt/lists").glob("*"), *Path("/var/cache/apt").glob("*.bin")]:
        if path.is_file():
            path.unlink()
    for archive in Path("/var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
