"""check and submit --dry-run of a job for a cluster: what they print, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from clusterlm.cli.elsewhere import remote_of, wish_of
from clusterlm.cli.mistakes import look_at_data, refuse, verdict
from clusterlm.cli.typed import print_files, tell

if TYPE_CHECKING:
    from clusterlm.cluster.job_question import JobAnswer
    from clusterlm.cluster.remote.forward import Remote
    from clusterlm.cluster.remote.submit_elsewhere import Wish


def check(
    cluster: str, job: Path, overrides: Sequence[str] | None, *, with_table: bool = False
) -> int:
    """`clusterlm check` of a job for a cluster."""
    wish = wish_of(job, overrides, None, None)
    answer = _look(remote_of(cluster), wish, with_table=with_table)
    if answer.lines:
        typer.echo("\n".join(answer.lines))
    refuse(answer, job.name)
    return verdict(job, answer.is_fit)


def dry_run(
    cluster: str,
    job: Path,
    overrides: Sequence[str] | None,
    name: str | None,
    limit: str | None,
) -> int:
    """`clusterlm submit --dry-run` of a job for a cluster.

    What is said goes to stderr: stdout is what a submit would send, and no more.
    """
    from clusterlm.cluster.remote.submit_elsewhere import lists_of_secrets
    from clusterlm.cluster.secret_values import hide_secrets

    wish = wish_of(job, overrides, name, limit)
    answer = _look(remote_of(cluster), wish, renders=True)
    for line in answer.lines:
        tell(line)
    refuse(answer, wish.yaml.name)
    hide_secrets([name for names in lists_of_secrets(wish.values).values() for name in names])
    print_files(answer.files)
    return 0 if answer.is_fit else 1


def _look(
    remote: Remote, wish: Wish, *, with_table: bool = False, renders: bool = False
) -> JobAnswer:
    from clusterlm.cli.plan import bytes_of_checkpoints
    from clusterlm.cluster.remote.check_elsewhere import OwnLooks, look

    own = OwnLooks(look_at_data, lambda looked: bytes_of_checkpoints(looked.job))
    answer = look(remote, wish, own, with_table=with_table, renders=renders, tell=tell)
    for note in answer.notes:
        tell(f"note: {note}")
    return answer
