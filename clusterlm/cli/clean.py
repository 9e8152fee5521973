"""clusters clean: what clusterlm keeps in its folder on a cluster and nobody needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clusterlm.cli.typed import AsJson, tell
from clusterlm.errors import ClusterLMError

if TYPE_CHECKING:
    from clusterlm.spec.profile import Profile

DEFAULT_AGE = "30d"


def clean(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")],
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Not used for so long; at least 1d.")
    ] = DEFAULT_AGE,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what lies in a cluster's folder and nobody needs, and remove it after a question.

    Software of other versions; code, data and records of submits that no run needs. What a run
    needs that can still be resumed stays, and so do runs, prepared data and images.
    """
    from clusterlm.cluster.remote.cleaning import bytes_of
    from clusterlm.spec.clusters import find_profile

    profile, age_s = find_profile(name), _seconds(older_than)
    answer = _clean(name, profile, age_s, remove=yes)
    if as_json:
        import json

        typer.echo(json.dumps(answer))
        return
    _print(name, answer)
    if yes or not answer.get("groups"):
        return
    if not sys.stdin.isatty():
        typer.echo(f"remove it: clusterlm clusters clean {name}{_age_words(older_than)} --yes")
        return
    from clusterlm.cluster.remote.snapshot import spoken_size

    if typer.confirm(f"remove {spoken_size(bytes_of(answer))}?", default=False):
        _print(name, _clean(name, profile, age_s, remove=True))


def _clean(name: str, profile: Profile, age_s: int, *, remove: bool) -> dict[str, Any]:
    if profile.host is None:
        from clusterlm.cluster.remote.cleaning import clean as clean_here

        return clean_here(profile, older_than_s=age_s, remove=remove)
    from clusterlm.cli.elsewhere import remote_of
    from clusterlm.cluster.remote.clean_elsewhere import clean_elsewhere

    tell(f"{name}: looking at what lies there")
    return clean_elsewhere(remote_of(name), age_s, remove=remove, tell=tell)


def _print(name: str, answer: dict[str, Any]) -> None:
    from clusterlm.cluster.remote.cleaning import bytes_of, rows_of
    from clusterlm.cluster.remote.snapshot import spoken_size

    where = f"{answer.get('folder')} on {name}"
    rows = rows_of(answer)
    if not answer["groups"]:
        typer.echo("\n".join([f"nothing to remove in {where}", *rows]))
        return
    verb = "removed from" if answer.get("removed") else "not needed in"
    typer.echo("\n".join([f"{verb} {where}:", *rows, f"{spoken_size(bytes_of(answer))} in all"]))


def _seconds(text: str) -> int:
    from clusterlm.spec.units import seconds_of

    try:
        return seconds_of(text)
    except ValueError as error:
        raise ClusterLMError(f"--older-than: {error}") from None


def _age_words(older_than: str) -> str:
    return "" if older_than == DEFAULT_AGE else f" --older-than {older_than}"
