"""What can be known before the queue is: is Slurm there, does it have what is asked for.

Found here it costs a second; found by the scheduler it costs hours, or never says a word (some
versions let a job for too many nodes wait for ever).
"""

from __future__ import annotations

from clusterlm.cluster.claims import Claim
from clusterlm.cluster.doctor.words_of_slurm import written
from clusterlm.cluster.host import Completed, Host
from clusterlm.cluster.slurm import Partition, job_lives, partitions
from clusterlm.cluster.time_limits import fit_into, longest_jobs
from clusterlm.errors import ImageError, Problem, SlurmError, SpecError
from clusterlm.spec.clusters import RESERVED, read_clusters
from clusterlm.spec.job import LOCAL, Job
from clusterlm.supervise.allocation import process_lives

_NO_PYXIS = (
    "srun on this machine has no pyxis (no --container-image in its help): take enroot or "
    "apptainer if the nodes have them (ask the site), or none for the current Python"
)
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo")


def refuse_impossible(job: Job, host: Host, source: str = "job.yaml") -> None:
    """Raise when the cluster can never run the job.

    Args:
        job: the resolved spec.
        host: where Slurm and docker are.
        source: name of its file, for the message.

    Raises:
        ImageError: docker is to start the image here, and does not answer.
        SlurmError: `cluster: slurm` and no Slurm here.
        SpecError: partition, node count, time or runtime that the cluster does not have.
    """
    if problems := impossible(job, host):
        raise SpecError(source, problems)


def impossible(job: Job, host: Host) -> list[Problem]:
    """What the cluster can never run, for who has other mistakes to tell with it.

    Raises:
        ImageError, SlurmError: nobody answers; see `refuse_impossible`.
    """
    if job.cluster == LOCAL:
        return _absent_runtime(job, host)
    _refuse_elsewhere(job)
    missing = [p for p in PROGRAMS if not host.has(p)]
    if missing:
        raise SlurmError(
            f"cluster: slurm, but this machine has no {', '.join(missing)}\n"
            "  run clusterlm on a login node of the cluster (some sites: `module load slurm`),\n"
            "  or use cluster: local to run on this machine without a scheduler"
        )
    try:
        there = partitions(host)
    except SlurmError as error:
        raise type(error)(
            f"{error}\n  is this a login node of the cluster? "
            "`clusterlm check --offline` asks nobody; cluster: local needs no Slurm"
        ) from error
    problems = problems_on(job, there)
    if job.runtime == "pyxis" and not has_pyxis(host):
        problems.append(Problem("image.runtime", _NO_PYXIS))
    return problems


def _refuse_elsewhere(job: Job) -> None:
    """A cluster behind SSH is asked over there; nothing of it may reach a Slurm of this machine."""
    profile = None if job.cluster in RESERVED else read_clusters().get(job.cluster)
    if profile is not None and profile.host is not None:
        raise SlurmError(
            f"cluster {job.cluster} is reached over SSH ({profile.host}); this is done there, not "
            "here\n  submit, check and status do it by --cluster; else log in and run it there"
        )


def has_pyxis(host: Host) -> bool:
    """Whether srun here knows how to start a container; without pyxis it says so, or ignores it."""
    return "--container-image" in host.run(["srun", "--help"]).out


def _absent_runtime(job: Job, host: Host) -> list[Problem]:
    """What starts the container must be on this machine when the phases run on it."""
    runtime = job.runtime
    if runtime == "docker":
        done = host.run(["docker", "version", "--format", "{{.Server.Version}}"])
        if not done.is_ok:
            raise ImageError(_words_of_docker(done))
    elif runtime in ("enroot", "apptainer"):
        programs = [runtime, "singularity"] if runtime == "apptainer" else [runtime]
        if not any(host.has(program) for program in programs):
            text = f"{runtime} is not on this machine; install it, or take docker, or none"
            return [Problem("image.runtime", text)]
    return []


def _words_of_docker(done: Completed) -> str:
    said = (done.err or done.out).strip().splitlines()
    last = said[-1] if said else "no answer"
    if done.code == 127:
        return (
            "cluster: local with an image starts it in docker, which is not on this machine\n"
            "  install docker, or run in the current Python: image.runtime: none"
        )
    advice = "start it (systemctl start docker), or set DOCKER_HOST to where it listens"
    if "permission denied" in last.lower():
        advice = "ask to be in the group `docker`, or run in the current Python: runtime: none"
    return f"docker does not answer: {last}\n  {advice}"


def problems_on(job: Job, there: list[Partition]) -> list[Problem]:
    """What the job asks for and the partitions do not have. Pure."""
    asked = job.resources
    nodes = asked.nodes + asked.spares
    found = _problems_of("resources", asked.partition, nodes, asked.time, there)
    if job.data:
        one = asked.preprocess
        where = "resources.preprocess" if one.partition or one.time else "resources"
        partition = one.partition or asked.partition
        found += _problems_of(where, partition, 1, one.time or asked.time, there)
    return list(dict.fromkeys(found))


def _problems_of(
    where: str, name: str | None, nodes: int, time_s: int, there: list[Partition]
) -> list[Problem]:
    names = ", ".join(p.name + (" (default)" if p.is_default else "") for p in there)
    chosen = [p for p in there if (p.name == name if name else p.is_default)]
    if not chosen:
        what = f'"{name}" is no partition here' if name else "there is no default partition"
        return [Problem(f"{where}.partition", f"{what}; accepted: {names}")]
    partition = chosen[0]
    problems = []
    if nodes > partition.nodes:
        text = f"{nodes} nodes asked for, partition {partition.name} has {partition.nodes}"
        problems.append(Problem(f"{where}.nodes", text + _with_enough(there, nodes)))
    if partition.max_time_s is not None and time_s > partition.max_time_s:
        limit_s = {partition.name: partition.max_time_s}
        text = f"{written(time_s)} asked for, and {longest_jobs(limit_s)}; {fit_into(limit_s)}"
        problems.append(Problem(f"{where}.time", text))
    return problems


def _with_enough(there: list[Partition], nodes: int) -> str:
    fitting = [p.name for p in there if p.nodes >= nodes]
    return f"; enough in: {', '.join(fitting)}" if fitting else "; no partition here has so many"


def claim_is_alive(claim: Claim, host: Host) -> bool:
    """Whether the job of a claim waits or runs. In doubt it does not: preparing twice is safe."""
    if claim.cluster == LOCAL:
        return process_lives(int(claim.job_id), claim.pid_started)
    return job_lives(host, claim.job_id)
