"""How long one job may be, in the words that `check` and `doctor` share. Pure.

A training may be longer than the longest job; what a job asks for may not.
"""

from __future__ import annotations

from collections.abc import Mapping

from clusterlm.cluster.doctor.words_of_slurm import written
from clusterlm.spec.resources import Resources

_GOES_ON = "a longer training saves at each limit, requeues and goes on"


def longest_jobs(limit_s: Mapping[str, int]) -> str:
    """The limits of some partitions.

    # {"gpu": 86400, "all": 1800}: the longest job is 1-00:00:00 in partition gpu, 0:30:00 in all
    """
    first, *others = [f"{written(limit)} in {name}" for name, limit in limit_s.items()]
    head = first.replace(" in ", " in partition ", 1)
    return f"the longest job is {', '.join([head, *others])}"


def fit_into(limit_s: Mapping[str, int]) -> str:
    """What to write where jobs have a limit; also when the job says nothing."""
    shortest = min(limit_s.values())
    limits = written(shortest) if len(limit_s) == 1 else "the partition's limit"
    asked = Resources.model_fields["time"].default
    unsaid = f" (a job that says nothing asks for {written(asked)})" if asked > shortest else ""
    return f"write resources.time: {limits} or less{unsaid}; {_GOES_ON}"
