"""The training on one page: what `clusterlm train RUN_DIR` does in every rank under torchrun.

    rank and spec -> process group -> data -> arguments -> model -> train -> save, open again
    this file        `session.py` has the rest on one page

torch, transformers, DeepSpeed are imported inside `run_training`: what they read from the
environment meanwhile must be set before, and their time belongs to the start-up that is reported.
"""

from __future__ import annotations

import os
from pathlib import Path

from clusterlm.errors import Fenced, TrainError
from clusterlm.node.codes import EXIT_FENCED, EXIT_RESUME
from clusterlm.spec.job import Job
from clusterlm.train.clock import StartClock
from clusterlm.train.rank import Rank, prepare_libraries
from clusterlm.train.stop import StopRequest
from clusterlm.weights.resized import with_resized_model


def run_training(run_dir: Path) -> int:
    """Train, or go on training, the model of a run.

    Returns:
        0 when the model is trained and saved, 85 when asked to stop: a checkpoint is sealed.

    Raises:
        TrainError: cannot start or go on; the text says what to do.
    """
    clock = StartClock.of_this_process()
    rank = Rank.read(run_dir, os.environ)
    stop = StopRequest(reads_file=rank.is_first)
    stop.catch_sigterm()
    job = with_resized_model(read_job(rank.run.spec), rank.run)
    prepare_libraries(job, rank)
    from clusterlm.train.session import train_model

    clock.mark("imports")
    try:
        finished = train_model(job, rank, stop, clock)
    except Fenced as error:
        print(f"[clusterlm] {error}", flush=True)
        return EXIT_FENCED
    return 0 if finished else EXIT_RESUME


def read_job(spec: Path) -> Job:
    """The resolved spec of the run."""
    try:
        return Job.model_validate_json(spec.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainError(f"{spec} is not there: no run directory, or none of clusterlm") from None
