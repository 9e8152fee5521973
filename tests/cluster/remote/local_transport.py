"""Another machine in seconds: this one, with another home and another PATH.

Stands for SSH where a test is about what goes over it. `cuts` holds, for the calls of `pipe` to
come, after how many bytes (both ways together) the connection breaks; None: not at all. `fault`
befalls every call but the very first when it is made for the first time: "refused", or the
connection breaks "before" or "after" the program.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from clusterlm.cluster.host import Completed
from clusterlm.errors import ConnectionLost, SshError

PIECE = 4096


class LocalTransport:
    """A login shell of this machine."""

    name = "me@there"

    def __init__(self, home: Path, environ: dict[str, str] | None = None) -> None:
        self.home = home
        self.environ = {"HOME": str(home), "USER": "me", "PATH": "/usr/bin:/bin", **(environ or {})}
        self.cuts: list[int | None] = []
        self.calls: list[list[str]] = []
        self.is_down = False
        self.fault = ""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30.0,
        stdin: bytes | None = None,
        doing: str = "",
    ) -> Completed:
        fault = self._note(argv)
        try:
            done = subprocess.run(
                self._in_shell(argv),
                input=stdin or b"",
                capture_output=True,
                env=self.environ,
                cwd=self.home,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return Completed(tuple(argv), None, "", "late")
        if fault:
            raise ConnectionLost(f"{self.name}: the connection broke during {doing}")
        return Completed(tuple(argv), done.returncode, done.stdout.decode(), done.stderr.decode())

    def stream(self, argv: Sequence[str], each: Callable[[str], None]) -> int:
        raise NotImplementedError

    def has(self, program: str) -> bool:
        return self.run(["sh", "-c", f"command -v {program}"]).is_ok

    def pipe(
        self,
        argv: Sequence[str],
        *,
        source: BinaryIO | None = None,
        sink: BinaryIO | None = None,
        moved: Callable[[int], None] = lambda count: None,
        doing: str = "",
    ) -> Completed:
        fault = self._note(argv)
        left = self.cuts.pop(0) if self.cuts else None
        child = subprocess.Popen(
            self._in_shell(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environ,
            cwd=self.home,
        )
        is_cut = threading.Event()
        budget = [left]

        def spend(piece: bytes) -> bytes:
            if budget[0] is None:
                return piece
            piece = piece[: budget[0]]
            budget[0] -= len(piece)
            if budget[0] == 0:
                is_cut.set()
            return piece

        def feed() -> None:
            assert child.stdin is not None
            try:
                while source is not None and (piece := source.read(PIECE)):
                    child.stdin.write(spend(piece))
                    if is_cut.is_set():
                        break
                child.stdin.close()
            except (BrokenPipeError, ValueError):
                pass
            except BaseException as error:
                failed.append(error)
                child.kill()

        failed: list[BaseException] = []
        errors: list[bytes] = []
        threads = [
            threading.Thread(target=feed),
            threading.Thread(target=lambda: errors.append(child.stderr.read())),
        ]
        for thread in threads:
            thread.start()
        assert child.stdout is not None
        while not is_cut.is_set() and (piece := child.stdout.read1(PIECE)):
            piece = spend(piece)
            if sink is not None:
                sink.write(piece)
        if is_cut.is_set():
            child.kill()
        child.wait()
        for thread in threads:
            thread.join()
        child.stdout.close()
        child.stderr.close()
        if not child.stdin.closed:
            child.stdin.close()
        if failed:
            raise failed[0]
        if is_cut.is_set() or fault:
            raise ConnectionLost(f"{self.name}: the connection broke during {doing}")
        return Completed(tuple(argv), child.returncode, "", errors[0].decode())

    def close(self) -> None:
        pass

    def _note(self, argv: Sequence[str]) -> str:
        fault = "" if not self.calls or list(argv) in self.calls else self.fault
        self.calls.append(list(argv))
        if self.is_down or fault == "refused":
            raise SshError(f"{self.name}: no route to host")
        if fault == "before":
            raise ConnectionLost(f"{self.name}: the connection broke")
        return fault

    def _in_shell(self, argv: Sequence[str]) -> list[str]:
        return ["bash", "-lc", 'exec "$@"', "bash", *argv]
