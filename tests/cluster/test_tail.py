from __future__ import annotations

import tracemalloc
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from clusterlm.cluster.log_text import ErrorFilter, readable, readable_lines
from clusterlm.cluster.tail import CUT, HOLD_S, LONGEST_LINE, Tail, last_lines
from clusterlm.node.redact import Redactor


def write(path: Path, data: bytes) -> None:
    with path.open("ab") as handle:
        handle.write(data)


@example([b"\x00", b"\r", b"\r"])
@given(st.lists(st.binary(max_size=40)))
def test_lines_come_once_and_whole_however_the_file_grew(pieces: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        tail, got = Tail(path), []
        for piece in pieces:
            write(path, piece)
            got += tail.read(0.0)
        got += tail.read(0.0, is_last=True)
    whole = b"".join(pieces).split(b"\n")
    if whole[-1] == b"":
        whole.pop()
    # of a line that was rewritten only its last state is promised
    assert [line.rstrip(b"\r").split(b"\r")[-1] for line in got] == [
        line.rstrip(b"\r").split(b"\r")[-1] for line in whole
    ]


def test_an_unfinished_line_is_held_back_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    write(path, b"one\ntw")
    assert tail.read(0.0) == [b"one"]
    assert tail.read(HOLD_S - 0.1) == []
    write(path, b"o\n")
    assert tail.read(HOLD_S) == [b"two"]
    write(path, b"Password: ")
    tail.read(10.0)
    assert tail.read(10.0 + HOLD_S) == [b"Password: "]


def test_a_file_that_shrinks_begins_anew_and_one_that_goes_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read(0.0) == []
    write(path, b"a long first line\npart")
    assert tail.read(0.0) == [b"a long first line"]
    path.write_bytes(b"new\n")
    assert tail.read(0.0) == [b"new"]
    path.unlink()
    assert tail.read(0.0) == []
    write(path, b"x\n")
    assert tail.read(0.0) == [b"x"]


def test_a_line_of_a_hundred_megabytes_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as handle:
        for _ in range(100):
            handle.write(b"x" * 1_000_000)
        handle.write(b"\nafter\n")
    tracemalloc.start()
    tail, lines = Tail(path), list[bytes]()
    while not tail.is_at_end:
        lines += tail.read(0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(line) for line in lines] == [LONGEST_LINE + len(CUT), 5]
    assert peak < 5_000_000
    assert last_lines(path, 3)[0][-1] == b"after"


def test_a_progress_bar_shows_its_last_state(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    for percent in range(3000):
        write(path, b"\r%d of 3000 done, some more text" % percent)
        assert tail.read(0.0) == []
    assert readable(tail.read(HOLD_S)[0]) == "2999 of 3000 done, some more text"


@given(st.binary(), st.integers(0, 30))
def test_last_lines_are_the_last_of_all_lines(data: bytes, count: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(data)
        lines, offset = last_lines(path, count)
    assert len(lines) == min(
        count, len([p for p in data.split(b"\n")[:-1]]) + (data[-1:] not in (b"", b"\n"))
    )
    assert offset == len(data)


def test_last_lines_of_a_big_file_read_its_end_only(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"line %06d\n" % i for i in range(200_000)))
    lines, offset = last_lines(path, 50)
    assert lines == [b"line %06d" % i for i in range(199_950, 200_000)]
    assert offset == path.stat().st_size


def test_nothing_in_a_log_is_obeyed_by_the_terminal() -> None:
    hostile = b"\x1b]0;title\x07\x1b[31mred\x1b[0m\x1b[2J \x9b\x07\x08\x00 \xe2\x80\xae end\x1b"
    text = readable(hostile)
    assert text.isprintable()
    assert text.startswith("red ")
    assert readable(b"10%\r20%\r\n") == "20%"
    assert readable(b"a\tb") == "a\tb"


@given(st.binary())
def test_any_bytes_become_one_printable_line(raw: bytes) -> None:
    assert not set(readable(raw)) & set(map(chr, [*range(9), *range(10, 32), 127, 0x9B, 0x1B]))


def test_errors_are_tracebacks_and_lines_that_look_like_errors() -> None:
    text = """step 1
Traceback (most recent call last):
  File "train.py", line 3, in <module>
    go()

KeyError: 'loss'
step 2
srun: error: node2: task 1: Exited with exit code 3
loss 0.3 terror errors=0
slurmstepd: error: *** STEP 5.0 CANCELLED AT 2026 ***"""
    shown = ErrorFilter()
    kept = [line for line in text.splitlines() if shown.passes(line)]
    assert kept == [*text.splitlines()[1:6], text.splitlines()[7], text.splitlines()[9]]


def test_what_submitit_notes_when_all_is_well_is_left_out() -> None:
    noted = [
        b"submitit INFO (2026-11-26 01:27:43,801) - Starting with JobEnvironment(job_id=13244)",
        b"submitit INFO (2026-11-26 01:27:43,801) - Loading pickle: /runs/a/1_submitted.pkl",
        b"submitit INFO (2026-11-26 01:33:00,298) - Job completed successfully",
        b"submitit INFO (2026-11-26 01:33:00,299) - Exiting after successful completion",
    ]
    trouble = b"submitit ERROR (2026-11-26 01:33:00,299) - Submitted job triggered an exception"
    assert readable_lines([*noted, trouble], Redactor([])) == [trouble.decode()]
