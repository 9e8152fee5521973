"""Payloads as words of a command that sshd gives to a login shell: they arrive as they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.payloads import PAYLOADS, PWNED

# what an argument can be: no NUL, what a file system and a terminal could hold
WORDS = [p for p in PAYLOADS if "\0" not in p and "\ud800" not in p and len(p) < 1000]
RECORDER = "import sys; sys.stdout.write('<<' + '\\0'.join(sys.argv[1:]) + '>>')"


@pytest.fixture(scope="module")
def login_shell() -> Any:
    return pytest.importorskip("clusterlm.cluster.ssh.login_shell")


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "tcsh", "fish"])
def test_every_word_arrives_through_the_shell_of_the_account(
    login_shell: Any, shell: str, tmp_path: Path
) -> None:
    if not (program := shutil.which(shell)):
        pytest.skip(f"no {shell} here")
    trap = tmp_path / "bin" / PWNED
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/trapped\n")
    trap.chmod(0o755)
    env = {"PATH": f"{trap.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    # a shell that is told nothing of its own is still told every word in its place
    for chosen in (WORDS, *([word] for word in WORDS[:12])):
        command = login_shell.make_command(
            [sys.executable, "-c", RECORDER, *chosen], mark="0123456789abcdef0123456789abcdef"
        )
        # as sshd does
        done = subprocess.run(
            [program, "-c", command], env=env, cwd=tmp_path, capture_output=True, check=False
        )
        said = done.stdout.partition(b"<<")[2].rpartition(b">>")[0]
        assert [w.decode() for w in said.split(b"\0")] == chosen, done.stderr
    assert not (tmp_path / "trapped").exists()


def test_a_word_that_no_argument_can_be_is_refused(login_shell: Any) -> None:
    for argv in (["x", "a\0b"], ["-x"], []):
        with pytest.raises(ValueError, match="no program"):
            login_shell.make_command(argv, mark="0123456789abcdef0123456789abcdef")
