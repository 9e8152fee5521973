"""A virtual environment of its own for the programs that are compared, under `.bench/venv`.

The libraries that the project itself uses have the versions of the environment that runs the
benchmark; rivals and fast tokenizers come on top.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from benchmarks.folder import BENCH

SHARED = (
    *("numpy", "orjson", "tokenizers", "transformers", "datasets", "pyarrow", "jinja2"),
    *("pydantic", "pyyaml", "psutil", "rich", "typer", "submitit", "xxhash"),
)
RIVALS = (
    *("datatrove==0.10.1", "gigatoken==0.10.0", "fastokens==0.3.5", "datasketch==2.0.0"),
    "splintr-rs==0.22.0",
)
# only a file of it is read
WITHOUT_DEPENDENCIES = ("openai-whisper",)


def own_python() -> Path:
    """The Python of the environment, which is made the first time."""
    python = BENCH / "venv/bin/python"
    ready = BENCH / "venv/.ready"
    wanted = "\n".join([*_pins(), *RIVALS, *WITHOUT_DEPENDENCIES])
    if ready.exists() and ready.read_text() == wanted:
        return python
    print("making .bench/venv with what is compared: a minute the first time", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", BENCH / "venv"], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *_pins(), *RIVALS], check=True)
    subprocess.run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
    ready.write_text(wanted)
    return python


def versions_of(python: Path) -> dict[str, str]:
    """Versions of what is compared, as installed."""
    names = [*SHARED[:6], *(rival.split("==")[0] for rival in RIVALS)]
    code = (
        "import importlib.metadata as m, sys;"
        "print(*(n + ' ' + m.version(n) for n in sys.argv[1:]), sep='\\n')"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    return dict(line.split() for line in done.stdout.splitlines())


def _pins() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in SHARED]
