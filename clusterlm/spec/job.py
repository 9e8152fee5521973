"""The whole job.yaml. What its keys must be to each other stands in `rules.py`."""

from __future__ import annotations

from clusterlm.spec.base import (
    LEFT_OUT,
    EnvName,
    EnvValue,
    RunName,
    SlurmWord,
    Spec,
    without_plugins,
)
from clusterlm.spec.data import Data
from clusterlm.spec.image import Image, Runtime
from clusterlm.spec.model import Model
from clusterlm.spec.recovery import Recovery
from clusterlm.spec.resources import Resources
from clusterlm.spec.train import Train

LOCAL = "local"
SLURM = "slurm"


class Job(Spec):
    """One training, from data to model."""

    name: RunName
    """Name of the run: lower case, digits, `.`, `_`, `-`; at most 64 characters."""
    cluster: SlurmWord = LOCAL
    """`local` (this machine, no scheduler), `slurm` (sbatch on this machine), or a cluster of
    clusters.yaml by its name: its profile fills in what the job leaves out (docs/clusters.md)."""
    image: Image | None = None
    """The container; leave it out to run in the current Python."""
    resources: Resources = LEFT_OUT
    """Nodes, GPUs, time."""
    data: Data | None = None
    """What is trained on; may be left out only with train.command."""
    model: Model | None = None
    """Which model; may be left out only with train.command."""
    train: Train = LEFT_OUT
    """How it is trained."""
    recovery: Recovery = LEFT_OUT
    """What happens when something breaks."""
    env: dict[EnvName, EnvValue] = {}
    """Environment variables of every rank."""
    secrets: list[EnvName] = []
    """Names of environment variables whose values travel in a private file."""

    @property
    def runtime(self) -> Runtime:
        """What starts the container; "none" when the job runs in the current Python."""
        if self.image is None:
            return "none"
        return self.image.runtime or ("docker" if self.cluster == LOCAL else "pyxis")

    @property
    def encode_tasks(self) -> int:
        """Tasks of the job array that tokenizes; 1: there is none, the data phase is one job."""
        return self.data.tasks if self.data and self.cluster != LOCAL else 1

    @property
    def gradient_accumulation(self) -> int:
        """Forward passes per optimizer step, on every rank."""
        train = self.train
        if train.gradient_accumulation is not None or train.global_batch_size is None:
            return train.gradient_accumulation or 1
        return train.global_batch_size // (train.micro_batch_size * self.resources.world_size) or 1

    @property
    def global_batch_size(self) -> int:
        """Blocks per optimizer step over all ranks."""
        ranks = self.resources.world_size
        return self.train.micro_batch_size * self.gradient_accumulation * ranks


def build_validators() -> None:
    """Build the validators of all sections at once."""
    with without_plugins():
        Job.model_rebuild()
