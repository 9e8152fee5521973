"""The floors of docs/architecture.md: who may import whom, what stays out of light commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "clusterlm"

# room -> rooms that it may import (its own is always allowed)
ALLOWED = {
    "errors": set(),
    "node": set(),
    "spec": {"errors", "node"},
    "paths": {"errors", "node"},
    "image_paths": {"paths"},
    "container": {"errors", "spec", "paths", "image_paths", "node"},
    "render": {"errors", "spec", "paths", "image_paths", "container", "node"},
    "data": {"errors", "spec", "paths", "node", "weights"},
    "supervise": {
        *("errors", "spec", "paths", "container", "render", "node"),
        *("data.whole", "weights.resized"),
    },
    "weights": {"errors", "spec", "paths", "node"},
    "plan": {"errors", "spec", "paths", "node"},
    "importing": {"errors", "spec", "node"},
    "train": {"errors", "spec", "paths", "data", "node", "plan", "weights"},
    "cluster": {
        *("errors", "spec", "paths", "image_paths", "container", "render", "supervise", "node"),
        *("data.fingerprint", "data.whole", "data.model_key", "weights.resized"),
    },
    "cli": {
        "errors",
        "spec",
        "paths",
        "image_paths",
        "container",
        "render",
        "supervise",
        "cluster",
        "data",
        "train",
        "weights",
        "plan",
        "importing",
        "node",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
HEAVY = ("torch", "transformers", "datasets", "deepspeed", "peft", "submitit", "paramiko", "numpy")


def _imports(file: Path) -> set[str]:
    """Modules of this package that a file imports, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {m.removeprefix("clusterlm.") for m in found if m.startswith("clusterlm.")}


def _room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.name))
def test_imports_go_down_only(file: Path) -> None:
    room = _room(file)
    for module in _imports(file):
        target = module.split(".")[0]
        if target in (room, "__version__"):
            continue
        exact = {a for a in ALLOWED[room] if "." in a and module.startswith(a)}
        assert exact or target in ALLOWED[room], f"{file} imports {module}: not a lower floor"


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {
        ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
        for file in PACKAGE.rglob("*.py")
        if file.name != "__init__.py"
    }
    # "spec.job.Job" is a name of the file spec.job
    graph = {
        name: {module for found in _imports(file) for module in _prefixes(found) if module in files}
        for name, file in files.items()
    }
    # raises CycleError, which names the circle
    list(TopologicalSorter(graph).static_order())


def _prefixes(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def test_every_room_is_on_the_plan() -> None:
    assert {_room(f) for f in PACKAGE.rglob("*.py")} == set(ALLOWED)


def test_the_node_room_needs_the_standard_library_only() -> None:
    for file in (PACKAGE / "node").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 10))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("clusterlm.node"), name


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.name))
def test_everything_parses_as_python_3_10(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 10))


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import sys, clusterlm.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(f.relative_to(ROOT)): n
        for f in PACKAGE.rglob("*.py")
        if (n := len(f.read_text().splitlines())) > 320
    }
    assert long == {}
