"""Which rank's end explains the end of an attempt, and from when on it may be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clusterlm.node.last_error import NOTHING
from clusterlm.node.records import ExitRecord, first_failure
from clusterlm.supervise.causes import Cause, cause_of_error
from clusterlm.supervise.views import AttemptView

SETTLE_S = 1.0
"""So long a broken connection waits for the error behind it; what is told is told within 2 s."""


def root_failure(exits: Sequence[ExitRecord]) -> ExitRecord | None:
    """The rank that explains the others, or None when none has failed.

    The earliest failure, but a broken connection explains nothing while another rank has an error
    of its own: its peer's socket closes some moments before the peer itself is gone.
    """
    own = [e for e in exits if not e.ended_well and e.ended_by is None and not _is_echo(e)]
    return first_failure(own or exits)


def plain_failure(exits: Sequence[ExitRecord]) -> ExitRecord | None:
    """The root failure when it may be told at once: no echo, and not by our own hand."""
    failure = root_failure(exits)
    if failure is None or failure.ended_by is not None or _is_echo(failure):
        return None
    return failure


def end_words(rank: Mapping[str, Any]) -> str:
    """How a rank ended, by the fields of its record or of an event.

    `failed (exit 3): ValueError: x`, `was ended by SIGKILL; its last line: step 7`.
    """
    error = rank.get("error")
    if not rank.get("signal"):
        return f"failed (exit {rank.get('code')})" + (f": {error}" if error else "")
    # a killed program names no error: what stands there is what it happened to say last
    last = f"; its last line: {error}" if error and error != NOTHING else ""
    return f"was ended by {rank['signal']}{_BY_KERNEL[rank.get('out_of_memory')]}{last}"


_BY_KERNEL = {
    True: ", by the kernel for want of memory",
    False: " (not by the kernel for want of memory)",
    None: "",
}


def _is_echo(exit_: ExitRecord) -> bool:
    return cause_of_error(exit_.error or "") in (Cause.NETWORK, Cause.RENDEZVOUS)


def is_settled(view: AttemptView, failure: ExitRecord) -> bool:
    """Whether `failure` may be told: an echo waits for the error that it may be the echo of."""
    ended = len(view.exits) >= view.expected_ranks or view.step_code is not None
    return ended or not _is_echo(failure) or view.failed_s_ago > SETTLE_S
