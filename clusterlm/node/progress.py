"""What a training script tells clusterlm, and asks it.

Your own script may do the same:

    from clusterlm.node.codes import EXIT_RESUME
    from clusterlm.node.progress import refuse_if_fenced, report_progress, stop_requested

    for step in range(first, total):
        loss = train_one_step()
        report_progress(step=step, total_steps=total, loss=loss)
        if stop_requested():          # ask on rank 0 and broadcast: all must agree on the step
            refuse_if_fenced()        # before every save
            save(step)
            sys.exit(EXIT_RESUME)

Standard library only. Outside of a run (no CLUSTERLM_* in the environment) everything here does
nothing, so the same script runs by hand.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from clusterlm.node.files import has_appeared, read_json, write_json
from clusterlm.node.records import Progress

REPORT_EVERY_S = 1.0
HIGH_WAIT = 0.1
"""Share of the time; from here on waiting for data is worth a word."""

_last_report = float("-inf")


class Fenced(Exception):
    """A newer attempt is alive: this process belongs to an older one and must write no more."""


def report_progress(
    *,
    step: int | None = None,
    total_steps: int | None = None,
    loss: float | None = None,
    tokens_per_s: float | None = None,
    eta_s: float | None = None,
    text: str | None = None,
    tokens_per_s_per_gpu: float | None = None,
    mfu: float | None = None,
    data_wait: float | None = None,
    eval_loss: float | None = None,
    perplexity: float | None = None,
    evaluated: int | None = None,
    force: bool = False,
) -> bool:
    """Write `$CLUSTERLM_PROGRESS_FILE`, at most once a second; says whether it was written.

    `mfu` and `data_wait` are shares of 1; `evaluated` counts the batches of an evaluation, so that
    a long one is not taken for a hang; `text` is the phase's own word for what it does
    ("tokenizing 34 MB of 120 MB"); `force` is for the last report of a phase. Does nothing on other
    ranks than 0. A report that cannot be written ends no training.
    """
    global _last_report
    path = os.environ.get("CLUSTERLM_PROGRESS_FILE")
    now = time.monotonic()
    if not path or os.environ.get("RANK", "0") != "0":
        return False
    is_last = step is not None and step == total_steps
    if not force and not is_last and now - _last_report < REPORT_EVERY_S:
        return False
    _last_report = now
    phase = os.environ.get("CLUSTERLM_PHASE")
    report = Progress(
        phase=phase,
        step=step,
        total_steps=total_steps,
        loss=loss,
        tokens_per_s=tokens_per_s,
        eta_s=eta_s,
        text=text,
        time=time.time(),
        tokens_per_s_per_gpu=tokens_per_s_per_gpu,
        mfu=mfu,
        data_wait=data_wait,
        eval_loss=eval_loss,
        perplexity=perplexity,
        evaluated=evaluated,
    )
    try:
        write_json(Path(path), report.to_dict())
    except OSError as error:
        print(f"cannot write {path}: {error}", flush=True)
        return False
    return True


def stop_requested() -> bool:
    """Whether the run asks to save and exit with `EXIT_RESUME`: a few microseconds, often less."""
    path = os.environ.get("CLUSTERLM_STOP_FILE")
    return bool(path) and has_appeared(Path(str(path)))


def refuse_if_fenced() -> None:
    """Call before each write that a newer attempt would not survive: checkpoints, the model.

    Raises:
        Fenced: the LEASE of the run names a newer attempt than `$CLUSTERLM_ATTEMPT`.
    """
    run_dir, own = os.environ.get("CLUSTERLM_RUN_DIR"), os.environ.get("CLUSTERLM_ATTEMPT")
    if not run_dir or not own:
        return
    lease = read_json(Path(run_dir) / "LEASE")
    holder = lease.get("attempt") if lease else None
    if isinstance(holder, int) and holder > int(own):
        raise Fenced(f"attempt {holder} holds the lease of {run_dir}; this is attempt {own}")
