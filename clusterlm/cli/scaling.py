"""scaling: how much of a rank is left when there are more of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterlm.cli.typed import Cluster, JobFile, Overrides, load, refuse_bad_data, tell
from clusterlm.errors import ClusterLMError


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("scaling")(scaling)


def scaling(
    job: JobFile,
    overrides: Overrides = None,
    cluster: Cluster = None,
    nodes: Annotated[
        str | None,
        typer.Option(metavar="1,2,4", help="Nodes; default: 1, 2, 4, ... up to those of the job."),
    ] = None,
    gpus_per_node: Annotated[
        str | None,
        typer.Option(
            metavar="1,4,8", help="GPUs (on the CPU: processes) a node; default: the job's."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are measured.")] = 20,
    warmup: Annotated[int, typer.Option(min=1, help="Steps before them.")] = 5,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a picture, too.")] = None,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Refuse when the image is not there yet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Train a few steps at several sizes and compare tokens/s per rank.

    A rank is a GPU, or a process on the CPU. Each does the same work at each size (weak
    scaling). Nothing is saved. Exit code: 0 when every size came through, however badly it
    scales (the verdict says that), 1 when one did not.
    """
    from clusterlm.cluster.host import LocalHost
    from clusterlm.cluster.scaling import Wish, measure, setting_of, sizes_for
    from clusterlm.cluster.scaling_plot import plot
    from clusterlm.cluster.scaling_report import WEAK, table, to_json, verdict

    loaded = load(job, overrides, None, cluster)
    refuse_bad_data(loaded)
    sizes = sizes_for(
        loaded.job, _counts("--nodes", nodes), _counts("--gpus-per-node", gpus_per_node)
    )
    wish = Wish(sizes, steps, warmup)
    found = measure(loaded, wish, LocalHost(), may_build=not no_build, tell=tell)
    setting = setting_of(loaded.job)
    if svg is not None:
        svg.write_text(plot(loaded.job.name, found), encoding="utf-8")
    if as_json:
        import json

        typer.echo(json.dumps(to_json(found, setting)))
    else:
        typer.echo("\n".join([*table(found), "", WEAK, *verdict(found, setting)]))
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _counts(option: str, text: str | None) -> list[int]:
    if text is None:
        return []
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) > 0 for word in words):
        raise ClusterLMError(f'{option} "{text}" is not accepted; write numbers: 1,2,4')
    return [int(word) for word in words]
