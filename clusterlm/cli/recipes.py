"""recipes ls|cp: jobs to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli.typed import AsJson

if TYPE_CHECKING:
    from clusterlm.spec.recipes import Recipe

LONGEST = 80

recipes = typer.Typer(help="Jobs to begin with.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(recipes, name="recipes")


@recipes.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the recipes that come with clusterlm."""
    from clusterlm.spec.recipes import list_recipes

    found = list_recipes()
    if as_json:
        import json

        rows = [{"name": r.name, "about": r.about, "needs": r.needs} for r in found]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    width = max(len(recipe.name) for recipe in found)
    needs = max(len(recipe.needs) for recipe in found)
    typer.echo(f"{'NAME':<{width}}  {'NEEDS':<{needs}}  WHAT IT IS")
    for recipe in found:
        about = recipe.about if len(recipe.about) <= LONGEST else recipe.about[:LONGEST] + "..."
        typer.echo(f"{recipe.name:<{width}}  {recipe.needs:<{needs}}  {about}")
    typer.echo(f"\ncopy one: clusterlm recipes cp {found[0].name} my-job.yaml")


@recipes.command("cp")
def cp(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `recipes ls` has it.")],
    dest: Annotated[
        Path,
        typer.Argument(metavar="DEST", help="The YAML to write, or a folder for it."),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Copy a recipe, with the samples that it names."""
    from clusterlm.spec.recipes import find_recipe

    recipe = find_recipe(name)
    copies = _copies(recipe, dest)
    _refuse_overwriting(copies, force)
    import shutil

    for source, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    job = copies[recipe.path]
    samples = len(copies) - 1
    beside = f", and {samples} file{'s' if samples > 1 else ''} beside it" if samples else ""
    typer.echo(f"written: {job}{beside}")
    typer.echo(f"next: clusterlm submit {job} --watch")


def _copies(recipe: Recipe, dest: Path) -> dict[Path, Path]:
    """What is copied where; samples keep their place beside the YAML."""
    from clusterlm.spec.recipes import files_of

    is_file = dest.suffix in (".yaml", ".yml") and not dest.is_dir()
    job = dest if is_file else dest / recipe.path.name
    folder = recipe.path.parent
    beside = {path: job.parent / path.relative_to(folder) for path in files_of(recipe)}
    return {recipe.path: job, **beside}


def _refuse_overwriting(copies: dict[Path, Path], force: bool) -> None:
    from clusterlm.errors import ClusterLMError

    # a sample that is there already, word for word, is no loss
    taken = [
        target
        for source, target in copies.items()
        if target.exists() and (target.is_dir() or target.read_bytes() != source.read_bytes())
    ]
    if taken and (not force or any(target.is_dir() for target in taken)):
        others = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise ClusterLMError(f"{taken[0]} is there already{others}; --force overwrites")
