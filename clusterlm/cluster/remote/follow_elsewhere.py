"""`logs -f` of a run on a cluster: no line is lost or shown twice, however often the line is cut.

The clusterlm there sends objects, one a line: new lines of the logs, and the place in every file
that they lead up to (`cluster/follow.py`). An object that a cut has torn is no JSON and counts for
nothing; following goes on from the place of the last whole one.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from clusterlm.cluster.follow_place import merged, packed
from clusterlm.cluster.log_text import readable_line
from clusterlm.cluster.remote.forward import Remote
from clusterlm.errors import ConnectionLost, SshError

LONGEST_WAIT_S = 15.0
_OWN_ENDS = (1, 2)
"""Exit codes by which clusterlm itself says something; others are of a shell or a signal."""


class _Heard:
    """What has come so far."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.place: dict[str, Any] | None = None
        self.end: str | None = None
        self.is_new = False

    def __call__(self, line: str) -> None:
        try:
            news = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(news, dict):
            return
        self.is_new = True
        lines, place = news.get("lines"), news.get("place")
        for text in lines if isinstance(lines, list) else []:
            if isinstance(text, str):
                self._say(readable_line(text))
        if isinstance(place, dict):
            # a place that is none leaves the last one
            with contextlib.suppress(AttributeError, TypeError):
                self.place = merged(self.place, place)
        if "end" in news:
            self.end = readable_line(str(news["end"]))


def follow_elsewhere(
    remote: Remote,
    run: str,
    options: Sequence[str],
    num_lines: int,
    *,
    say: Callable[[str], None],
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show the newest lines and every new one until the run has ended.

    Args:
        remote: the cluster.
        run: its name.
        options: of `logs`, which lines are wanted.
        num_lines: how many of those that are there already.
        say: gets each line.
        tell: gets a word on a broken connection.
        sleep: between tries.

    Returns:
        The exit code.

    Raises:
        SshError: no connection can be made in the first place.
    """
    heard = _Heard(say)
    wait = 1.0
    while True:
        words = ["logs", run, "-f", "--json", "-n", str(num_lines), *options]
        if heard.place is not None:
            words += ["--from", packed(heard.place)]
        heard.is_new = False
        try:
            done = remote.live(words, heard, outputs="apart")
            trouble = f"{remote.name}: the log was cut off"
            if heard.end is not None:
                say(heard.end)
                return 0
            if done.code in _OWN_ENDS:
                tell(done.err.strip())
                return done.code
        except SshError as error:
            if heard.place is None and not isinstance(error, ConnectionLost):
                raise
            trouble = str(error).splitlines()[0]
        wait = 1.0 if heard.is_new else min(2 * wait, LONGEST_WAIT_S)
        tell(f"{trouble}; going on in {wait:.0f} s")
        sleep(wait)
