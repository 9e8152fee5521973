"""`train.report_to`: wandb, tensorboard or another tracker, set up before the model is loaded.

A package that is missing is said in the first second. For wandb all attempts of a run are one run
there: its id comes from the name and the birth of our run, so a resume goes on with the curves.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, MutableMapping
from typing import Any

from clusterlm.errors import TrainError
from clusterlm.node.files import read_jsonl
from clusterlm.paths import RunPaths

# tracker -> modules of which one must be there
PACKAGES = {
    "wandb": ("wandb",),
    "tensorboard": ("torch.utils.tensorboard", "tensorboardX"),
    "mlflow": ("mlflow",),
    "comet_ml": ("comet_ml",),
    "trackio": ("trackio",),
    "swanlab": ("swanlab",),
    "clearml": ("clearml",),
    "neptune": ("neptune",),
}
# what torch's own module needs beside itself
NEEDS = {"torch.utils.tensorboard": "tensorboard"}


def trackers(report_to: Any) -> list[str]:
    """The trackers asked for."""
    asked = [report_to] if isinstance(report_to, str) else list(report_to or [])
    return [name for name in asked if name not in ("none", "all")]


def refuse_missing_trackers(report_to: Any) -> None:
    """Look for their packages.

    Raises:
        TrainError: one is not installed.
    """
    for name in trackers(report_to):
        modules = PACKAGES.get(name, ())
        if modules and not any(_is_there(module) for module in modules):
            package = "tensorboard" if name == "tensorboard" else name
            raise TrainError(
                f"train.report_to: {name} is not installed here; add {package} to image.pip, or "
                f"`pip install {package}` into this Python, or leave report_to out"
            )


def tracker_environment(
    report_to: Any, run: RunPaths, job_name: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """What the trackers read from the environment, unless the job has set it. Pure but for events.

    Args:
        report_to: as in the job.
        run: the run.
        job_name: the project's name where none is given.
        environ: of this process.
    """
    asked = trackers(report_to)
    values: dict[str, str] = {}
    if "wandb" in asked:
        values |= {
            "WANDB_PROJECT": job_name,
            "WANDB_RUN_ID": wandb_id(run),
            "WANDB_RESUME": "allow",
            "WANDB_DIR": str(run.root),
        }
    if "tensorboard" in asked:
        values["TENSORBOARD_LOGGING_DIR"] = str(run.root / "tensorboard")
    return {name: value for name, value in values.items() if name not in environ}


def wandb_id(run: RunPaths) -> str:
    """The same for all attempts and resumes of a run; another for a later run of the same name."""
    events, _ = read_jsonl(run.events)
    born = events[0].get("time") if events else ""
    digest = hashlib.sha256(f"{run.root} {born}".encode()).hexdigest()[:10]
    return f"{run.name}-{digest}"


def tracker_notes(report_to: Any, environ: Mapping[str, str]) -> list[str]:
    """What is worth knowing before the first step."""
    if "wandb" not in trackers(report_to) or environ.get("WANDB_MODE") in ("offline", "disabled"):
        return []
    notes = [
        "wandb needs the network on this node; without one set env: {WANDB_MODE: offline} and send "
        f"the curves later with: wandb sync {environ.get('WANDB_DIR', '.')}/wandb/offline-run-*"
    ]
    if "WANDB_API_KEY" not in environ:
        notes.append("WANDB_API_KEY is not set: add it to `secrets`, unless this node is logged in")
    return notes


def start_tracking(
    report_to: Any, run: RunPaths, job_name: str, environ: MutableMapping[str, str]
) -> list[str]:
    """Prepare the environment of this process; gives notes for the log.

    Raises:
        TrainError: a package is missing.
    """
    refuse_missing_trackers(report_to)
    environ.update(tracker_environment(report_to, run, job_name, environ))
    return tracker_notes(report_to, environ)


def _is_there(module: str) -> bool:
    try:
        found = importlib.util.find_spec(module) is not None
        needed = NEEDS.get(module)
        return found and (needed is None or importlib.util.find_spec(needed) is not None)
    except ModuleNotFoundError:
        return False
