"""Lines of a log made fit for a terminal, and which of them speak of an error. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from clusterlm.node.redact import Redactor

# CSI (colours, cursor), OSC (titles, links), and two-character escapes
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?|\x1b."
)
# what is left of C0 and C1, and marks that reverse the order of the text on the screen
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_TRACEBACK = "Traceback (most recent call last)"
_ERROR = re.compile(
    r"\b\w*(?:Error|Exception|Interrupt)\b(?:\s*:|$)|\b(?:error|fatal|panic|critical)\s*[:\]]"
    r"|\bKilled\b|Segmentation fault|core dumped|oom[-_ ]kill|out of memory|No space left"
    r"|CUDA error|NCCL WARN|\bXid\b|slurmstepd-\S+: error|CANCELLED AT",
    re.IGNORECASE,
)


# what submitit notes when all is well: of no use to anybody, and often the last lines of a run
_BOOKKEEPING = re.compile(
    rb"submitit INFO \([^)]*\) - (?:Starting with JobEnvironment|Loading pickle"
    rb"|Job completed successfully|Exiting after successful completion)"
)


def readable_lines(raw: Iterable[bytes], hide: Redactor) -> list[str]:
    """Lines of a log, fit for a terminal, without secrets and what submitit notes of itself."""
    # afterwards: "s3c\x1b[0mret" is a secret only when the colours are gone
    return hide.lines([readable(line) for line in raw if not _BOOKKEEPING.match(line)])


def readable_text(text: str) -> str:
    """As `readable`, of some lines: a message that quotes what a file or a server has said."""
    return "\n".join(map(readable_line, text.split("\n")))


def readable_line(text: str) -> str:
    """As `readable`, of a text that is to stand on one line."""
    # JSON may hold half a surrogate pair, which no encoding takes
    return readable(text.encode("utf-8", "replace"))


def readable(raw: bytes) -> str:
    """One line without anything that a terminal would obey.

    A progress bar rewrites its line after each carriage return: what stood there last is kept.
    """
    text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
    text = _ESCAPES.sub("", text[text.rfind("\r") + 1 :])
    return _UNSAFE.sub("\ufffd", text)


class ErrorFilter:
    """Lets tracebacks and lines that look like errors pass; one for each file."""

    def __init__(self) -> None:
        self.is_open = False
        """In the middle of a traceback."""

    def passes(self, line: str) -> bool:
        """Whether to show the line; call it with every line, in order.

        Traceback (most recent call last):      yes
          File "train.py", line 3, in <module>  yes
        ValueError: no such key                 yes, the end of it
        step 12 loss 3.4                        no
        """
        if _TRACEBACK in line:
            self.is_open = True
            return True
        if self.is_open:
            # frames are indented; chained tracebacks have an empty line between them
            self.is_open = not line or line[0].isspace() or _is_frame_of_torchrun(line)
            return True
        return _ERROR.search(line) is not None


def _is_frame_of_torchrun(line: str) -> bool:
    # torchrun repeats a traceback with a prefix of its own: "[rank1]:   File ..."
    return re.match(r"\[\w+\d+\]:\s{2}", line) is not None
