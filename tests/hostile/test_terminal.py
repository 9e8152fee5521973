"""Nothing that a log, a node, a reason or a name says is obeyed by a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clusterlm.cluster.log_text import readable, readable_text
from tests.cluster.run_folders import RunFolder
from tests.hostile.payloads import PAYLOADS
from tests.person import Person

TRICKS = (
    *("\x1b]0;owned\x07", "\x1b]52;c;cHduZWQ=\x07", "\x1b[2J\x1b[H", "\x1bP+q\x1b\\", "\x9b2J"),
    *("\x9d0;x\x9c", "\u202egpj", "\u2066x", "\u200f", "\u2028", "\x08\x08", "\x07", "\x00"),
    *("\x1b[31mred", "\x1b_G\x1b\\", "\x1b^x\x1b\\", "\ud800", "\x1b", "\x85", "\x0c"),
    "\r\x1b[Kall is well",
)
EVIL = "a" + "b".join(TRICKS) + "c"
# a terminal obeys, or shows in another order: all but line feeds and tabs
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.mark.parametrize("text", [*TRICKS, *PAYLOADS, EVIL], ids=range(len(TRICKS + PAYLOADS) + 1))
def test_no_line_holds_what_a_terminal_obeys(text: str) -> None:
    assert not OBEYED.search(readable(text.encode("utf-8", "replace")))
    assert not OBEYED.search(readable_text(text).replace("\n", ""))


def as_name(text: str) -> str:
    """What a folder may be called."""
    return re.sub("[/\0\ud800]", "", text)[:60]


def test_no_command_shows_what_a_terminal_obeys(tmp_path: Path) -> None:
    person = Person(tmp_path)
    for run in ("ended", as_name(f"r{EVIL}")):
        folder = RunFolder(tmp_path / "runs", run, cluster="local")
        folder.submitted(job_id=f"1{EVIL}", host=EVIL)
        folder.started()
        attempt = folder.attempt()
        folder.rank_exit(attempt, host=EVIL, error=EVIL, traceback=f"{EVIL}\n{EVIL}")
        text = f"{EVIL}\nTraceback (most recent call last):\n{EVIL}Error: x\n"
        attempt.rank_log(1).write_bytes(text.encode("utf-8", "surrogatepass"))
        (attempt.logs / "step.log").write_text(f"srun: error: {EVIL}\n", errors="replace")
        ended = {"cause": "RANK_FAILED", "evidence": EVIL, "error": EVIL, "host": EVIL, "rank": 1}
        folder.event("rank_failed", phase="train", attempt=1, host=EVIL, error=EVIL, rank=1, code=1)
        folder.event("node_lost", phase="train", attempt=1, host=EVIL, silent_s=9)
        folder.event("attempt_ended", phase="train", attempt=1, action="stop", **ended)
        folder.event("ended", phase="train", state="STOPPED", **ended)
    (tmp_path / "runs" / as_name(f"no-run{EVIL}")).mkdir()
    for words in (
        ["status"],
        ["status", "--all"],
        ["status", "--json"],
        ["status", "ended"],
        ["status", "ended", "--watch"],
        ["why", "ended"],
        ["why", "ended", "--json"],
        ["logs", "ended"],
        ["logs", "ended", "-f"],
        ["logs", "ended", "--errors"],
        ["cancel", "ended"],
        ["resume", "ended"],
        ["why", "\x1b]0;x\x07"],
    ):
        done = person.types(*words)
        assert done.stdout + done.stderr, words
        assert not OBEYED.search(done.stdout), (words, done.stdout)
        assert not OBEYED.search(done.stderr), (words, done.stderr)
    assert "red" in person.types("why", "ended").stdout


def test_what_rich_draws_holds_only_its_own_colours(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs", as_name(f"r{EVIL}"), cluster="local")
    folder.event("ended", phase="train", state="STOPPED", cause="RANK_FAILED", evidence=EVIL)
    code = """
import sys
from pathlib import Path
from rich.console import Console
from clusterlm.cluster.status import read_runs
from clusterlm.cluster.table import rich_table
Console(force_terminal=True, width=300).print(rich_table(read_runs(Path(sys.argv[1]))))
"""
    argv = [sys.executable, "-c", code, str(tmp_path / "runs")]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert not OBEYED.search(re.sub("\x1b\\[[0-9;]*m", "", shown)), shown
