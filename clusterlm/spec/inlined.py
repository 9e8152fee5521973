"""What a job names in a small file and carries itself from then on.

model.adapter.rank_pattern and alpha_pattern may be the path of a JSON. It is read when the job is
loaded, so that the run directory stands alone and says what was trained, whatever becomes of the
file. Their paths are absolute here; `local_paths.py` has made them so.
"""

from __future__ import annotations

import os
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.wording import shown

LARGEST_JSON = 2**20


def inline_patterns(values: dict[str, Any]) -> list[Problem]:
    """Put the content of the files in their place; the schema looks at it as if written there."""
    model = values.get("model")
    adapter = model.get("adapter") if isinstance(model, dict) else None
    if not isinstance(adapter, dict):
        return []
    problems = []
    for key in ("rank_pattern", "alpha_pattern"):
        path = adapter.get(key)
        # relative: a placeholder was wrong, and that is told already
        if isinstance(path, str) and os.path.isabs(path):
            content, problem = _read(path)
            adapter[key] = content
            if problem:
                problems.append(Problem(f"model.adapter.{key}", problem))
    return problems


def _read(path: str) -> tuple[dict[str, Any], str | None]:
    import json  # few jobs have such a file

    try:
        # a device or a pipe would be read for ever
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        if os.path.getsize(path) > LARGEST_JSON:
            return {}, f"{shown(path)} is larger than 1 MiB; this is no list of layers"
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError:
        return (
            {},
            f"there is no file {shown(path)}; write {{q_proj: 8}}, or the path of such a JSON",
        )
    except (ValueError, RecursionError) as error:
        return {}, f"{shown(path)} is no JSON: {error}"
    if not isinstance(content, dict):
        return {}, f'{shown(path)} is no JSON object such as {{"q_proj": 8}}'
    return content, None
