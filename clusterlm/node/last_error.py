r"""The error of a program, out of the end of its log: a Python traceback, a crash, or a last line.

    Traceback (most recent call last):          <- the chain starts here ("During handling of ...")
      File "train.py", line 9, in <module>
    ValueError: bad shape: (3, 4)               <- the error; its message may go on for some lines
    wandb: Synced 5 files                       <- not part of it any more

Rules, each from logs of real trainings:

- The last traceback counts. Torch wraps the error of a worker: "RuntimeError: Caught ValueError in
  DataLoader worker ... Original Traceback ... ValueError: x"; the inner one comes last and tells.
- "Exception ignored in ..." is noise of the interpreter's end and yields to any other traceback.
- A crash in C (faulthandler, "terminate called", "Killed", a CUDA error) counts when no traceback
  is near before it: a traceback is often followed by an abort while the program comes down.
- A traceback with more than 300 lines after it was survived: the last line of the log then counts.
- Progress bars end in \r, so \r ends a line; colours, control characters and "[rank0]: " go away.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

TAIL_BYTES = 256 * 1024
MAX_LINES = 60
MAX_BYTES = 8 * 1024
MAX_LINE_CHARS = 1000
MAX_ERROR_CHARS = 500
MAX_MESSAGE_LINES = 20
NEAR_LINES = 40
SURVIVED_AFTER_LINES = 300
NOTHING = "it printed nothing"

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# "[rank3]: " is torch's, "  | " stands before each line of an exception group
_PREFIX = re.compile(r"^(?:\[(?:rank|default)\d+\]: ?|\s+\| ?)")
_HEAD = re.compile(r"(?:Original |Exception Group )?Traceback \(most recent call last\):")
_CHAIN = re.compile(
    r"^(?:During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:)$"
)
# the line above an inner traceback that belongs to the outer one
_WRAPPER = re.compile(
    r"^\w[\w.]*: Caught \w+ in |^-- Process \d+ terminated with the following error"
)
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?::(?:\s|$)|$)")
_LOG_LINE = re.compile(
    r"^(?:\[?\d{4}[-/]\d\d[-/]\d\d|\[?\d\d:\d\d:\d\d|\[?[IWEF]\d{4}|wandb:|Exception ignored"
    r"|\[?(?:TRACE|DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b"
    r"|\S+:\d+:\d+ \[\d+\] NCCL|\S+:\d+: \w*Warning)"
)
_CRASH = re.compile(
    r"^Fatal Python error: |^terminate called after throwing|^terminate called without"
    r"|(?:^|\s)(?:Killed|Segmentation fault|Bus error|Illegal instruction|Aborted)"
    r"(?: \(core dumped\))?$"
    r"|(?:^|\s)(?:Killed|Segmentation fault|Aborted)\s{2,}(?:\(core dumped\) )?\S"
    r"|CUDA error: |CUDA out of memory|Watchdog caught collective operation timeout"
    r"|oom[-_]kill|^\S+: double free|^free\(\): "
)


class LastError(NamedTuple):
    """One line for a table, some for a reader; None when there is nothing to tell."""

    error: str | None
    traceback: str | None


class _Block(NamedTuple):
    """Lines `start` to `end` (exclusive) and what they say in one line."""

    start: int
    end: int
    error: str


def read_last_error(log: Path, *, offset: int = 0) -> LastError:
    """The error in what `log` holds after byte `offset`; looks at the last 256 KiB only."""
    try:
        with log.open("rb") as handle:
            start = max(offset, handle.seek(0, os.SEEK_END) - TAIL_BYTES)
            handle.seek(start)
            text = handle.read(TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        return LastError(f"cannot read {log.name}: {error.strerror}", None)
    # unless it begins at the offset, the first line is half a line
    return find_error(text if start == offset else text.partition("\n")[2])


def find_error(text: str) -> LastError:
    """The error in the end of a log; see the head of this file."""
    lines = _clean(text)
    last = next((line.strip() for line in reversed(lines) if line.strip()), None)
    traceback, crash = _last_traceback(lines), _last_crash(lines)
    block = traceback
    if crash and (traceback is None or crash.start > traceback.end + NEAR_LINES):
        block = crash
    if block is None:
        return LastError(_clip(last or NOTHING), None)
    error = block.error
    if last and block is traceback and len(lines) - block.end > SURVIVED_AFTER_LINES:
        error = last
    return LastError(_clip(error), _excerpt(lines[block.start : block.end]))


def _clean(text: str) -> list[str]:
    lines: list[str] = []
    for raw in re.split(r"\r\n|\n|\r", _ESCAPE.sub("", text)):
        line = _PREFIX.sub("", _CONTROL.sub("", raw)).rstrip()[:MAX_LINE_CHARS]
        head = _HEAD.search(line)
        # " 10%|#  | 1/10 [00:01]Traceback (most recent call last):" is two lines
        if head and line[: head.start()].strip(" +|"):
            lines += [line[: head.start()], line[head.start() :]]
        else:
            lines.append(line)
    return lines


def _last_traceback(lines: list[str]) -> _Block | None:
    heads = [number for number, line in enumerate(lines) if _HEAD.search(line)]
    if not heads:
        return None
    telling = [
        head for head in heads if not _line_above(lines, head).startswith("Exception ignored")
    ]
    heads = telling or heads
    place = len(heads) - 1
    error_at = _error_line(lines, heads[place])
    end = _message_end(lines, error_at)
    while place > 0 and _belongs_to_the_one_above(lines, heads[place]):
        place -= 1
    return _Block(heads[place], end, _first_words(lines[error_at:end]))


def _line_above(lines: list[str], number: int) -> str:
    above = (lines[place].strip() for place in range(number - 1, -1, -1))
    return next((line for line in above if line), "")


def _belongs_to_the_one_above(lines: list[str], head: int) -> bool:
    above = _line_above(lines, head)
    return bool(_CHAIN.match(above) or _WRAPPER.match(above))


def _error_line(lines: list[str], head: int) -> int:
    """The first line after the frames that reads `Name: message`, else the last frame."""
    last_frame = head
    for number in range(head + 1, len(lines)):
        line = lines[number]
        if _HEAD.search(line):
            break
        if line[:1] in (" ", "\t"):
            last_frame = number
        elif _ERROR.match(line) and not _LOG_LINE.match(line):
            return number
    return last_frame


def _message_end(lines: list[str], error_at: int) -> int:
    """Behind the message: it ends at a blank line, a log line or another traceback."""
    limit = min(len(lines), error_at + MAX_MESSAGE_LINES)
    for number in range(error_at + 1, limit):
        line = lines[number]
        if _LOG_LINE.match(line) or _HEAD.search(line) or line.lstrip().startswith("+-"):
            return number
        # "ProcessRaisedException: " has its message after a blank line
        if not line and not lines[error_at].endswith(":"):
            return number
    return limit


def _first_words(message: list[str]) -> str:
    words = [line.strip() for line in message if line.strip()]
    if len(words) > 1 and words[0].endswith(":"):
        return f"{words[0]} {words[1]}"
    return words[0] if words else "unknown error"


def _last_crash(lines: list[str]) -> _Block | None:
    marks = [number for number, line in enumerate(lines) if _CRASH.search(line)]
    if not marks:
        return None
    # a CUDA error, then "terminate called", then "Aborted": the first of the group tells
    place = len(marks) - 1
    while place > 0 and marks[place] - marks[place - 1] <= NEAR_LINES:
        place -= 1
    start, end = marks[place], min(len(lines), marks[place] + MAX_LINES)
    error = lines[start].strip()
    what = next((line.strip() for line in lines[start:end] if "what():" in line), None)
    if error.startswith("terminate called") and what:
        kind = re.search(r"instance of '([^']+)'", error)
        error = f"{kind[1] if kind else 'C++ exception'}: {what.partition('what():')[2].strip()}"
    return _Block(start, end, error)


def _excerpt(lines: list[str]) -> str:
    """At most 60 lines and 8 KiB; the end is kept, there the error is."""
    kept = lines[-MAX_LINES:]
    # the line that says how much is left out needs some room
    while len(kept) > 1 and len("\n".join(kept).encode()) > MAX_BYTES - 64:
        kept = kept[1:]
    if len(kept) < len(lines):
        kept = [f"... {len(lines) - len(kept) + 1} lines left out", *kept[1:]]
    return "\n".join(kept).rstrip()


def _clip(line: str) -> str:
    return line if len(line) <= MAX_ERROR_CHARS else line[: MAX_ERROR_CHARS - 3] + "..."
