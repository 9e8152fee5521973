"""What a probe means for whoever trains here: Probe -> findings, worst first. Pure.

Each rule looks at one thing and is silent about what is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.cluster.doctor.finding import Finding, Save, Severity, bad, note, warn
from clusterlm.cluster.doctor.meaning_nodes import NODE_RULES
from clusterlm.cluster.doctor.preemption import preemption
from clusterlm.cluster.time_limits import fit_into, longest_jobs
from clusterlm.spec.probe import Probe
from clusterlm.spec.units import spoken

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo")
SHORT_MEMORY_S = 120
_ORDER = list(Severity)
Rule = Callable[[Probe], Iterator[Finding]]


def meaning(probe: Probe, save: Save | None = None) -> list[Finding]:
    """Everything worth saying, worst first.

    Args:
        probe: what was found.
        save: of a run that is meant to go on here.
    """
    rules = (*SLURM_RULES, *NODE_RULES) if probe.slurm_version else MACHINE_RULES
    found = [finding for rule in rules for finding in rule(probe)]
    if probe.slurm_version:
        found += preemption(probe, save)
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _programs(probe: Probe) -> Iterator[Finding]:
    if missing := [name for name in NEEDED if probe.programs.get(name) is False]:
        advice = "ask the site which module brings them (`module load slurm`), or another node"
        yield bad(f"this node has no {', '.join(missing)}", advice)


def _accounting(probe: Probe) -> Iterator[Finding]:
    if probe.accounting is not False:
        return
    yield note("no accounting (sacct): end states come from the run's own records")
    age = probe.min_job_age_s
    if age is not None and age < SHORT_MEMORY_S:
        yield warn(
            f"Slurm forgets an ended job after {spoken(age)}",
            "a job that ends without a word of its own is then UNKNOWN; its logs say more",
        )


def _accounts(probe: Probe) -> Iterator[Finding]:
    if not probe.enforces_accounts:
        return
    if not probe.accounts and probe.accounting:
        yield bad(
            "a job here needs an account, and Slurm knows none of yours",
            "ask the site for one, and name it: resources.account",
        )
    elif len(probe.accounts) > 1:
        default = f"; without a word it is {probe.default_account}" if probe.default_account else ""
        yield note(
            f"you may charge {', '.join(probe.accounts)}{default}",
            "choose one: resources.account, in the job or for all in the profile",
        )


def _partitions(probe: Probe) -> Iterator[Finding]:
    names = ", ".join(p.name for p in probe.partitions)
    if not probe.partitions:
        yield bad("no partition is open to you", "ask the site for access")
    elif not any(p.is_default for p in probe.partitions):
        advice = "name one: resources.partition, in the job or for all in the profile"
        yield warn(f"there is no default partition; there are {names}", advice)
    for one in probe.partitions:
        if one.state != "UP":
            yield warn(f"partition {one.name} is {one.state}: it starts no jobs now")
        elif one.nodes_up is not None and one.nodes_up < one.nodes:
            lost = one.nodes - one.nodes_up
            words = f"{lost} of {one.nodes} nodes of {one.name} cannot be used now"
            few = one.nodes_up == 0
            yield (bad if few else note)(f"{words} (down or drained)", "see: sinfo -R")
        if one.default_time_s:
            yield note(
                f"a job of {one.name} that names no time gets {spoken(one.default_time_s)}; "
                "clusterlm always names resources.time"
            )


def _time_limits(probe: Probe) -> Iterator[Finding]:
    limit_s = {p.name: p.max_time_s for p in probe.partitions if p.max_time_s}
    if limit_s:
        yield note(longest_jobs(limit_s), fit_into(limit_s))
    if probe.enforces_limits is False and (limit_s or any(p.max_nodes for p in probe.partitions)):
        yield warn(
            "sbatch takes a job that its partition never allows, and it waits for ever",
            "clusterlm check JOB looks before; submit does, too",
        )


def _gpus(probe: Probe) -> Iterator[Finding]:
    if probe.partitions and not any(p.has_gpus for p in probe.partitions):
        yield warn(
            "Slurm counts no GPUs on any node",
            "if there are some, the site gives whole nodes: ask it, and set resources.exclusive",
        )
    accepted = probe.gpu_requests_accepted
    if accepted and "gres" not in accepted:
        yield note(f"GPUs are asked for by --{accepted[0]} here; jobs with a profile do so")
    if len(types := [name for name in probe.gres_names if name.startswith("gpu:")]) > 1:
        kinds = ", ".join(name.removeprefix("gpu:") for name in types)
        yield note(f"several kinds of GPU: {kinds}", "choose by resources.gpu_type")


def _waits(probe: Probe) -> Iterator[Finding]:
    if probe.hides_jobs:
        yield note("other users' jobs are hidden: when a job may start is told too early")
    if probe.max_array_size is not None:
        yield note(f"data.tasks: at most {probe.max_array_size - 1} (MaxArraySize)")


def _containers(probe: Probe) -> Iterator[Finding]:
    there = [
        name
        for name, found in (
            *(("pyxis", probe.pyxis), ("enroot", probe.enroot)),
            *(("apptainer", probe.apptainer),),
        )
        if found
    ]
    if there:
        yield note(f"containers start by {', '.join(there)}")
    elif probe.pyxis is False and probe.enroot == "" and probe.apptainer == "":
        yield warn(
            "no pyxis, enroot or apptainer: containers cannot start here",
            "train in a Python of the cluster: leave `image` out, or image.runtime: none",
        )
    builders = [name for name in ("docker", "podman", "buildah") if probe.programs.get(name)]
    if there and not builders:
        yield note(
            "images cannot be built on this node (no docker, podman or buildah)",
            "build where there is one, and name the file: image.file",
        )


def _requeue(probe: Probe) -> Iterator[Finding]:
    if probe.requeue is False:
        yield note("jobs are not requeued by default; clusterlm asks for it in each of its own")
    if probe.kill_wait_s is not None and probe.kill_wait_s < 10:
        yield warn(
            f"only {spoken(probe.kill_wait_s)} from SIGTERM to SIGKILL (KillWait)",
            "a cancel by clusterlm does not need it; one by scancel leaves no time to save",
        )


def _machine(probe: Probe) -> Iterator[Finding]:
    here = probe.machine
    if here is None:
        return
    if not here.gpus:
        yield note("no GPU to be seen: cluster: local trains on the CPU")
    if here.docker == "":
        yield note(
            "docker does not answer: cluster: local runs in the current Python",
            "to use an image here, start docker; or image.runtime: none",
        )
    if here.torch is None:
        yield warn(
            "torch is not installed beside clusterlm", "pip install 'clusterlm[train]', or an image"
        )


SLURM_RULES: tuple[Rule, ...] = (
    *(_programs, _accounts, _partitions, _gpus, _containers, _time_limits, _accounting),
    *(_requeue, _waits),
)
MACHINE_RULES: tuple[Rule, ...] = (_machine, *NODE_RULES)
