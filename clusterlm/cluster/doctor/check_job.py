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
from clusterlm.cluster.doctor.finding import Severity
from clusterlm.cluster.doctor.job_fit import findings_on_job, limit_words
from clusterlm.cluster.doctor.starts import Questions, findings_on_start, table_of_starts
from clusterlm.cluster.doctor.table import columns, told
from clusterlm.cluster.host import Host
from clusterlm.cluster.log_text import readable
from clusterlm.errors import SlurmError
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.render import Launch, render_sbatch
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe, read_probe


@dataclass(frozen=True)
class Checked:
    """What `check` prints, and whether it could be sent."""

    lines: list[str]
    is_fit: bool


def check_job(
    job: Job,
    host: Host,
    *,
    needed: float | None,
    with_table: bool,
    now: Callable[[], float] = time.time,
) -> Checked:
    """Look at everything; asks sbatch at most eight times, usually once.

    Args:
        job: the resolved spec.
        host: where Slurm is.
        needed: bytes of checkpoints and model.
        with_table: show starts by nodes and time.
        now: clock.

    Raises:
        SlurmError: Slurm does not answer.
    """
    probe = Probe(**facts_of(ask(host, getpass.getuser())))
    findings = list(findings_on_job(job, probe, read_probe(job.cluster), runs_dir(), needed))
    gap = _gap(job, probe, host, now())
    table: list[tuple[str, ...]] = []
    # the file lies here only: sbatch reads it and keeps nothing
    with tempfile.TemporaryDirectory() as folder:
        questions = Questions(host, _script(job, Path(folder)))
        findings += findings_on_start(questions, job.resources, gap, now)
        is_fit = all(finding.severity is not Severity.BAD for finding in findings)
        if with_table and is_fit:
            table = table_of_starts(questions, job.resources, gap, now)
    order = list(Severity)
    findings.sort(key=lambda finding: order.index(finding.severity))
    lines = [limit_words(job, probe), *told(findings)]
    if table:
        lines += ["", "start, by nodes and resources.time:", *columns(table[0], table[1:])]
    return Checked([readable(line.encode()) for line in lines], is_fit)


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
