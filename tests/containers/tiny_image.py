"""The smallest image that a run can start in: the package, and a stub of torchrun.

Real images hold gigabytes of torch; what is tested here (mounts, environment, users, signals, ends)
needs the agent, which is standard library, and something that starts the ranks.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import clusterlm
from clusterlm.node.image_build import code_digest

PACKAGE = Path(clusterlm.__file__).parent
STUB = Path(__file__).parent / "torchrun_stub.py"
RECIPE = "5eed" * 16
PYTHON = "/usr/bin/python3"


def lay_tiny_image(root: Path, **changes: Any) -> None:
    """Fill `root`/opt/clusterlm; `changes` go into image.json."""
    own = root / "opt/clusterlm"
    site = own / "site"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, site / "clusterlm", ignore=ignored)
    for folder in ("torch", "torch/distributed"):
        (site / folder).mkdir()
        (site / folder / "__init__.py").touch()
    shutil.copy(STUB, site / "torch/distributed/run.py")
    (own / "python").write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    (own / "python").chmod(0o755)
    lines = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/opt/clusterlm/site",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OF_THE_IMAGE": "it's here",
        "NCCL_DEBUG": "IMAGE",
    }
    quoted = [
        f"export {k}='{v.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'"
        for k, v in lines.items()
    ]
    (own / "environment").write_text("\n".join(quoted) + "\n")
    record = {
        "recipe": RECIPE,
        "clusterlm": clusterlm.__version__,
        "code_digest": code_digest(PACKAGE),
        "python": PYTHON,
        "torch": None,
        "built": time.time(),
        **changes,
    }
    (own / "image.json").write_text(json.dumps(record))
