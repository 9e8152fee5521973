"""A trainer that waits for its turn: trains so many seconds, tells what it has done, waits.

So processes that have started once are compared in turn, and none works while another is timed.
Tokens are counted where batches are made: one counts when it has a label after the shift.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

IGNORE = -100
MARK = "TURN "


class Turns(TrainerCallback):
    """Reads `seconds` from stdin, trains that long, writes a line of JSON; ends with stdin."""

    def __init__(self) -> None:
        self._count = {"useful": 0, "places": 0, "steps": 0}
        self._began = time.perf_counter()
        self._until = 0.0

    def counted(self, collate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The collator, and its batches are counted."""

        def collate_and_count(samples: Any) -> Any:
            batch = collate(samples)
            self._count["useful"] += int((batch["labels"][:, 1:] != IGNORE).sum())
            self._count["places"] += batch["input_ids"].numel()
            return batch

        return collate_and_count

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._count["steps"] += 1
        if time.perf_counter() < self._until:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - self._began
        print(MARK + json.dumps(self._count | {"seconds": took}), flush=True)
        asked = sys.stdin.readline()
        if not asked.strip():
            # nothing is saved, and threads of the libraries are not waited for
            os._exit(0)
        self._count = dict.fromkeys(self._count, 0)
        self._began = time.perf_counter()
        self._until = self._began + float(asked)
