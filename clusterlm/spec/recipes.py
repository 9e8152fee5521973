"""The recipes of `jobs/`: where they are, what each is, and which samples it names.

In a checkout they lie in `jobs/` beside the package; a wheel brings them within the package, as
`clusterlm/recipes/`. `recipes_folder` alone knows that.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.spec.document import read_document
from clusterlm.spec.wording import did_you_mean, times

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Recipe:
    """One commented YAML.

    Attributes:
        name: what `cp` is told.
        path: the file.
        about: what it is, the first sentence of its first comment.
        needs: where it runs, and what it takes.
    """

    name: str
    path: Path
    about: str
    needs: str


def recipes_folder() -> Path:
    """Where the recipes lie in this installation.

    Raises:
        ClusterLMError: they were not installed.
    """
    for folder in (PACKAGE / "recipes", PACKAGE.parent / "jobs"):
        if (folder / "quickstart.yaml").is_file():
            return folder
    raise ClusterLMError("this installation of clusterlm has no recipes; see jobs/ of its sources")


def list_recipes() -> list[Recipe]:
    """Every recipe, by name."""
    return [_recipe(path) for path in sorted(recipes_folder().glob("*.yaml"))]


def find_recipe(name: str) -> Recipe:
    """One recipe, also by the name of its file.

    Raises:
        ClusterLMError: there is none of that name.
    """
    wanted = name.removesuffix(".yaml")
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if wanted not in recipes:
        hint = did_you_mean(wanted, recipes)
        raise ClusterLMError(f'there is no recipe "{name}"; {hint}  (clusterlm recipes ls)')
    return recipes[wanted]


def files_of(recipe: Recipe) -> list[Path]:
    """Files beside the recipe that it names: samples, a tokenizer, converters."""
    folder = recipe.path.parent
    found: dict[Path, None] = {}
    for text in _texts(read_document(recipe.path.read_text("utf-8")).values):
        # samples/own_converter.py:ticket_to_messages
        for name in (text, text.rpartition(":")[0]):
            for path in _named(folder, name):
                found[path] = None
    return sorted(found)


def _recipe(path: Path) -> Recipe:
    text = path.read_text("utf-8")
    comment = " ".join(re.findall(r"^# ?(.*)", text.partition("\nname:")[0], re.MULTILINE))
    about = re.split(r"(?<=\w)[.:] |(?<=\w)\.$", " ".join(comment.split()), maxsplit=1)[0]
    return Recipe(path.stem, path, about, _needs(read_document(text).values))


def _needs(values: dict[str, Any]) -> str:
    resources = values.get("resources") or {}
    gpus, nodes = resources.get("gpus_per_node", 0), resources.get("nodes", 1)
    parts = ["Slurm" if values.get("cluster") == "slurm" else "this machine"]
    if nodes > 1:
        parts.append(times(nodes, "node"))
    parts.append(f"{times(gpus, 'GPU')} each" if gpus and nodes > 1 else times(gpus, "GPU"))
    if not gpus:
        parts[-1] = "CPU"
    if values.get("image"):
        parts.append("a container")
    hub = [text for text in _texts(values, "hub")]
    return ", ".join([*parts, *(f"the hub ({one})" for one in hub[:1])])


def _texts(value: Any, only: str | None = None) -> Iterator[str]:
    """Every text in a YAML, or those of one key."""
    if isinstance(value, dict):
        for key, one in value.items():
            if only is None or key == only or isinstance(one, dict | list):
                yield from _texts(one, None if key == only else only)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, only)
    elif isinstance(value, str) and only is None:
        yield value


def _named(folder: Path, name: str) -> Iterator[Path]:
    """Files that a text stands for, if it is a path within the folder: a file, a folder, a glob."""
    if "/" not in name or len(name) > 200 or "\n" in name or os.path.isabs(name):
        return
    for match in glob.glob(str(folder / name), recursive=True):
        path = Path(os.path.normpath(match))
        if folder not in path.parents:
            continue
        inside = path.rglob("*") if path.is_dir() else [path]
        yield from (p for p in inside if p.is_file() and "__pycache__" not in p.parts)
