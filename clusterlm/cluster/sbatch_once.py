"""sbatch, and the truth about it: a send gives one job, also when sbatch does not say which.

    sbatch prints an id        that job
    refuses (`Invalid ...`)    SlurmError, nothing is in the queue
    anything else              not known: a controller that is busy takes the job and answers late.
                               Claims and queue are looked up before it is called again.

"Not in the queue" counts when it is said again SETTLE_S later: a request that reached the
controller may still wait there. "No answer" never counts. A process that is killed here leaves
`<token>.sbatch`; the next with the same token takes that as "not known". sbatch itself holds the
lock, so that who comes next waits for one that outlived its parent.

What slips through all of this meets the guard of `supervise/batch_step.py`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.host import Completed, Host
from clusterlm.cluster.locks import alone
from clusterlm.cluster.sent_jobs import Sent, look_up
from clusterlm.cluster.slurm import CLIENT_TIMEOUT_S, last_words
from clusterlm.errors import SendUnclear, SlurmError, SlurmUnreachable
from clusterlm.node.files import write_atomically
from clusterlm.paths import PRIVATE_DIR, Phase, RunPaths
from clusterlm.supervise.owner import VOID, Owner, claim_file, owner_of, sent_file, take

SBATCH_TIMEOUT_S = 150.0
"""sbatch gives up by itself, after MessageTimeout (10 s; busy sites up to 100 s) for each try."""
PATIENCE_S = 120.0
"""With a controller that does not answer."""
SETTLE_S = 5.0
LONGEST_PAUSE_S = 10.0

# The connection's errors; all else that sbatch says when it fails is an answer of the controller.
_NO_ANSWER = re.compile(
    r"timed out|unable to contact|connection (?:refused|reset|timed)|connect failure|zero bytes"
    r"|not connected|broken pipe|communication|unexpected message|insane message|header lengths"
    r"|standby mode|controller not responding|temporarily unavailable|temporarily unable"
    r"|unspecified error|munge|protocol authentication|no route to host|unable to resolve"
    r"|interrupted",
    re.I,
)
_REFUSED = re.compile(r"sbatch: (?:error|fatal|unrecognized|invalid|.*option)", re.I)


@dataclass
class Sending:
    """One send under way."""

    run: RunPaths
    phase: Phase
    token: str
    text: str
    """Of the submission file."""
    host: Host
    tell: Callable[[str], None]
    patience_s: float = PATIENCE_S
    settle_s: float = SETTLE_S

    @property
    def file(self) -> Path:
        return sent_file(self.run, self.token)


def sbatch_once(sending: Sending) -> str:
    """Have one job in the queue for this token, and give its id; any number of calls give the same.

    Raises:
        SlurmError: sbatch refused; its own words are in the text.
        SendUnclear: nobody could say in time whether the job is there.
    """
    run, token = sending.run, sending.token
    with alone(lock_of(run, token)) as held:
        if owner := owner_of(run, token):
            refuse_void(run, owner)
            return owner.job_id
        found = _find_or_send(sending, held)
        owner = take(run, token, Owner(found[0]))
        _end_the_others([job for job in found if job != owner.job_id], sending.host)
        refuse_void(run, owner)
        return owner.job_id


def lock_of(run: RunPaths, token: str) -> Path:
    """Held by whoever sends under this token; its folder is made."""
    claim = claim_file(run, token)
    claim.parent.mkdir(exist_ok=True, mode=PRIVATE_DIR)
    return claim.with_suffix(".lock")


def refuse_void(run: RunPaths, owner: Owner) -> None:
    """Raise when a resume has put an end to this send."""
    if owner.job_id == VOID:
        raise SlurmError(f"{run.name} was resumed since: this submit has nothing left to do")


def _find_or_send(sending: Sending, held: int) -> list[str]:
    until = time.monotonic() + sending.patience_s
    trouble = "an earlier call was cut off" if sending.file.exists() else ""
    while True:
        if trouble and (found := _find(sending, until, trouble)):
            return found
        if trouble and time.monotonic() > until:
            # looked up just now: there is none
            sending.file.unlink(missing_ok=True)
            raise SlurmError(f"{trouble} (tried for {sending.patience_s:.0f} s)")
        write_atomically(sending.file, sending.text)
        done = _call_sbatch(sending.file, held)
        if done.is_ok and (match := re.search(r"\bjob (\d+)", done.out)):
            return [match[1]]
        if is_refusal(done):
            sending.file.unlink(missing_ok=True)
            raise SlurmError(_words(done))
        trouble = f"sbatch: {last_words(done)}"
        sending.tell(f"{trouble}; looking whether the job is in the queue all the same")


def _call_sbatch(file: Path, held: int) -> Completed:
    argv = ["sbatch", str(file)]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SBATCH_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            # killed or not, it holds the lock until it has ended
            pass_fds=[held],
            check=False,
        )
    except FileNotFoundError as error:
        raise SlurmError("sbatch is not on this machine") from error
    except subprocess.TimeoutExpired:
        return Completed(tuple(argv), None, "", f"no answer in {SBATCH_TIMEOUT_S:.0f} s")
    return Completed(tuple(argv), done.returncode, done.stdout, done.stderr)


def is_refusal(done: Completed) -> bool:
    """Whether sbatch has said that there is no job. In doubt it has not. Pure."""
    if done.is_ok or done.code is None or done.code < 0 or _NO_ANSWER.search(done.err):
        return False
    return bool(_REFUSED.search(done.err)) or done.code in (126, 127)


def _words(done: Completed) -> str:
    """The lines that sbatch wrote, without its name before them."""
    lines = re.findall(r"sbatch: (?:error: |fatal: )?(.+)", done.err)
    if any("Invalid job array" in line for line in lines):
        lines.append("data.tasks is more than its arrays may have (MaxArraySize)")
    return "; ".join(dict.fromkeys(lines)) or last_words(done)


def _find(sending: Sending, until: float, trouble: str) -> list[str]:
    """Ids of the jobs that an unclear call has left; empty when there is none for certain."""
    sent = Sent(sending.run, sending.phase, sending.token, sending.file.stat().st_mtime)
    absent_since: float | None = None
    pause_s = 0.5
    while True:
        if owner := owner_of(sending.run, sending.token):
            # the job has started, and says so itself
            return [owner.job_id]
        try:
            found = look_up(sent, sending.host, time.time())
        except SlurmUnreachable as error:
            absent_since = None
            if time.monotonic() > until:
                raise SendUnclear(_unclear(sending, f"{trouble}; {error}")) from error
            _pause(pause_s, sending, trouble)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            continue
        now = time.monotonic()
        absent_since = absent_since or now
        if found or now - absent_since >= sending.settle_s:
            return found
        _pause(min(1.0, sending.settle_s), sending, trouble)


def _pause(seconds: float, sending: Sending, trouble: str) -> None:
    try:
        with _hearing():
            time.sleep(seconds)
    except KeyboardInterrupt:
        raise SendUnclear(_unclear(sending, f"{trouble}; interrupted")) from None


@contextmanager
def _hearing() -> Iterator[None]:
    """Let Ctrl-C end a wait, where signals are ignored because a send must be whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _unclear(sending: Sending, trouble: str) -> str:
    name = f"{sending.run.name}.{sending.phase}"
    key = sending.token.partition("-")[0]
    return (
        f"whether job {name} is in the queue is not known: {trouble}\n"
        f"  it may start yet, and would run once: nothing was taken back ({sending.run.root})\n"
        f"  look:   squeue -n {name}    and, when it has started:  "
        f"clusterlm status {sending.run.name}\n"
        f"  go on:  the same submit with  --key {key}  finds the job, or sends it"
    )


def _end_the_others(jobs: list[str], host: Host) -> None:
    """Take jobs that are too many out of the queue; one that stays ends at its start."""
    if jobs:
        host.run(["scancel", *jobs], timeout_s=CLIENT_TIMEOUT_S)
