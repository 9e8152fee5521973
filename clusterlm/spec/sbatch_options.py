"""Options of sbatch that have keys of their own, so that no one writes them twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OWN_SBATCH_OPTIONS = {
    "--account": "write resources.account",
    "--wait": "clusterlm submit --watch waits",
    "--test-only": "clusterlm check looks without submitting",
    "--help": "it submits nothing",
    "--usage": "it submits nothing",
    "--version": "it submits nothing",
    "--quiet": "clusterlm reads what sbatch says",
    "--chdir": "the run directory is chosen by CLUSTERLM_RUNS_DIR",
    "--clusters": "one cluster per submit",
    "--array": "a run is one job",
    "--constraint": "write resources.constraint",
    "--cpus-per-task": "write resources.cpus_per_node",
    "--dependency": "clusterlm chains the phases",
    "--error": "logs lie in the run directory",
    "--exclude": "write resources.exclude",
    "--exclusive": "write resources.exclusive: true",
    "--export": "write env",
    "--export-file": "write env",
    "--gid": "a job runs as you",
    "--uid": "a job runs as you",
    "--gpus-per-node": "write resources.gpus_per_node",
    "--gres": "write resources.gpus_per_node and gpu_type",
    "--job-name": "write name",
    "--kill-on-invalid-dep": "clusterlm chains the phases",
    "--mem": "write resources.mem",
    "--no-kill": "clusterlm sets it",
    "--no-requeue": "write recovery.requeue: false",
    "--nodes": "write resources.nodes",
    "--ntasks": "clusterlm starts one task on each node",
    "--ntasks-per-node": "clusterlm starts one task on each node",
    "--open-mode": "clusterlm sets it",
    "--output": "logs lie in the run directory",
    "--parsable": "clusterlm reads sbatch's answer",
    "--partition": "write resources.partition",
    "--qos": "write resources.qos",
    "--requeue": "write recovery.requeue: true",
    "--reservation": "write resources.reservation",
    "--signal": "write recovery.stop_grace",
    "--time": "write resources.time",
    "--wrap": "write train.command",
}
"""Options of sbatch that clusterlm writes itself."""


_WHOLE = ("--gpus",)
"""Options that are not ours and with which one of ours begins."""


def refusals(options: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Number of each option that clusterlm writes itself, and what to write instead."""
    for number, option in enumerate(options):
        name = option.partition("=")[0]
        if meant := _meant(name):
            short = "" if meant == name else f" (for sbatch it is {meant})"
            yield number, f"{name}{short} is not accepted here: {OWN_SBATCH_OPTIONS[meant]}"


def _meant(name: str) -> str | None:
    """The option of ours that sbatch takes `name` for: the beginning of one will do, `--wra=`."""
    if name in OWN_SBATCH_OPTIONS:
        return name
    if name in _WHOLE:
        return None
    return next((own for own in OWN_SBATCH_OPTIONS if own.startswith(name)), None)
