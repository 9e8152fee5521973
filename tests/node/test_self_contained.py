"""The room runs in images that we did not make: standard library, Python 3.10, quick to start."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import clusterlm.node

FILES = sorted(Path(clusterlm.node.__path__[0]).glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_python_3_10_and_imports_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 10))
    for module in imported_modules(tree):
        top = module.partition(".")[0]
        assert top in sys.stdlib_module_names or module.startswith("clusterlm.node"), module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_that_python_3_10_has_not_are_not_used(path: Path) -> None:
    new = {"tomllib", "file_digest", "StrEnum", "UTC", "TaskGroup", "Self", "assert_never", "chdir"}
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(parse(path))}
    assert not new & (names | set(imported_names(parse(path))))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_modules(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


def imported_names(tree: ast.Module) -> list[str]:
    froms = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return [alias.name for node in froms for alias in node.names]
