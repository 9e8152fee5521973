"""States of a run, causes of an end, and what each of them allows. One table, one place.

A cause is read off evidence (a record, a log line, a silent node). What may follow from it is
written beside it, so that `judge` stays a list of questions and not of special cases.
"""

from __future__ import annotations

import re
from enum import Enum


class State(str, Enum):
    """State of a run, as `status` shows it."""

    PENDING = "PENDING"
    PREPROCESSING = "PREPROCESSING"
    STARTING = "STARTING"
    TRAINING = "TRAINING"
    STALLED = "STALLED"
    RETRYING = "RETRYING"
    STOPPING = "STOPPING"
    DONE = "DONE"
    STOPPED = "STOPPED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """Nothing changes any more unless somebody resumes. UNKNOWN is blind, never an end."""
        return self in (State.DONE, State.STOPPED, State.CANCELLED)


class Restart(Enum):
    """What a cause allows."""

    FREE = "a stop from outside: resume, costs no attempt"
    WHILE_PROGRESS = "retry while checkpoints advance"
    ONCE = "one confirmation, then stop: a second try costs GPU hours and ends the same"
    NEVER = "stop at once"


# a run goes on with what was submitted; a mended YAML must be named
WITH_JOB = " (and --job JOB, if the YAML was changed)"


class Cause(Enum):
    """Why an attempt or a run ended: words for people, what may follow, what to do."""

    DONE = ("done", Restart.NEVER, "")
    CANCELLED = ("cancelled", Restart.NEVER, "go on with: clusterlm resume {run}")
    TIME_LIMIT = (
        "the job reached its time limit",
        Restart.FREE,
        "go on with: clusterlm resume {run}",
    )
    PREEMPTED = (
        "the scheduler took the nodes away",
        Restart.FREE,
        "go on with: clusterlm resume {run}",
    )
    RANK_FAILED = (
        "a rank ended with an error",
        Restart.WHILE_PROGRESS,
        "read its log: clusterlm logs {run} --rank {rank}",
    )
    RANK_KILLED = (
        "a rank was killed by a signal",
        Restart.WHILE_PROGRESS,
        "look who sent the signal on {host}; where clusterlm why {run} does not clear the kernel, "
        "it is often the host's memory: resources.mem",
    )
    USER_ERROR = (
        "the program has an error that a restart does not change",
        Restart.ONCE,
        "mend what it names, then: clusterlm resume {run}" + WITH_JOB,
    )
    NOT_FINITE = (
        "the loss is no longer a number",
        Restart.ONCE,
        "lower train.learning_rate, lengthen train.warmup, look for bad records; "
        "then: clusterlm resume {run}",
    )
    GPU_MEMORY = (
        "a GPU ran out of memory",
        Restart.ONCE,
        "lower train.micro_batch_size, switch on train.activation_checkpointing, "
        "or use a higher deepspeed stage; then: clusterlm resume {run} --job JOB",
    )
    HOST_MEMORY = (
        "a node ran out of memory",
        Restart.ONCE,
        "raise resources.mem, or load less in each rank; then: clusterlm resume {run} --job JOB",
    )
    DISK_FULL = (
        "no space left on a disk",
        Restart.ONCE,
        "make room on it; or move the runs ($CLUSTERLM_RUNS_DIR) or the prepared data "
        "($CLUSTERLM_CACHE_DIR) to a larger one; or keep fewer "
        "checkpoints (train.keep_checkpoints, elsewhere save_total_limit; while one is written, so "
        "many lie beside it); then: clusterlm resume {run}" + WITH_JOB,
    )
    DATA = (
        "the data cannot be used",
        Restart.NEVER,
        "mend what the message names, then: clusterlm resume {run}" + WITH_JOB,
    )
    DATA_NOT_READY = (
        "the prepared data is not there",
        Restart.NEVER,
        "clusterlm resume {run} prepares it again",
    )
    PREPROCESS_FAILED = (
        "the data phase failed, so the training never started",
        Restart.NEVER,
        "see clusterlm why {run}; mend it, then: clusterlm resume {run}" + WITH_JOB,
    )
    RENDEZVOUS = (
        "the ranks did not find each other",
        Restart.WHILE_PROGRESS,
        "check that the nodes reach each other at the address in wiring.json",
    )
    NETWORK = (
        "the network between the ranks broke",
        Restart.WHILE_PROGRESS,
        "if it comes back on one node, leave that node out: resources.exclude",
    )
    GPU_FAULT = (
        "a GPU failed",
        Restart.WHILE_PROGRESS,
        "report {host} to the site and leave it out: resources.exclude",
    )
    NODE_LOST = (
        "a node went silent",
        Restart.WHILE_PROGRESS,
        "report {host} to the site and leave it out: resources.exclude",
    )
    HANG = (
        "no training step for too long",
        Restart.WHILE_PROGRESS,
        "look at the last lines of every rank: clusterlm logs {run}",
    )
    STARTUP = (
        "the ranks did not start in time",
        Restart.WHILE_PROGRESS,
        "read what the nodes said: clusterlm logs {run}",
    )
    LAUNCH = (
        "the step could not be launched",
        Restart.WHILE_PROGRESS,
        "read what srun said: clusterlm logs {run}",
    )
    IMAGE = (
        "the image cannot be started",
        Restart.NEVER,
        "mend what it says, or make the image anew with clusterlm build-image JOB; "
        "then: clusterlm resume {run}" + WITH_JOB,
    )
    IMAGE_ON_NODE = (
        "the image does not start on every node",
        Restart.ONCE,
        "report {host} to the site and leave it out: resources.exclude; "
        "then: clusterlm resume {run} --job JOB",
    )
    NO_PROGRESS = (
        "attempt after attempt left no newer checkpoint",
        Restart.NEVER,
        "clusterlm why {run} shows the last error; mend it, then: clusterlm resume {run}"
        + WITH_JOB,
    )
    FENCED = (
        "a newer attempt of the run holds its lease",
        Restart.NEVER,
        "look at the newer one: clusterlm status {run}",
    )
    SUPERVISOR = (
        "the supervisor itself failed",
        Restart.NEVER,
        "read the end of its log: clusterlm logs {run}; then: clusterlm resume {run}",
    )
    SCHEDULER = (
        "the scheduler ended the job",
        Restart.NEVER,
        "go on with: clusterlm resume {run}",
    )
    VANISHED = (
        "the job is gone and left no end record",
        Restart.NEVER,
        "go on with: clusterlm resume {run}",
    )

    def __init__(self, words: str, restart: Restart, advice: str) -> None:
        self.words = words
        self.restart = restart
        self._advice = advice

    def advice(self, *, run: str, rank: int | None = None, host: str | None = None) -> str:
        """What to do, as one sentence with the run's own names in it."""
        return self._advice.format(
            run=run, rank="0" if rank is None else rank, host=host or "the node"
        )


# The first that matches the error line or traceback wins, so the special ones stand first.
SIGNATURES: tuple[tuple[re.Pattern[str], Cause], ...] = tuple(
    (re.compile(pattern), cause)
    for pattern, cause in (
        (r"loss is (?:nan|inf|-inf)", Cause.NOT_FINITE),
        (r"CacheNotReady", Cause.DATA_NOT_READY),
        # DeepSpeed compiles parts of itself: no compiler, or another CUDA than torch's
        (r"Error building extension", Cause.USER_ERROR),
        (
            # the last two are torch's words when it writes a checkpoint
            r"No space left on device|Disk quota exceeded|Errno 28\b"
            r"|PytorchStreamWriter failed writing|inline_container.*unexpected pos",
            Cause.DISK_FULL,
        ),
        (r"DataError", Cause.DATA),
        (r"CUDA out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED", Cause.GPU_MEMORY),
        (r"MemoryError|oom[-_ ]kill|Out Of Memory|Cannot allocate memory", Cause.HOST_MEMORY),
        (r"uncorrectable ECC|\bXid\b|CUDA error: (?:unspecified|hardware)", Cause.GPU_FAULT),
        (
            r"DistNetworkError|EADDRINUSE|Address already in use|Rendezvous\w*Error|DistStoreError",
            Cause.RENDEZVOUS,
        ),
        (
            r"NCCL|ncclSystemError|DistBackendError|Connection (?:closed|reset) by peer|gloo",
            Cause.NETWORK,
        ),
        (
            r"^(?:\w+\.)*(?:ModuleNotFoundError|ImportError|SyntaxError|IndentationError|NameError"
            r"|AttributeError|TypeError|KeyError|IndexError|ValueError|FileNotFoundError"
            r"|NotADirectoryError|PermissionError|NotImplementedError|TrainError|WeightsError"
            r"|SpecError)\b",
            Cause.USER_ERROR,
        ),
    )
)


def cause_of_error(error: str) -> Cause:
    """The cause that an error line speaks of; RANK_FAILED when it says nothing known."""
    for pattern, cause in SIGNATURES:
        if pattern.search(error):
            return cause
    return Cause.RANK_FAILED
