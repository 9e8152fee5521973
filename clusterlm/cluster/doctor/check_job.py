"""`check` on a cluster: the job against what is there, and when it would start."""

from __future__ import annotations

import getpass
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.doctor.backfill import Gap, look_for_gaps
from clusterlm.cluster.doctor.commands import ask
from clusterlm.cluster.doctor.facts import facts_of
from clusterlm.cluster.doctor.finding import Finding, Severity
from clusterlm.cluster.doctor.job_fit import findings_on_job, limit_words
from clusterlm.cluster.doctor.starts import Questions, findings_on_start, table_of_starts
from clusterlm.cluster.doctor.table import columns, told
from clusterlm.cluster.host import Host
from clusterlm.cluster.log_text import readable
from clusterlm.errors import Problem, SlurmError
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.render import Launch, render_sbatch
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe, read_probe


@dataclass(frozen=True)
class Checked:
    """What the cluster says to a job.

    Attributes:
        lines: for people.
        is_fit: it could be sent as far as the cluster itself goes: disk, folders, sbatch.
        problems: what the job asks for and cannot have, key by key.
    """

    lines: list[str]
    is_fit: bool
    problems: list[Problem]


def check_job(
    job: Job,
    host: Host,
    *,
    needed: float | None,
    with_table: bool,
    asks_for_start: bool = True,
    now: Callable[[], float] = time.time,
) -> Checked:
    """Look at everything; asks sbatch at most eight times, usually once.

    Args:
        job: the resolved spec.
        host: where Slurm is.
        needed: bytes of checkpoints and model.
        with_table: show starts by nodes and time.
        asks_for_start: ask sbatch; in vain for a job that it is known to refuse.
        now: clock.

    Raises:
        SlurmError: Slurm does not answer.
    """
    probe = Probe(**facts_of(ask(host, getpass.getuser())))
    findings = list(findings_on_job(job, probe, read_probe(job.cluster), runs_dir(), needed))
    gap = _gap(job, probe, host, now())
    problems = [Problem(f.where, f.words) for f in findings if _is_mistake(f)]
    findings = [f for f in findings if not _is_mistake(f)]
    table: list[tuple[str, ...]] = []
    if asks_for_start and not problems:
        # the file lies here only: sbatch reads it and keeps nothing
        with tempfile.TemporaryDirectory() as folder:
            questions = Questions(host, _script(job, Path(folder)))
            findings += findings_on_start(questions, job.resources, gap, now)
            if with_table and _is_fit(findings):
                table = table_of_starts(questions, job.resources, gap, now)
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    lines = [limit_words(job, probe), *(told(findings) if findings else ())]
    if table:
        lines += ["", "start, by nodes and resources.time:", *columns(table[0], table[1:])]
    safe = [readable(line.encode()) for line in lines]
    return Checked(safe, _is_fit(findings), problems)


def _is_mistake(finding: Finding) -> bool:
    """The job asks for it: to be mended in its file."""
    return finding.severity is Severity.BAD and finding.where != ""


def _is_fit(findings: list[Finding]) -> bool:
    return all(finding.severity is not Severity.BAD for finding in findings)


def _gap(job: Job, probe: Probe, host: Host, now: float) -> Gap:
    chosen = probe.partition(job.resources.partition)
    # jobs that cannot be seen may be first
    if chosen is None or probe.hides_jobs:
        return Gap(())
    try:
        return look_for_gaps(host, job.resources, chosen.name, now)
    except SlurmError:
        return Gap(())


def _script(job: Job, folder: Path) -> Path:
    run = RunPaths(runs_dir() / job.name)
    script = folder / "train.sbatch"
    script.write_text(render_sbatch(job, run, "train", Launch()))
    return script
