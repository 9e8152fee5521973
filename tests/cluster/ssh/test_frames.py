"""What a program printed, found between the marks however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clusterlm.cluster.ssh.frames import Frame
from clusterlm.cluster.ssh.lines import LineCutter, last_lines

MARK = "aab" * 10 + "aa"


@given(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"a", b"ab", b"aab", MARK.encode()[:-1], b"\n", b"x"]), max_size=12),
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.integers(0, 255),
)
def test_cuts_change_nothing(
    noise: bytes, printed: list[bytes], cuts: list[int], code: int
) -> None:
    if MARK.encode() in (body := b"".join(printed)) + MARK.encode()[:-1]:
        return
    mark = MARK.encode()
    data = noise + mark + b":begin\n" + body + mark + f":end:{code}\n".encode() + b"after"
    frame, kept = Frame(MARK), b""
    while data:
        size = cuts.pop() if cuts else 1
        kept += frame.feed(data[:size])
        data = data[size:]
    assert kept == body
    assert frame.code == code
    assert frame.noise.startswith(noise)


def test_a_line_is_handed_on_before_the_next_comes() -> None:
    frame = Frame(MARK)
    frame.feed(MARK.encode() + b":begin\n")
    assert frame.feed(b"go\n") == b"go\n"
    assert frame.feed(b"aab") == b""
    assert frame.feed(b"c") == b"aabc"


def test_lines_end_as_text_files_lines_do() -> None:
    lines: list[str] = []
    cutter = LineCutter(lines.append)
    for piece in (b"a\nb\r10%\r", b"\nc\xd0", b"\xbf\xff\nrest"):
        cutter.feed(piece)
    cutter.close()
    assert lines == ["a", "b", "10%", "cп\ufffd", "rest"]


def test_what_is_shown_of_noise_cannot_steer_a_terminal() -> None:
    assert last_lines(b"\x1b]0;title\x07\r\n\n a\n") == "  ?]0;title?\n   a"
