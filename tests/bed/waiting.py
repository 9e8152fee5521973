"""Waiting for a fact about another process, and the one error of the bed."""

import time
from collections.abc import Callable

POLL_S = 0.05
PATIENCE = 3.0
"""Times what a test waits for: the times in tests are those of a machine that does nothing else."""


class BedError(RuntimeError):
    """The bed could not do what was asked; the message says what it waited for or ran."""


def wait_until(is_so: Callable[[], bool], *, timeout_s: float, what: str) -> None:
    """Return as soon as `is_so()`; `what` says the fact for the error: "slurmctld answers".

    Raises:
        BedError: it was not so within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise BedError(f"waited {timeout_s:g} s in vain until {what}")
        time.sleep(POLL_S)
