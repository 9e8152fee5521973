"""What a user's own Python file defines, read and never run; for converters and classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clusterlm.spec.wording import did_you_mean, shown


def definition_problem(path: str, name: str, kind: str) -> str | None:
    """Why the file does not define `name`; None when it does, or imports it.

    Args:
        path: absolute.
        name: of a function or class.
        kind: what it is, for the message.
    """
    import ast  # few jobs have such a file

    if not os.path.isfile(path):
        return f"there is no file {shown(path)}"
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{os.path.basename(path)}, line {line}" if line else os.path.basename(path)
        return f"{shown(place)} cannot be read as Python"
    names = _defined(tree)
    if name in names:
        return None
    file = shown(os.path.basename(path))
    return f"{file} has no {kind} {shown(name)}; {did_you_mean(name, names)}"


def _defined(tree: Any) -> list[str]:
    """Names that a module defines or imports at its top level, also within `if` and `try`."""
    import ast

    names: dict[str, None] = {}
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = None
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = None
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= dict.fromkeys(t.id for t in targets if isinstance(t, ast.Name))
        else:
            for part in ("body", "orelse", "finalbody", "handlers"):
                waiting += getattr(node, part, [])
    return list(names)


def is_installed(package: str) -> bool:
    """Whether there is a package of that name; nothing of it is imported."""
    from importlib.util import find_spec

    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False
