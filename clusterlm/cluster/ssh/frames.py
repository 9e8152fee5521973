r"""One output of a program over there, freed from what logging in printed and from our own marks.

Welcome to cluster!\n MARK:begin\n what the program printed MARK:end:0\n
`---- noise ------'                `------- kept ---------'
"""

from __future__ import annotations

NOISE_KEPT_BYTES = 8192
LONGEST_WORD = 64


class Frame:
    """Takes one output piece by piece.

    Attributes:
        noise: the end of what came before the program began.
        has_begun: the program was started.
        code: its exit code, None as long as its end has not come.
        is_late: it was ended over there because its time was up.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark.encode()
        self._held = b""
        self.noise = b""
        self.has_begun = False
        self.code: int | None = None
        self.is_late = False

    @property
    def has_ended(self) -> bool:
        return self.code is not None

    def feed(self, piece: bytes) -> bytes:
        """What of it the program printed; the beginning of a possible mark is held back."""
        data = self._held + piece
        self._held = b""
        kept: list[bytes] = []
        while data and not self.has_ended:
            at = data.find(self._mark)
            if at < 0:
                at = len(data) - _overlap(data, self._mark)
            self._settle(data[:at], kept)
            word, found, rest = data[at + len(self._mark) :].partition(b"\n")
            if not found and len(word) <= LONGEST_WORD:
                self._held = data[at:]
                break
            self._read(word[:LONGEST_WORD])
            data = rest
        return b"".join(kept)

    def rest(self) -> bytes:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, b""
        return held if self.has_begun and not self.has_ended else b""

    def _settle(self, data: bytes, kept: list[bytes]) -> None:
        if self.has_begun:
            kept.append(data)
        else:
            self.noise = (self.noise + data)[-NOISE_KEPT_BYTES:]

    def _read(self, word: bytes) -> None:
        if word == b":begin":
            self.has_begun = True
        elif word == b":late":
            self.is_late = True
        elif word.startswith(b":end:"):
            self.code = int(word[5:]) if word[5:].isdigit() else None


def _overlap(data: bytes, mark: bytes) -> int:
    """Length of the longest end of `data` that the mark begins with."""
    for length in range(min(len(data), len(mark) - 1), 0, -1):
        if data.endswith(mark[:length]):
            return length
    return 0
