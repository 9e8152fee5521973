"""What the batch script of a phase becomes: first the guard, then submitit with the supervisor.

    python -u -m clusterlm.supervise.batch_step RUN_DIR PHASE TOKEN

The guard: of several jobs that were sent for the same one (sbatch timed out, was tried again, and
both came through) one goes on. The others end here, well and at once, and leave no trace in the
records of the run.

Nothing of the submitting command is needed: submitit would wait for a pickle that a killed submit
never put there, so the job writes its own when there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from clusterlm.node.files import has_appeared
from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths
from clusterlm.supervise.owner import Owner, take

# submitit counts time-outs and gives up after so many; the rule of progress decides here
NO_LIMIT = 1_000_000


def main(run_dir: str, phase: Phase, token: str) -> int:
    """Be the batch step, unless another job is; the exit code."""
    run = RunPaths(Path(run_dir))
    own = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ["SLURM_JOB_ID"]
    owner = take(run, token, Owner(own)).job_id
    if owner != own:
        print(f"job {own} is a second one of the same send; job {owner} does it: nothing to do")
        return 0
    write_missing_pickle(run, phase, own_name(os.environ))
    # here and not above: a job that is too many ends before the heavy imports
    from clusterlm.supervise import start

    return start.main(str(run.submitit))


def own_name(environ: Mapping[str, str]) -> str:
    """As submitit calls this job: 71, or 71_3 in an array."""
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ["SLURM_JOB_ID"]


def write_missing_pickle(run: RunPaths, phase: Phase, name: str) -> None:
    """Put the supervisor where submitit looks for it; a requeue finds its own there already."""
    from submitit.core.utils import DelayedSubmission, temporary_save_path

    from clusterlm.supervise.supervisor import Supervisor

    path = run.submitit / f"{name}_submitted.pkl"
    if has_appeared(path):
        return
    delayed = DelayedSubmission(Supervisor(str(run.root), phase))
    delayed.set_timeout(0, NO_LIMIT)
    before = os.umask(0o777 & ~PRIVATE_DIR)
    try:
        with temporary_save_path(path) as aside:
            delayed.dump(aside)
    finally:
        os.umask(before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], cast(Phase, sys.argv[2]), sys.argv[3]))
