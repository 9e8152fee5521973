"""The whole job.yaml, and the rules between its sections.

Rules that need only one section stand in that section's file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from clusterlm.spec.base import SLURM_WORD, EnvName, RunName, Spec
from clusterlm.spec.data import Data
from clusterlm.spec.image import Image
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
    cluster: Annotated[str, Field(pattern=SLURM_WORD)] = LOCAL
    """`local` (this machine, no scheduler) or `slurm` (sbatch on this machine)."""
    image: Image | None = None
    """The container; leave it out to run in the current Python."""
    resources: Resources = Resources()
    """Nodes, GPUs, time."""
    data: Data | None = None
    """What is trained on; may be left out only with train.command."""
    model: Model | None = None
    """Which model; may be left out only with train.command."""
    train: Train = Train()
    """How it is trained."""
    recovery: Recovery = Recovery()
    """What happens when something breaks."""
    env: dict[EnvName, str] = {}
    """Environment variables of every rank."""
    secrets: list[EnvName] = []
    """Names of environment variables whose values travel in a private file."""
