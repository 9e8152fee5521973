"""Here or elsewhere: which commands are done by the clusterlm of a cluster, and what they print.

A command of this machine asks one question (`cluster_of` for a job, `find` for a run) and, when the
answer is a cluster, leaves everything to the function here that has its name. Nothing else of the
command line knows that there are other machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from clusterlm.cli.typed import tell
from clusterlm.errors import ClusterLMError

if TYPE_CHECKING:
    from clusterlm.cluster.remote.forward import Remote
    from clusterlm.cluster.remote.runs_elsewhere import Elsewhere
    from clusterlm.cluster.remote.submit_elsewhere import Answer, Wish
    from clusterlm.cluster.run_status import RunStatus


def cluster_of(job: Path, overrides: Sequence[str] | None) -> str | None:
    """The cluster that a job is for, when it is reached over SSH.

    A YAML that cannot be read is nobody's: what is wrong with it is told where it is loaded.
    """
    from clusterlm.errors import SpecError
    from clusterlm.spec.load import values_of

    try:
        text = job.read_text(encoding="utf-8-sig")
        name = values_of(text, job.name, overrides or []).get("cluster")
    except (OSError, ValueError, SpecError):
        return None
    return name if isinstance(name, str) and is_elsewhere(name) else None


def is_elsewhere(cluster: str) -> bool:
    """Whether a cluster is reached over SSH; an unknown one is not."""
    from clusterlm.spec.clusters import RESERVED, read_clusters

    if cluster in RESERVED:
        return False
    profile = read_clusters().get(cluster)
    return profile is not None and profile.host is not None


def find(run: str) -> Elsewhere | None:
    """Where a run lives, when that is not this machine."""
    from clusterlm.cluster.remote.runs_elsewhere import find_elsewhere

    return find_elsewhere(run)


def remote_of(name: str) -> Remote:
    """The cluster of that name; nothing is connected yet."""
    from clusterlm.cluster.remote.forward import Remote
    from clusterlm.cluster.ssh.connect import connect
    from clusterlm.spec.clusters import find_profile

    profile = find_profile(name)
    if not profile.host:
        raise ClusterLMError(f"{name} has no `host`: it is this machine, and has no such run")
    return Remote(name, profile, connect(name, profile), tell)


def submit(
    cluster: str,
    job: Path,
    overrides: Sequence[str] | None,
    name: str | None,
    *,
    options: Sequence[str] = (),
    limit: str | None = None,
    watch: bool = False,
    as_json: bool = False,
) -> int:
    """`clusterlm submit` of a job for a cluster; gives the exit code."""
    from clusterlm.cluster.remote import submit_elsewhere

    remote = remote_of(cluster)
    wish = wish_of(job, overrides, name, limit)
    answer = submit_elsewhere.submit(remote, wish, options, tell=tell)
    return _print_answer(remote, answer, watch=watch, as_json=as_json)


def resume(
    one: Elsewhere,
    job: Path | None,
    overrides: Sequence[str] | None,
    *,
    watch: bool,
    as_json: bool,
) -> int:
    """`clusterlm resume` of a run on a cluster."""
    from clusterlm.cluster.remote import runs_elsewhere, submit_elsewhere

    remote = remote_of(one.cluster)
    # a YAML that names no cluster is for the run's own
    changes = [f"cluster={one.cluster}", *(overrides or [])]
    wish = wish_of(job, changes, one.run, None) if job else None
    answer = submit_elsewhere.resume(remote, one.run, wish, [], tell=tell)
    if answer.code == 0:
        runs_elsewhere.remember(runs_elsewhere.as_begun_again(one, answer.value or {}))
    return _print_answer(remote, answer, watch=watch, as_json=as_json)


def pass_on(one: Elsewhere, *words: str) -> int:
    """Run a command on the run's cluster and print what it prints; for `why` and `cancel`."""
    try:
        return run_on(one.cluster, *words)
    except KeyboardInterrupt:
        tell(f"\nwhat was asked of {one.cluster} may go on there: clusterlm status {one.run}")
        return 130


def run_on(cluster: str, *words: str) -> int:
    """Run a command on a cluster and print what it prints; one that may be done twice."""
    from clusterlm.cluster.remote.forward import persist

    remote = remote_of(cluster)
    done = persist(lambda: remote.live(words, _say, outputs="apart"), tell=tell)
    for line in done.err.splitlines():
        tell(_safe(line))
    return 2 if done.code is None else done.code


def logs(one: Elsewhere, options: Sequence[str], num_lines: int, *, follow: bool) -> int:
    """`clusterlm logs` of a run on a cluster."""
    from clusterlm.cluster.remote.follow_elsewhere import follow_elsewhere

    if not follow:
        return pass_on(one, "logs", one.run, "-n", str(num_lines), *options)
    remote = remote_of(one.cluster)
    try:
        return follow_elsewhere(remote, one.run, options, num_lines, say=_say, tell=tell)
    except KeyboardInterrupt:
        tell(f"\n{one.run} goes on; end it with: clusterlm cancel {one.run}")
        return 130


def statuses(runs: Sequence[Elsewhere] | None = None) -> tuple[list[RunStatus], list[str]]:
    """The states of runs on clusters, all that are known or these; and notes."""
    from clusterlm.cluster.remote.runs_elsewhere import all_elsewhere

    chosen = all_elsewhere() if runs is None else list(runs)
    if not chosen:
        return [], []
    from clusterlm.cluster.remote.look_elsewhere import look_at

    return look_at(chosen, remote_of)


def glances(names: Collection[str] | None) -> Callable[[], list[RunStatus]]:
    """What gives the states of runs on clusters again and again, without waiting.

    Args:
        names: of the runs; None: all, those that come meanwhile too.
    """
    from clusterlm.cluster.remote.lookout import Lookout
    from clusterlm.cluster.remote.runs_elsewhere import all_elsewhere

    def chosen() -> list[Elsewhere]:
        return [one for one in all_elsewhere() if names is None or one.run in names]

    return Lookout(chosen, remote_of).statuses


def all_on(cluster: str) -> tuple[list[RunStatus], list[str]]:
    """The states of all runs of a cluster, also of those that another machine has sent."""
    from clusterlm.cluster.remote.look_elsewhere import look_over

    return look_over(cluster, remote_of)


def watch(one: Elsewhere) -> int:
    """`clusterlm status RUN --watch` of a run on a cluster; a broken connection is made anew."""
    from clusterlm.cluster.remote.forward import persist

    return _watch(remote_of(one.cluster), one.run, persist)


def report(one: Elsewhere, out: Path | None) -> int:
    """`clusterlm report` of a run on a cluster: the page is made there and brought here."""
    from clusterlm.cluster.ssh.transfer import fetch_file

    remote = remote_of(one.cluster)
    file = out or Path(f"{one.run}.html")
    there = f"{remote.folder}/submits/{one.key}.report.html"
    done = remote.ask(["report", one.run, "--out", there])
    if done.code:
        tell(_safe(done.err.strip()))
        return done.code or 2
    fetch_file(remote.transport, there, file, python=remote.installed.python)
    typer.echo(_safe(done.out.strip()).replace(there, str(file)))
    return 0


def fetch(one: Elsewhere, part: str, step: int | None, out: Path | None) -> int:
    """Bring a part of a run here: `model`, `logs` or a checkpoint."""
    from clusterlm.cluster.remote import fetch as fetching

    remote = remote_of(one.cluster)
    wanted = {"model": fetching.MODEL, "logs": fetching.LOGS}.get(part)
    wanted = wanted or fetching.checkpoint(step or 0)
    run_dir = one.run_dir or f"{remote.folder}/runs/{one.run}"
    target = out or Path(one.run) / wanted.name
    target.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(str(fetching.fetch(remote, one.run, run_dir, wanted, target, tell=tell)))
    return 0


def wish_of(
    job: Path, overrides: Sequence[str] | None, name: str | None, limit: str | None
) -> Wish:
    """A job as the user asked for it."""
    from clusterlm.cluster.remote.snapshot import LIMIT
    from clusterlm.cluster.remote.submit_elsewhere import Wish
    from clusterlm.spec.load import read_job_text

    changes = [*(overrides or []), *([f"name={name}"] if name else [])]
    text = read_job_text(job)
    return Wish(job.absolute(), text, changes, _bytes(limit) if limit else LIMIT)


def _bytes(text: str) -> int:
    import re

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)i?[bB]?", text.strip())
    if match is None:
        raise ClusterLMError(f'--snapshot-limit "{text}" is no size; write 500MB or 2GB')
    power = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}[match[2].lower()]
    return int(float(match[1]) * 1000**power)


def _print_answer(remote: Remote, answer: Answer, *, watch: bool, as_json: bool) -> int:
    if answer.value is None:
        return answer.code or 2
    value = answer.value
    run = _safe(str(value.get("run")))
    if as_json:
        typer.echo(json.dumps({**value, "cluster": remote.name}))
    else:
        typer.echo("\n".join(_lines(remote.name, run, value)))
    if watch:
        from clusterlm.cluster.remote.forward import persist

        return _watch(remote, run, persist)
    return 0


def _lines(cluster: str, run: str, value: dict[str, Any]) -> list[str]:
    from clusterlm.cluster.remote.runs_elsewhere import job_ids_of

    lines = [f"run {run} on {cluster}"]
    lines += [f"  {phase:<11} job {job}" for phase, job in job_ids_of(value).items()]
    if value.get("shares_with"):
        other = value["shares_with"]
        lines.append(f"  preprocess  shared with run {other}, which prepares the same data")
    elif value.get("fingerprint") and value.get("cache_hit"):
        lines.append(
            f"  preprocess  not needed: the data is there ({str(value['fingerprint'])[:12]})"
        )
    lines.append(f"  folder      {value.get('run_dir')}")
    lines = [_safe(line) for line in lines]
    lines.append(f"look: clusterlm status {run}   clusterlm logs {run} -f")
    return lines


def _watch(remote: Remote, run: str, persist: Callable[..., Any]) -> int:
    words = ["status", run, "--watch"]

    def each(line: str) -> None:
        _say(_next_here(line, run))

    try:
        done = persist(lambda: remote.live(words, each), tell=tell, for_s=600.0)
    except KeyboardInterrupt:
        tell(f"\nstopped watching; {run} goes on; look again: clusterlm status {run} --watch")
        return 130
    return 2 if done.code is None else int(done.code)


def _next_here(line: str, run: str) -> str:
    """The model lies over there: before anything else it is fetched."""
    return f"next: clusterlm fetch {run}" if line.startswith("next: clusterlm chat") else line


def _say(line: str) -> None:
    # as all that a command says: a machine that is not ours wrote it
    typer.echo(line)


def _safe(text: str) -> str:
    from clusterlm.cluster.log_text import readable_text

    return readable_text(text)
