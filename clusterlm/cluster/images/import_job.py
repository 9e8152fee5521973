"""The import as a job on one node, for sites where login nodes forbid it: sent and waited for.

Whoever waits may be interrupted: the job is then taken back. What it did is told by the seal of the
file and not by Slurm's word, which may be missing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from clusterlm.cluster.host import Host
from clusterlm.cluster.images.progress import Screen
from clusterlm.cluster.images.record import read_seal
from clusterlm.cluster.images.trouble import SAID, import_trouble
from clusterlm.cluster.log_text import readable
from clusterlm.cluster.slurm import ask_sacct, ask_squeue, last_words, scancel
from clusterlm.cluster.tail import last_lines
from clusterlm.errors import ImageError, SlurmError, SlurmUnreachable
from clusterlm.node.files import write_atomically
from clusterlm.render import Import, render_import_sbatch
from clusterlm.spec.job import Job
from clusterlm.supervise import environment
from clusterlm.supervise.slurm_states import JobRow, Life

LOOK_EVERY_S = 5.0
SEEN_WITHIN_S = 60.0
"""So long a shared folder may hide a file that another node has made."""
LINES = 15
_PASS_PREFIXES = ("ENROOT_", "APPTAINER_", "CLUSTERLM_IMAGES_DIR", "XDG_CONFIG_HOME")


def import_by_slurm(
    job: Job,
    asked: Import,
    script: Path,
    host: Host,
    screen: Screen,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send the script as a job, and wait for its end.

    Raises:
        SlurmError: sbatch refused it.
        ImageError: it ended without a whole file.
    """
    batch = script.with_name("import.sbatch")
    write_atomically(batch, render_import_sbatch(job, asked.image, script))
    job_id = _send(batch, host)
    with screen:
        screen.step(f"{asked.program} import of {asked.source}: job {job_id}")
        try:
            row = _wait(job_id, asked.file, script.parent, host, screen, sleep)
        except BaseException:
            scancel(host, [job_id])
            raise
    for _ in range(int(SEEN_WITHIN_S)):
        if read_seal(asked.file):
            return
        if row is None or row.state != "COMPLETED":
            break
        sleep(1.0)
    said = _log_lines(script.parent, job_id, LINES)
    state = f"{row.state}{row.by_whom}" if row else "unknown to Slurm"
    where = "\n".join(f"  {file}" for file in _logs(script.parent, job_id))
    raise ImageError(f"job {job_id} ({state}): {import_trouble(asked, said)}\n{where}")


def _send(batch: Path, host: Host) -> str:
    names = sorted(
        {*environment.for_submission(os.environ)}
        | {name for name in os.environ if name.startswith(_PASS_PREFIXES)}
    )
    # names, not values: sbatch reads them from its own environment, and nothing else goes along
    argv = ["sbatch", "--parsable", f"--export={','.join(names)}", str(batch)]
    done = host.run(argv, timeout_s=60.0)
    # "123;cluster" where several are known
    found = re.match(r"(\d+)", done.out.strip())
    if not done.is_ok or found is None:
        raise SlurmError(f"sbatch refused the import: {last_words(done)}")
    return found[1]


def _wait(
    job_id: str,
    file: Path,
    folder: Path,
    host: Host,
    screen: Screen,
    sleep: Callable[[float], None],
) -> JobRow | None:
    """The job's last row; None when neither squeue nor sacct knows it any more."""
    misses = 0
    while True:
        try:
            row = _look(host, job_id)
        except SlurmUnreachable as error:
            # blind is not failed
            screen.detail(str(error))
            row, misses = None, 0
        else:
            misses = misses + 1 if row is None else 0
            if (row and row.life is Life.ENDED) or misses >= 3:
                return row
            if row:
                screen.detail(_doing(row, folder))
        if read_seal(file) and row is None:
            return None
        sleep(LOOK_EVERY_S)


def _look(host: Host, job_id: str) -> JobRow | None:
    rows = ask_squeue(host, [job_id]).get(job_id)
    if not rows:
        rows = ask_sacct(host, [job_id]).get(job_id)
    return rows[-1] if rows else None


def _doing(row: JobRow, folder: Path) -> str:
    if row.life is Life.WAITING:
        return f"in the queue: {row.reason_words or row.state.lower()}"
    said = _log_lines(folder, row.job_id, 1)
    return f"on {row.nodes}: {said[-1].removeprefix(SAID) if said else 'started'}"


def _logs(folder: Path, job_id: str) -> Sequence[Path]:
    return [folder / f"{job_id}_0_log.{end}" for end in ("out", "err")]


def _log_lines(folder: Path, job_id: str, count: int) -> list[str]:
    lines = []
    for file in _logs(folder, job_id):
        if file.exists():
            lines += [readable(raw) for raw in last_lines(file, count)[0]]
    return [line for line in lines if line.strip()]
