"""One look at a cluster from its login node: questions, facts, folders, ways to ask for GPUs."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm import __version__
from clusterlm.cluster.doctor.commands import Answers, ask
from clusterlm.cluster.doctor.estimate import would_start
from clusterlm.cluster.doctor.facts import facts_of
from clusterlm.cluster.doctor.machine import folders_here, machine, version_here
from clusterlm.cluster.host import Host
from clusterlm.image_paths import images_dir
from clusterlm.paths import cache_dir, runs_dir
from clusterlm.spec.probe import Probe, ProbedPartition
from clusterlm.spec.profile import Profile, ProfileResources
from clusterlm.spec.resources import GpuRequest


@dataclass(frozen=True)
class Asked:
    """What the user wants to be looked at.

    Attributes:
        profile: of the cluster; None: nobody wrote one.
        partition, account, qos: win over the profile's.
        folders: further ones, beside those of clusterlm.
    """

    profile: Profile | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    folders: tuple[Path, ...] = ()

    @property
    def resources(self) -> ProfileResources:
        """The profile's, with what was asked for in place of it."""
        given = {"partition": self.partition, "account": self.account, "qos": self.qos}
        own = (self.profile.resources if self.profile else None) or ProfileResources()
        return own.model_copy(update={key: value for key, value in given.items() if value})

    @property
    def all_folders(self) -> tuple[Path, ...]:
        """Folders that every node must see, the first the one where the probe's results lie."""
        mounts = self.profile.mounts if self.profile else []
        sources = [Path(mount.partition(":")[0]) for mount in mounts]
        own = (runs_dir(), cache_dir(), images_dir(), Path(sys.prefix))
        return tuple(dict.fromkeys((*own, *sources, *self.folders)))


def examine(host: Host, asked: Asked, tell: Callable[[str], None]) -> Probe:
    """What can be known without a job.

    Raises:
        SlurmUnreachable: no controller answers.
    """
    tell("asking Slurm")
    answers = ask(host, getpass.getuser())
    fields = facts_of(answers)
    notes = _unanswered(answers, fields["accounting"])
    fields |= _ways_to_ask_for_gpus(host, asked, fields["partitions"], notes)
    return Probe(
        **fields,
        time=time.time(),
        clusterlm=__version__,
        folders=folders_here(asked.all_folders),
        machine=machine(host),
        notes=tuple(notes),
    )


def examine_machine(host: Host, asked: Asked) -> Probe:
    """This machine alone, where there is no Slurm."""
    return Probe(
        time=time.time(),
        clusterlm=__version__,
        folders=folders_here((*asked.all_folders[:3], *asked.folders)),
        machine=machine(host),
        enroot=version_here(host, "enroot"),
        apptainer=version_here(host, "apptainer") or version_here(host, "singularity"),
    )


def options_of(asked: ProfileResources) -> list[str]:
    """Options of sbatch for a small job under a profile."""
    given = {
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "reservation": asked.reservation,
        "constraint": asked.constraint,
        "exclude": asked.exclude,
    }
    return [f"--{key}={value}" for key, value in given.items() if value]


def gpu_options(probe: Probe, asked: ProfileResources, count: int) -> list[str]:
    """The option of sbatch that asks for GPUs on each node, as this cluster takes it."""
    accepted = probe.gpu_requests_accepted
    way = asked.gpu_request or (accepted[0] if accepted else "gres")
    kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
    head = "gpu:" if way == "gres" else ""
    return [f"--{way}={head}{kind}{count}"]


def _unanswered(answers: Answers, accounting: bool | None) -> list[str]:
    """What could not be asked; where there is no database, its silence is no news."""
    expected = () if accounting is not False else ("associations", "user", "qos", "accounting")
    return [f"{what}: {said}" for what, said in answers.refusals.items() if what not in expected]


def _ways_to_ask_for_gpus(
    host: Host, asked: Asked, partitions: Sequence[ProbedPartition], notes: list[str]
) -> dict[str, Any]:
    resources = asked.resources
    chosen = _gpu_partition(partitions, resources.partition)
    if chosen is None or chosen.state != "UP":
        return {}
    options = options_of(resources.model_copy(update={"partition": chosen.name}))
    accepted: list[GpuRequest] = []
    ways: tuple[tuple[GpuRequest, str], ...] = (
        ("gres", "--gres=gpu:1"),
        ("gpus-per-node", "--gpus-per-node=1"),
    )
    for way, option in ways:
        estimate = would_start(host, ["--nodes=1", "--time=5", option, *options])
        if not estimate.refusal:
            accepted.append(way)
        else:
            notes.append(f"sbatch refuses {option} in {chosen.name}: {estimate.refusal}")
    return {"gpu_requests_accepted": tuple(accepted)}


def _gpu_partition(
    partitions: Sequence[ProbedPartition], name: str | None
) -> ProbedPartition | None:
    """The one that is named, else the default one, else the first, with GPUs."""
    fitting = [p for p in partitions if p.has_gpus and name in (None, p.name)]
    return next((p for p in fitting if p.is_default), fitting[0] if fitting else None)
