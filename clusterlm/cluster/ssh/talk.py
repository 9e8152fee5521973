"""What both backends have in common: a program is started over a session, bytes go both ways.

A backend opens sessions (`_open`); here they are pumped. Three threads read and write, the caller's
own thread takes what they bring: so Ctrl-C always reaches it, and the limits of time hold.
"""

from __future__ import annotations

import contextlib
import io
import queue
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import BinaryIO

from clusterlm.cluster.host import STOP_GRACE_S, Completed
from clusterlm.cluster.ssh.frames import Frame
from clusterlm.cluster.ssh.lines import LineCutter, last_lines
from clusterlm.cluster.ssh.login_shell import make_command
from clusterlm.cluster.ssh.session import Session
from clusterlm.cluster.ssh.ssh_errors import REFUSED_SESSION, no_further_session
from clusterlm.errors import ConnectionLost, SshError, SshRefused

LOGIN_S = 90.0
"""What profiles may take before the program begins; some load dozens of modules."""
ANSWER_S = 15.0
"""After its time is up over there, this long until we give up the connection."""
JOIN_S = 5.0
PIECE_BYTES = 256 * 1024
QUEUED_PIECES = 32
LONGEST_ANSWER = 256 * 2**20
"""Of `run`: an answer is some megabytes at most."""
ERRORS_KEPT_BYTES = 256 * 1024


class SshTransport(ABC):
    """A `Transport` but for the way a session is opened."""

    def __init__(self, name: str, setup: Sequence[str] = ()) -> None:
        self._name = name
        self._setup = tuple(setup)

    @property
    def name(self) -> str:
        return self._name

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30.0,
        stdin: bytes | None = None,
        doing: str = "",
    ) -> Completed:
        out = io.BytesIO()
        talk = _Talk(self, argv, deadline_s=timeout_s, doing=doing)

        def take(data: bytes) -> None:
            if out.tell() + len(data) > LONGEST_ANSWER:
                raise SshRefused(f"{self.name}: {talk.doing} printed more than any answer has")
            out.write(data)

        # an empty input is not none: none may be left open
        talk.pump(io.BytesIO(stdin or b""), take)
        if talk.err.is_late:
            return Completed(tuple(argv), None, "", f"{argv[0]}: no answer in {timeout_s:.0f} s")
        return talk.completed(out.getvalue())

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        lines = LineCutter(each)
        talk = _Talk(self, argv, leash=True, merged=True)
        talk.pump(None, lines.feed)
        lines.close()
        code = talk.err.code
        assert code is not None
        return code

    def pipe(
        self,
        argv: Sequence[str],
        *,
        source: BinaryIO | None = None,
        sink: BinaryIO | None = None,
        moved: Callable[[int], None] = lambda count: None,
        doing: str = "",
    ) -> Completed:
        """As `Transport.pipe`. A source that breaks off is to the program an input that ends."""
        out = io.BytesIO()

        def take(data: bytes) -> None:
            (sink or out).write(data)
            if source is None:
                moved(len(data))

        talk = _Talk(self, argv, leash=source is None, doing=doing)
        talk.pump(source, take, moved)
        return talk.completed(out.getvalue())

    def has(self, program: str) -> bool:
        return self.run(["sh", "-c", 'command -v -- "$1"', "sh", program]).is_ok

    @abstractmethod
    def close(self) -> None:
        """End the connection; a later call opens another."""

    @abstractmethod
    def _open(self, command: str) -> Session:
        """Start `command` over there.

        Raises:
            SshError: no connection; nothing has happened.
        """

    def _command(self, argv: Sequence[str], **options: object) -> str:
        return make_command(argv, setup=self._setup, **options)  # type: ignore[arg-type]


class _Talk:
    """One program, from its command to its exit code."""

    def __init__(
        self,
        transport: SshTransport,
        argv: Sequence[str],
        *,
        deadline_s: float | None = None,
        leash: bool = False,
        merged: bool = False,
        doing: str = "",
    ) -> None:
        mark = secrets.token_hex(16)
        self.out, self.err = Frame(mark), Frame(mark)
        self._name = transport.name
        self._argv = tuple(argv)
        self.doing = doing or f"`{argv[0]}`"
        self._deadline_s = deadline_s
        self._leash = leash
        self._errors = b""
        self._open_outputs = {"out", "err"}
        self._pieces: queue.Queue[tuple[str, bytes | int | BaseException]] = queue.Queue(
            QUEUED_PIECES
        )
        self._given_up = threading.Event()
        self._begun = threading.Event()
        self._threads: list[threading.Thread] = []
        command = transport._command(
            argv, mark=mark, deadline_s=deadline_s, leash=leash, merged=merged
        )
        self._session = transport._open(command)

    def completed(self, out: bytes) -> Completed:
        code = self.err.code
        assert code is not None
        errors = self._errors.decode(errors="replace")
        if code == 127:
            # why a program is missing is often said by what should have brought it
            errors = self.err.noise.decode(errors="replace") + errors
        return Completed(self._argv, code, out.decode(errors="replace"), errors)

    def pump(
        self,
        source: BinaryIO | None,
        take: Callable[[bytes], object],
        moved: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Bytes both ways until the program has ended.

        Raises:
            ConnectionLost: its end did not come.
            SshError: it did not begin.
        """
        self._start(lambda: self._read("out", self._session.read_out))
        self._start(lambda: self._read("err", self._session.read_err))
        if source is not None:
            self._start(lambda: self._write(source))
        try:
            self._take_all(take, moved)
        except BaseException:
            if self._leash:
                self._pull_leash()
            raise
        finally:
            self._give_up()

    def _give_up(self) -> None:
        self._given_up.set()
        self._begun.set()
        self._session.close()
        for thread in self._threads:
            thread.join(JOIN_S)
        # a source that never comes back from `read` keeps its session
        if not any(thread.is_alive() for thread in self._threads):
            self._session.release()

    def _take_all(self, take: Callable[[bytes], object], moved: Callable[[int], None]) -> None:
        began = time.monotonic()
        while self._open_outputs and not (self.out.has_ended and self.err.has_ended):
            # also of one that never stops printing
            self._check_time(began)
            try:
                kind, piece = self._pieces.get(timeout=0.5)
            except queue.Empty:
                continue
            if isinstance(piece, BaseException):
                raise piece
            if isinstance(piece, int):
                moved(piece)
            elif not piece:
                self._open_outputs.discard(kind)
            elif kind == "out":
                if kept := self.out.feed(piece):
                    take(kept)
            else:
                had_begun = self.err.has_begun
                self._errors = (self._errors + self.err.feed(piece))[-ERRORS_KEPT_BYTES:]
                if self.err.has_begun and not had_begun:
                    began = time.monotonic()
                    self._begun.set()
        if not (self.out.has_ended and self.err.has_ended):
            if kept := self.out.rest():
                take(kept)
            self._errors += self.err.rest()
            raise self._failure()

    def _check_time(self, began: float) -> None:
        if not self.err.has_begun:
            limit_s, what = LOGIN_S, "did not come through its login"
        elif self._deadline_s is not None:
            limit_s, what = self._deadline_s + ANSWER_S, "did not answer"
        else:
            return
        if time.monotonic() - began > limit_s:
            raise ConnectionLost(
                f"{self._name}: {self.doing} {what} in {limit_s:.0f} s; whether it was done there "
                f"is not known\n{last_lines(self.err.noise)}".rstrip()
            )

    def _failure(self) -> SshError:
        """Why both outputs ended without the program's end."""
        code = self._session.exit_code()
        if not self.err.has_begun and REFUSED_SESSION in self.err.noise:
            return no_further_session(self._name)
        if self.err.has_begun or code is None:
            said = last_lines(self._errors if self.err.has_begun else self.err.noise)
            return ConnectionLost(
                f"{self._name}: the connection broke during {self.doing}; whether it was done "
                f"there is not known\n{said}".rstrip()
            )
        said = last_lines(self.out.noise + b"\n" + self.err.noise)
        return SshError(
            f"{self._name}: the login shell ended (exit {code}) before it ran "
            f"`{self._argv[0]}`; it said:\n{said or '  nothing'}\n"
            "look at the profiles there: one that calls `exit` or `exec` stops every command"
        )

    def _pull_leash(self) -> None:
        """End the program over there, and read on until it has ended; a cut line tells nothing."""
        with contextlib.suppress(OSError):
            self._session.close_input()
        until = time.monotonic() + STOP_GRACE_S + 3
        while "err" in self._open_outputs and not self.err.has_ended:
            if time.monotonic() > until:
                return
            try:
                kind, piece = self._pieces.get(timeout=0.2)
            except queue.Empty:
                continue
            if not isinstance(piece, bytes):
                continue
            if not piece:
                self._open_outputs.discard(kind)
            elif kind == "err":
                self.err.feed(piece)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _read(self, kind: str, read: Callable[[], bytes]) -> None:
        # closed under our hands, or what a library makes of a broken line: the end of it
        with contextlib.suppress(Exception):
            while piece := read():
                self._put(kind, piece)
        self._put(kind, b"")

    def _write(self, source: BinaryIO) -> None:
        # what is sent before the program is there would be lost in buffers by a cut
        if self._deadline_s is None:
            self._begun.wait()
        if self._given_up.is_set():
            return
        try:
            while piece := source.read(PIECE_BYTES):
                try:
                    self._session.write(piece)
                except (OSError, ValueError):
                    # the program has ended, or the connection: either is told by the outputs
                    return
                self._put("moved", len(piece))
            with contextlib.suppress(OSError, ValueError):
                self._session.close_input()
        except BaseException as error:
            self._put("source", error)

    def _put(self, kind: str, piece: bytes | int | BaseException) -> None:
        while not self._given_up.is_set():
            try:
                self._pieces.put((kind, piece), timeout=0.2)
            except queue.Full:
                continue
            return
