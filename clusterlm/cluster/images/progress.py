"""What a user sees of a build that takes minutes: the step, what it does, how long it has taken.

    3/9  pip install requirements-train.txt                    one line for each step, everywhere
    ⠙ 3/9  41 s  Collecting transformers                       on a terminal, under it, always fresh

`BuildReader` reads BuildKit's `--progress=plain` and podman's STEP lines and keeps what an error
must quote; `Screen` shows. The whole output goes to a file.
"""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from clusterlm.cluster.log_text import readable_line
from clusterlm.node.image_build import MARKER

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SAY_EVERY_S = 30.0
"""Without a terminal a long step says so often that it lives."""
QUOTED = 12
WHAT_WIDTH = 72

# #9 [stage-0 5/9] RUN pip install ...     STEP 5/9: RUN pip install ...
# "#9 1.2 clusterlm image: ..." while it runs, "1.2 clusterlm image: ..." where it is repeated
_REFUSAL = re.compile(rf"(?:#\d+ )?(?:\d+\.\d+ )?{MARKER}(.*)")
_STEP = re.compile(r"(?:#\d+ \[(?:[\w.-]+ )? *|(?:\[\d+/\d+\] )?STEP )(\d+)/(\d+)(?:\]|:) (.+)")
# #9 12.34 Collecting peft
_OUTPUT = re.compile(r"#\d+ \d+\.\d+ (.*)")
# "#9 sha256:...", "#9 DONE 1.2s", "#9 [internal] load ...", "--> 8e37897f87d"
_NOISE = re.compile(
    r"#\d+ (?:sha256:|DONE|CACHED|\[|\.\.\.|extracting|exporting|naming|writing|transferring"
    r"|preparing|importing|resolve )|--> |-{3,}$| > \["
)
_ERROR = re.compile(
    r"(?:#\d+ )?(?:ERROR|Error|error): .+|executor failed running .+|failed to solve.+"
)
_EXIT = re.compile(r"exit (?:code|status):? (\d+)")


@dataclass
class BuildReader:
    """Takes the lines of a build and knows where it is and what went wrong."""

    step: str = ""
    """`3/9  pip install requirements.txt`."""
    refusal: list[str] = field(default_factory=list)
    """What a step inside said on lines of its own (see node/image_build.py), in order."""
    errors: list[str] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=QUOTED))
    """The newest output of programs in the image."""

    def read(self, line: str) -> tuple[str | None, str | None]:
        """(a step that has begun, what a program printed); either may be None."""
        if found := _REFUSAL.match(line):
            # BuildKit repeats the end of the output below
            if found[1] not in self.refusal:
                self.refusal.append(found[1])
            return None, found[1]
        if found := _STEP.match(line):
            step = f"{found[1]}/{found[2]}  {what_it_does(found[3])}"
            if step != self.step:
                self.step = step
                return step, None
            return None, None
        if _ERROR.match(line):
            self.errors.append(re.sub(r"^#\d+ ", "", line).strip())
            return None, None
        output = found[1] if (found := _OUTPUT.match(line)) else line
        if not output.strip() or _NOISE.match(line):
            return None, None
        self.tail.append(output.strip())
        return None, output.strip()

    @property
    def exit_code(self) -> int | None:
        """Of the step that failed."""
        codes = [found[1] for text in self.errors if (found := _EXIT.search(text))]
        return int(codes[-1]) if codes else None


def what_it_does(instruction: str) -> str:
    """An instruction of our Dockerfile in words that fit a line."""
    text = re.sub(r"--mount=\S+\s+", "", instruction).strip()
    if text.startswith("RUN ["):
        try:
            _python, _program, step, *rest = json.loads(text[len("RUN ") :])
        except ValueError:
            return _cut(text)
        names = [word.rsplit("/", 1)[-1] for word in rest if not word.startswith("--")]
        return _cut(
            {
                "base": "look at what the base brings",
                "apt": f"apt install {' '.join(rest)}",
                "pip": f"pip install {names[0] if names else ''}",
                "verify": "check that torch is still the base's",
            }.get(step, text)
        )
    return _cut(re.sub(r"^(FROM|COPY|ENV|LABEL|CMD|USER)\b.*", lambda m: m[0], text))


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WHAT_WIDTH else f"{text[: WHAT_WIDTH - 1]}…"


def duration(seconds: float) -> str:
    """`41 s`, `3 min 20 s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Screen:
    """Lines for the user, and on a terminal one that is always fresh under them."""

    def __init__(
        self,
        tell: Callable[[str], None],
        terminal: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._clock = tell, clock
        self._terminal = terminal
        self._live: Live | None = None
        self._step, self._detail = "", ""
        self._began = self._said = clock()

    def step(self, text: str) -> None:
        """Something new begins."""
        self._step, self._detail = text, ""
        self._began = self._said = self._clock()
        self._tell(f"  {text}")

    def detail(self, text: str) -> None:
        """What the step does right now."""
        self._detail = readable_line(text)
        now = self._clock()
        if self._live is None and now - self._said >= SAY_EVERY_S:
            self._said = now
            self._tell(f"  ... {duration(now - self._began)}: {_cut(self._detail)}")

    def __enter__(self) -> Screen:
        if self._terminal is not None and self._terminal.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._terminal)
            self._live = Live(console=console, get_renderable=self._picture, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _picture(self) -> Table:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        number = self._step.split("  ", 1)[0]
        took = duration(self._clock() - self._began)
        line = Table.grid(padding=(0, 1))
        line.add_column(no_wrap=True)
        line.add_column(no_wrap=True, overflow="ellipsis")
        # a spinner made anew for each picture begins anew: its time is told
        spinner = Spinner("dots")
        spinner.start_time = 0.0
        line.add_row(spinner, Text(f"{number}  {took}  {self._detail}", no_wrap=True))
        return line
