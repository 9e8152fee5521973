"""A run in a tiny image, started as `submit` does after it has built one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from clusterlm.cluster import launcher
from clusterlm.cluster.run_folder import Resolved, make_run_folder
from clusterlm.container import container_of
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.spec.load import load_job
from tests.containers.tiny_image import RECIPE

HERE = Path(__file__).parent
COUNTING = HERE.parent / "slurm/scripts/counting.py"
LOOK = HERE / "look.py"


def start(home: Path, job: dict[str, Any], image: str, *, nodes: int = 1) -> RunPaths:
    """Start the training of `job` in `image`; the environment is that of this process."""
    file = home / f"{job['name']}.yaml"
    file.write_text(yaml.safe_dump(job))
    loaded = load_job(file)
    if loaded.job.cluster == "local":
        asked = loaded.job.resources.model_copy(update={"nodes": nodes})
        loaded = replace(loaded, job=loaded.job.model_copy(update={"resources": asked}))
    run = RunPaths(runs_dir() / loaded.job.name)
    container = container_of(loaded.job, run, RECIPE, image)
    make_run_folder(run, Resolved(loaded, {}, None, container), "0" * 32)
    if loaded.job.cluster == "local":
        launcher.submit_locally(run, "train")
    else:
        launcher.submit_to_slurm(run, loaded.job, "train", None)
    return run
