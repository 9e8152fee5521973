"""What doctor asks Slurm: each question one command that changes nothing, its answer kept as text.

Text and never JSON, as in `cluster/slurm.py`. A question that a version or a site does not answer
costs a note and no more; only a controller that is away ends it, for then nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clusterlm.cluster.host import Completed, Host
from clusterlm.cluster.slurm import CLIENT_TIMEOUT_S, last_words
from clusterlm.errors import SlurmUnreachable

SLURM_PROGRAMS = (
    *("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo"),
    *("sacct", "sacctmgr", "salloc"),
)
OTHER_PROGRAMS = (
    *("enroot", "apptainer", "singularity", "docker", "podman", "buildah"),
    *("git", "mksquashfs", "nvidia-smi"),
)
# one row for each kind of node in a partition and state: short on a cluster of thousands
SINFO_FIELDS = "%P|%a|%l|%L|%D|%c|%m|%T|%G"


@dataclass(frozen=True)
class Answers:
    """What the commands said, by question; and which programs there are."""

    texts: Mapping[str, str]
    refusals: Mapping[str, str]
    """Question -> the last line of what was said in place of an answer."""
    programs: Mapping[str, bool]

    def text(self, question: str) -> str:
        """Empty when there was no answer."""
        return self.texts.get(question, "")


def questions(user: str) -> dict[str, list[str]]:
    """Command by question; `config` first: it tells whether anybody answers."""
    assoc = "format=Account,Partition,QOS,DefaultQOS,MaxWall"
    qos = "format=Name,PreemptMode,GraceTime,MaxWall,Preempt"
    return {
        "config": ["scontrol", "show", "config"],
        "version": ["sbatch", "--version"],
        "partitions": ["scontrol", "-o", "show", "partition"],
        "nodes": ["sinfo", "-h", "-e", "-o", SINFO_FIELDS],
        "associations": ["sacctmgr", "-nP", "show", "assoc", f"user={user}", assoc],
        "user": ["sacctmgr", "-nP", "show", "user", user, "format=DefaultAccount"],
        "qos": ["sacctmgr", "-nP", "show", "qos", qos],
        # of one job that is long gone: whether there is a database, for the price of nothing
        "accounting": ["sacct", "-nPX", "-o", "JobID", "-j", "1"],
        "srun": ["srun", "--help"],
    }


def ask(host: Host, user: str) -> Answers:
    """Ask everything.

    Raises:
        SlurmUnreachable: no controller answers.
    """
    texts, refusals = {}, {}
    for question, argv in questions(user).items():
        done = host.run(argv, timeout_s=CLIENT_TIMEOUT_S)
        if done.is_ok:
            texts[question] = done.out
        elif question == "config" and _is_away(done):
            raise SlurmUnreachable(f"scontrol does not answer: {last_words(done)}")
        else:
            refusals[question] = last_words(done)
    programs = {name: host.has(name) for name in (*SLURM_PROGRAMS, *OTHER_PROGRAMS)}
    return Answers(texts, refusals, programs)


def _is_away(done: Completed) -> bool:
    return done.code is None or "contact slurm controller" in done.err
