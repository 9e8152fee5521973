"""What a job runs: submitit's own start, once its pickles are known to be this user's.

    python -u -m clusterlm.supervise.start RUN_DIR/submitit

Loading a pickle is running code. Whoever can write into the run's folder could have put another one
there, so that is looked at first: in the job itself, on the node, because the folder may have been
opened to others since it was made.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from clusterlm.node.files import has_appeared
from clusterlm.node.private import NotPrivate, refuse_open_folder
from clusterlm.paths import RunPaths
from clusterlm.supervise.causes import Cause, State
from clusterlm.supervise.history import record

SHARED_FOLDER_WAIT_S = 60.0
"""A node may see a new folder some seconds late; submitit waits as long for its pickle."""


def main(folder: str) -> int:
    """Run the job of a folder of pickles; the exit code."""
    submitit_dir = Path(folder)
    until = time.monotonic() + SHARED_FOLDER_WAIT_S
    while not has_appeared(submitit_dir) and time.monotonic() < until:
        time.sleep(1.0)
    try:
        # the pickles' folder, the run, and what the run lies in
        for one in (submitit_dir, submitit_dir.parent):
            refuse_open_folder(one)
    except (NotPrivate, OSError) as error:
        text = f"not started: {error}"
        print(f"clusterlm: {text}", file=sys.stderr, flush=True)
        _tell(RunPaths(submitit_dir.parent), text)
        return 1
    from submitit.core.submission import process_job

    process_job(submitit_dir)
    return 0


def _tell(run: RunPaths, text: str) -> None:
    fields = {"state": State.STOPPED.value, "cause": Cause.LAUNCH.name, "evidence": text}
    # it may no longer be ours to write to
    with suppress(OSError):
        record(run, "ended", **fields)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
