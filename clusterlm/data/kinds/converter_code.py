"""The code that a user's own converter is made of: its file, and its neighbours that are imported.

    conv.py            from pkg.sub import f     -> conv.py, every .py below pkg/
    pkg/sub.py         import words              -> words.py

Of a package everything counts, whatever of it is used: a submodule may be reached in many ways.
What lies elsewhere is installed and is not looked at. Names that are put together while the code
runs (`importlib.import_module(name)`) are not seen.
"""

from __future__ import annotations

import ast
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def code_files(first: Path, root: Path) -> list[Path]:
    """The files, sorted by their name below `root`.

    Args:
        first: the converter's.
        root: the folder from which its neighbours are imported.

    Raises:
        OSError: one cannot be read.
        SyntaxError, ValueError: `first` is no Python.
    """
    found: set[Path] = set()
    # a module of a package comes with the whole package
    top = first.relative_to(root).parts[0]
    waiting = [first, *(_python_below(root / top) if first.parent != root else ())]
    # beside what is installed lies all that is installed
    ends_here = root in _installed()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if ends_here and path != first:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            # a package may hold files that are no Python of this version; loading tells more
            if path == first:
                raise
            continue
        if not ends_here:
            waiting += _imported(tree, path, root)
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _imported(tree: ast.AST, path: Path, root: Path) -> Iterator[Path]:
    """The files of the neighbours that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files_of(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            folder = (
                root if not node.level else path.parents[min(node.level, len(path.parents)) - 1]
            )
            if folder.is_relative_to(root):
                for name in [node.module] if node.module else [a.name for a in node.names]:
                    yield from _files_of(folder, name)


def _files_of(folder: Path, name: str) -> Iterator[Path]:
    """The module of this name, or all of the package; of `a.b` all of `a`."""
    top = name.partition(".")[0]
    module = folder / f"{top}.py"
    if module.is_file():
        yield module
    yield from _python_below(folder / top)


def _python_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name.isidentifier()]
        yield from (Path(place) / name for name in names if name.endswith(".py"))


def _installed() -> set[Path]:
    return {Path(path) for path in sysconfig.get_paths().values()}
