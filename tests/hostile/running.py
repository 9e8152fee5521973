"""Rendered scripts run for real, many in one go, where every program but ours is a trap.

The Python of a script is a recorder: it writes down its argv and its environment. What a payload
would call, `pwned`, writes its name into a file; so does any program that no template names.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.payloads import PWNED

RECORDERS = ("docker", "enroot", "apptainer", "srun", "sbatch")
# programs that the templates themselves call
NEEDED = ("bash", "cat", "env", "flock", "id", "mkdir", "rm", "setsid", "sleep", "stat", "uname")
TRAPS = (PWNED, "x", "root", "ls", "sh", "curl", "touch", "evil")
PYTHON = "/recorder/python"


@dataclass(frozen=True)
class Ran:
    """What one script did."""

    code: int
    argv: list[str]
    """Of the last program that it became."""
    env: dict[str, str]
    err: str


class Range:
    """A folder in which scripts run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bin, self._scripts, self._read = root / "bin", root / "scripts", root / "read"
        self._inside = root / "opt-clusterlm"
        self.trapped = root / "trapped"
        folders = (self._bin, self._scripts, self._read, self._inside, root / "cwd", root / "tmp")
        for folder in (*folders, root / "shared/runs/x"):
            folder.mkdir(parents=True)
        recorder = """#!/bin/bash -p
            printf '%s\\0' "$@" > "$CLUSTERLM_TEST_OUT.argv"
            /usr/bin/env -0 > "$CLUSTERLM_TEST_OUT.env"
            """
        trap = f'#!/bin/bash -p\necho "${{0##*/}} $*" >> {self.trapped}\n'
        for name in (*RECORDERS, "python"):
            self._program(name, recorder)
        for name in TRAPS:
            self._program(name, trap)
        for name in NEEDED:
            (self._bin / name).symlink_to(shutil.which(name) or "/bin/false")
        (self._inside / "image.json").write_text("{}")
        (self._inside / "environment").write_text("")
        self._inside.joinpath("python").symlink_to(self._bin / "python")

    def _program(self, name: str, text: str) -> None:
        file = self._bin / name
        file.write_text(text)
        file.chmod(0o755)

    def add(self, name: str, text: str, *, is_run: bool = True) -> None:
        """Put a script there; every one is looked at by `bash -n`."""
        text = text.replace(PYTHON, str(self._bin / "python"))
        # scratch of a node, and what only an image has
        text = text.replace("/opt/clusterlm", str(self._inside))
        text = text.replace("/tmp/clusterlm-", f"{self.root}/tmp/clusterlm-")
        text = text.replace("/shared", str(self.root / "shared"))
        folder = self._scripts if is_run else self._read
        (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")

    def check_syntax(self) -> str:
        """What `bash -n` says of all of them; empty when nothing is wrong."""
        lines = 'for f in scripts/* read/*; do bash -n "$f" || echo "$f"; done'
        done = self._bash(lines, self.root)
        return (done.stdout + done.stderr).decode(errors="replace")

    def run(self) -> dict[str, Ran]:
        """Run them all; what each did by its name."""
        out = self.root / "out"
        out.mkdir()
        lines = f"""
        for f in *; do
          export CLUSTERLM_TEST_OUT={out}/"$f"
          (cd {self.root}/cwd && bash {self._scripts}/"$f" /run/torchrun.sh) \\
            < /dev/null > /dev/null 2> {out}/"$f.err"
          echo $? > {out}/"$f.code"
        done"""
        self._bash(lines, self._scripts)
        return {file.name: self._ran(out / file.name) for file in self._scripts.iterdir()}

    def _bash(self, lines: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        given = {
            "PATH": str(self._bin),
            "HOME": "/home/of-nobody",
            "LC_ALL": "C.UTF-8",
            "CLUSTERLM_ATTEMPT": "1",
            "CLUSTERLM_ATTEMPT_DIR": "/run/attempts/1",
            "CLUSTERLM_NODES": "1",
            "CLUSTERLM_MASTER_ADDR": "node1",
            "CLUSTERLM_MASTER_PORT": "1234",
        }
        argv = [shutil.which("bash") or "bash", "-c", lines]
        return subprocess.run(
            argv, cwd=cwd, env=given, capture_output=True, timeout=120, check=False
        )

    @staticmethod
    def _ran(out: Path) -> Ran:
        def words(kind: str) -> list[str]:
            file = out.with_name(f"{out.name}.{kind}")
            data = file.read_bytes() if file.exists() else b""
            return [w.decode("utf-8", "surrogateescape") for w in data.split(b"\0")][:-1]

        env = dict(word.split("=", 1) for word in words("env") if "=" in word)
        code = int(out.with_name(f"{out.name}.code").read_text())
        err = out.with_name(f"{out.name}.err").read_text(errors="replace")
        return Ran(code, words("argv"), env, err)
