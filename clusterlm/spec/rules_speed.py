"""Rules about kernels, attention and checkpointing of activations; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job

RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = ()
