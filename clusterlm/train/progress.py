"""`progress.json` of the training, and the lines a person reads in the log. Rank 0 only."""

from __future__ import annotations

from typing import Any

from clusterlm.node.progress import report_progress


class Progress:
    """The newest known value of each field; `node.progress` writes them, at most once a second."""

    def __init__(self, *, speaks: bool) -> None:
        """`speaks` is true on rank 0; the others keep silent."""
        self._speaks = speaks
        self._values: dict[str, Any] = {}

    def show(self, *, now: bool = False, **values: Any) -> None:
        """Take new values; `now` writes them even if less than a second has passed."""
        self._values |= values
        if self._speaks:
            report_progress(**self._values, force=now)

    def say(self, text: str) -> None:
        """A line in the log, at once."""
        if self._speaks:
            print(f"[clusterlm] {text}", flush=True)
