"""Which jobs in the queue were sent as `<token>.sbatch`: the truth when sbatch did not tell it.

squeue is asked for jobs of this user and name, and shows the file that each was sent from. Where a
site's own sbatch hands on another file, name and time decide. sacct knows the jobs that the
controller has forgotten; it names the file since 21.08, else the time decides there too.

No answer is never "no such job": it raises.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime

from clusterlm.cluster.host import Host
from clusterlm.cluster.slurm import CLIENT_TIMEOUT_S, last_words
from clusterlm.errors import SlurmUnreachable
from clusterlm.paths import Phase, RunPaths
from clusterlm.supervise.owner import sent_file

CLOCKS_DIFFER_S = 300.0
"""Between a login node and the controller: munge refuses more."""
FORGETS_AFTER_S = 120.0
"""squeue alone is enough for a younger send; MinJobAge, after which it forgets, is 300 s mostly."""


@dataclass(frozen=True)
class Sent:
    """What is looked for."""

    run: RunPaths
    phase: Phase
    token: str
    since: float
    """When sbatch was called first, in unix seconds."""

    @property
    def job_name(self) -> str:
        """As the rendered file says."""
        return f"{self.run.name}.{self.phase}"


def sent_at(run: RunPaths, token: str) -> float | None:
    """When sbatch was called for this send, in unix seconds; None when it never was."""
    try:
        return sent_file(run, token).stat().st_mtime
    except OSError:
        return None


def look_up(sent: Sent, host: Host, now: float) -> list[str]:
    """Ids of the jobs that came of a send, oldest first; an array counts once.

    Raises:
        SlurmUnreachable: no answer; says nothing about the job.
    """
    if ids := ask_queue(sent, host):
        return ids
    try:
        return _ask_records(sent, host)
    except SlurmUnreachable:
        # the controller has answered, and does not forget so soon
        if now - sent.since < FORGETS_AFTER_S:
            return []
        raise


def ask_queue(sent: Sent, host: Host) -> list[str]:
    """The same of those that the controller knows, ended ones among them."""
    # by number: the name of a user is what the environment says
    whose = ["-u", str(os.getuid()), "-n", sent.job_name]
    # %F: of all tasks of an array the same
    argv = ["squeue", "-h", "-t", "all", *whose, "-o", "%F|%V|%o"]
    done = host.run(argv, timeout_s=CLIENT_TIMEOUT_S)
    if not done.is_ok:
        raise SlurmUnreachable(f"squeue does not answer: {last_words(done)}")
    return parse_queue(done.out, sent)


def parse_queue(text: str, sent: Sent) -> list[str]:
    """Ids from lines `71|2026-11-21T01:43:26|/runs/a/submitit/<token>.sbatch`."""
    ids = []
    for line in text.splitlines():
        job, _, rest = line.partition("|")
        submitted, _, command = rest.partition("|")
        if job.strip().isdecimal() and _is_ours(command.strip(), submitted.strip(), sent):
            ids.append(job.strip())
    return _in_order(ids)


def _ask_records(sent: Sent, host: Host) -> list[str]:
    start = datetime.fromtimestamp(sent.since - CLOCKS_DIFFER_S).strftime("%Y-%m-%dT%H:%M:%S")
    whose = ["-u", str(os.getuid()), "--name", sent.job_name, "-S", start]
    argv = ["sacct", "-nPXD", *whose, "-o", "JobID,Submit,SubmitLine"]
    done = host.run(argv, timeout_s=CLIENT_TIMEOUT_S)
    if not done.is_ok and re.search(r"invalid field", done.err, re.I):
        argv[-1] = "JobID,Submit"
        done = host.run(argv, timeout_s=CLIENT_TIMEOUT_S)
    if re.search(r"accounting storage is disabled", done.err, re.I) or done.code == 127:
        # nobody else to ask, now or later
        return []
    if not done.is_ok:
        raise SlurmUnreachable(f"sacct does not answer: {last_words(done)}")
    return parse_records(done.out, sent)


def parse_records(text: str, sent: Sent) -> list[str]:
    """Ids from lines `71_3|2026-11-21T01:43:26|sbatch /runs/a/submitit/<token>.sbatch`."""
    ids = []
    for line in text.splitlines():
        job, _, rest = line.partition("|")
        submitted, _, command = rest.partition("|")
        match = re.match(r"\d+", job)
        if match and _is_ours(command.strip(), submitted.strip(), sent):
            ids.append(match[0])
    return _in_order(ids)


# <key>-<phase>.sbatch
_OUR_FILE = re.compile(r"[0-9a-f]{32}-[a-z]+\.sbatch\b")


def _is_ours(command: str, submitted: str, sent: Sent) -> bool:
    if _OUR_FILE.search(command):
        return f"{sent.token}.sbatch" in command
    try:
        at = datetime.fromisoformat(submitted)
    except ValueError:
        return True
    # in the hour that comes twice in autumn both readings count
    newest = max(at.replace(fold=fold).timestamp() for fold in (0, 1))
    return newest > sent.since - CLOCKS_DIFFER_S


def _in_order(ids: list[str]) -> list[str]:
    return sorted(dict.fromkeys(ids), key=int)
