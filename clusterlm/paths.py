"""Where everything of a run lies. The run directory is the only seam between the rooms.

    <runs_dir>/<run>/
      job.yaml  spec.json  lock.json       what was asked, as written and as resolved
      code.diff                            changes since the commit that lock.json names
      encode.sbatch  preprocess.sbatch  train.sbatch     what was submitted
      preprocess.sh  torchrun.sh           what a node runs     deepspeed.json  secrets.json
      container.sh | pyxis.options         what starts it in a container, when there is an image
      events.jsonl                         append-only; a run's history is a fold of it
      supervisor.json                      heartbeat of the batch step, with the nodes it sees
      cancel.json                          somebody asked for the end of the run
      LEASE                                the attempt that may write
      claims/<token>.json                  the job that does what was sent under this token
      attempts/<n>/  preprocess/<n>/       one folder for each attempt of the phase
        logs/{node<r>,rank<k>,step}.log  exits/rank<k>.json  heartbeats/node<r>.json
        progress.json  stop.json  abort.json  wiring.json  exit.json
      encode/<array>/end.json              how one task of this job array has ended them all
      encode/<array>/<k>/                  task k: events.jsonl, supervisor.json, <n>/
      metrics.jsonl  checkpoints/  model/  submitit/

Knows names and nothing of their content.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Phase = Literal["encode", "preprocess", "train"]
"""`encode` only with `data.tasks`: its tasks tokenize side by side what `preprocess` then uses."""
PHASES: tuple[Phase, ...] = ("encode", "preprocess", "train")

PRIVATE_DIR = 0o700


def runs_dir() -> Path:
    """`$CLUSTERLM_RUNS_DIR`, else the XDG data folder: the same from whatever folder one asks."""
    return own_folder("CLUSTERLM_RUNS_DIR", "XDG_DATA_HOME", ".local/share", "runs")


def cache_dir() -> Path:
    """`$CLUSTERLM_CACHE_DIR`, else the XDG cache folder; prepared data lies here by fingerprint."""
    return own_folder("CLUSTERLM_CACHE_DIR", "XDG_CACHE_HOME", ".cache", "data")


def own_folder(own: str, xdg: str, fallback: str, leaf: str) -> Path:
    """The folder that the variable `own` names, else LEAF in ours below that of XDG."""
    if os.environ.get(own):
        return Path(os.environ[own]).expanduser().absolute()
    base = Path(os.environ.get(xdg) or Path.home() / fallback)
    return base.expanduser().absolute() / "clusterlm" / leaf


@dataclass(frozen=True)
class AttemptPaths:
    """One attempt of one phase."""

    root: Path

    @property
    def number(self) -> int:
        return int(self.root.name)

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def exits(self) -> Path:
        return self.root / "exits"

    @property
    def heartbeats(self) -> Path:
        return self.root / "heartbeats"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

    @property
    def stop(self) -> Path:
        """Ask to save and end; carries a reason."""
        return self.root / "stop.json"

    @property
    def abort(self) -> Path:
        """Ask to end at once: the attempt is lost."""
        return self.root / "abort.json"

    @property
    def wiring(self) -> Path:
        return self.root / "wiring.json"

    @property
    def exit(self) -> Path:
        return self.root / "exit.json"

    def rank_log(self, rank: int) -> Path:
        return self.logs / f"rank{rank}.log"

    def node_log(self, node_rank: int) -> Path:
        return self.logs / f"node{node_rank}.log"

    def rank_exit(self, rank: int) -> Path:
        return self.exits / f"rank{rank}.json"

    def node_heartbeat(self, node_rank: int) -> Path:
        return self.heartbeats / f"node{node_rank}.json"

    def make(self) -> None:
        """Make the folders; an attempt number is used once, so an existing root is a bug."""
        # not `parents`: a run directory that somebody has deleted must not come back as a skeleton
        self.root.parent.mkdir(exist_ok=True, mode=PRIVATE_DIR)
        self.root.mkdir(mode=PRIVATE_DIR)
        for folder in (self.logs, self.exits, self.heartbeats):
            folder.mkdir(mode=PRIVATE_DIR)


@dataclass(frozen=True)
class RunPaths:
    """One run."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def job_yaml(self) -> Path:
        return self.root / "job.yaml"

    @property
    def spec(self) -> Path:
        return self.root / "spec.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock.json"

    @property
    def code_diff(self) -> Path:
        """What was changed in the project since its commit."""
        return self.root / "code.diff"

    @property
    def own(self) -> Path:
        """Folder of the records: events, heartbeat, attempts."""
        return self.root

    @property
    def events(self) -> Path:
        return self.own / "events.jsonl"

    @property
    def supervisor(self) -> Path:
        return self.own / "supervisor.json"

    @property
    def cancel(self) -> Path:
        return self.root / "cancel.json"

    @property
    def lease(self) -> Path:
        return self.root / "LEASE"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def deepspeed(self) -> Path:
        return self.root / "deepspeed.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def submitit(self) -> Path:
        return self.root / "submitit"

    def sbatch(self, phase: Phase) -> Path:
        return self.root / f"{phase}.sbatch"

    def node_script(self, phase: Phase) -> Path:
        return self.root / ("torchrun.sh" if phase == "train" else "preprocess.sh")

    @property
    def container_script(self) -> Path:
        """`bash container.sh SCRIPT` runs SCRIPT in the container (docker, enroot, apptainer)."""
        return self.root / "container.sh"

    @property
    def pyxis_options(self) -> Path:
        """Options of srun, one a line."""
        return self.root / "pyxis.options"

    def attempts(self, phase: Phase) -> Path:
        names = {"encode": "", "preprocess": "preprocess", "train": "attempts"}
        return self.own / names[phase]

    def attempt(self, phase: Phase, number: int) -> AttemptPaths:
        return AttemptPaths(self.attempts(phase) / str(number))

    def attempt_numbers(self, phase: Phase) -> list[int]:
        """Numbers of the attempts made so far, ascending."""
        folder = self.attempts(phase)
        if not folder.is_dir():
            return []
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())

    def task(self, array: str, number: int) -> TaskPaths:
        """One task of the job array `array`, by its number in it, from 0."""
        return TaskPaths(self.root, array, number)


@dataclass(frozen=True)
class TaskPaths(RunPaths):
    """A task of the phase `encode`: it keeps its records in a folder, all else is the run's.

    Many hosts write at once, and lines that they append to one file over NFS may be lost.
    """

    array: str
    number: int

    @property
    def own(self) -> Path:
        return self.root / "encode" / self.array / str(self.number)

    @property
    def end(self) -> Path:
        """A task has ended for good, and with it the run: the others stop."""
        return self.own.with_name("end.json")


@dataclass(frozen=True)
class CachePaths:
    """The prepared data of one fingerprint; shared by every run that asks for the same."""

    root: Path
    model: str | None = None
    """Key of the resized model that goes with it."""

    @classmethod
    def of(cls, fingerprint: str, model: str | None = None) -> CachePaths:
        return cls(cache_dir() / fingerprint, model)

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def ready(self) -> Path:
        """Written last; without it nothing here may be used."""
        return self.root / "READY"

    @property
    def tokenizer(self) -> Path:
        return self.root / "tokenizer"

    @property
    def claim(self) -> Path:
        """Beside the folder, so that it exists before: which job prepares this, see `claims.py`."""
        model = f".{self.model}" if self.model else ""
        return self.root.with_name(f"{self.root.name}{model}.claim.json")

    @property
    def lock(self) -> Path:
        return self.root.with_name(f"{self.root.name}.lock")
