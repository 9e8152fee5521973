"""The command line for sshd, run here by every shell an account may have."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from clusterlm.cluster.ssh.frames import Frame
from clusterlm.cluster.ssh.login_shell import make_command
from clusterlm.errors import SshError
from tests.cluster.ssh.hostile import HOSTILE

MARK = "0123456789abcdef" * 2
SHELLS = ("bash", "dash", "sh", "zsh", "tcsh", "fish")
PRINT_WORDS = [
    "python3",
    "-c",
    r"import os,sys;sys.stdout.buffer.write(b'\0'.join(map(os.fsencode,sys.argv[1:])))",
]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    path = shutil.which(request.param)
    if path is None:
        pytest.skip(f"no {request.param} here")
    return [path]


def _run(
    shell: list[str], command: str, home: Path, stdin: bytes = b"", **env: str
) -> tuple[Frame, Frame, bytes, bytes]:
    done = subprocess.run(
        [*shell, "-c", command],
        input=stdin,
        capture_output=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env},
        timeout=60,
    )
    out, err = Frame(MARK), Frame(MARK)
    return out, err, out.feed(done.stdout), err.feed(done.stderr)


def test_every_word_arrives_as_it_is_in_every_shell(shell: list[str], tmp_path: Path) -> None:
    command = make_command([*PRINT_WORDS, *HOSTILE[:-1]], mark=MARK)
    out, err, printed, errors = _run(shell, command, tmp_path)
    assert (out.code, err.code, errors) == (0, 0, b"")
    assert [os.fsdecode(word) for word in printed.split(b"\0")] == HOSTILE[:-1]


def test_the_input_is_the_programs_alone_and_its_code_comes_back(
    shell: list[str], tmp_path: Path
) -> None:
    for name in (".bash_profile", ".profile"):
        (tmp_path / name).write_text("cat; read -r line; echo in profile; echo err >&2; set -eu\n")
    command = make_command(["sh", "-c", "cat; echo no >&2; exit 7"], mark=MARK)
    stdin = bytes(range(256)) * 100
    out, err, printed, errors = _run(shell, command, tmp_path, stdin)
    assert (out.code, err.code) == (7, 7)
    assert (printed, errors) == (stdin, b"no\n")
    assert b"in profile" in out.noise
    assert b"err" in err.noise


def test_without_bash_it_is_done_by_sh(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep", "cat", "echo", "python3"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(os.path.realpath(found))
    (tmp_path / ".profile").write_text(f"PATH={programs}; echo hello\n")
    command = make_command(["cat"], mark=MARK, deadline_s=20)
    out, err, printed, errors = _run(["/bin/sh"], command, tmp_path, b"abc", PATH=str(programs))
    assert (out.code, err.code, printed, errors) == (0, 0, b"abc", b"")
    began = time.monotonic()
    command = make_command(["sleep", "50"], mark=MARK, deadline_s=1)
    out, err, _, _ = _run(["/bin/sh"], command, tmp_path, PATH=str(programs))
    assert err.is_late
    assert time.monotonic() - began < 40


def test_setup_lines_run_first_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    setup = ["export SITE='a b'", "if true; then", "  export MORE=1", "fi", "nonsense ((", "false"]
    command = make_command(["sh", "-c", 'echo "$SITE $MORE"'], mark=MARK, setup=setup[:4])
    assert _run(["bash"], command, tmp_path)[2] == b"a b 1\n"
    command = make_command(["echo", "here"], mark=MARK, setup=setup)
    out, err, printed, errors = _run(["bash"], command, tmp_path)
    assert (printed, errors, out.code) == (b"here\n", b"", 0)
    assert b"nonsense" in err.noise


def test_tracing_in_a_profile_prints_no_mark(tmp_path: Path) -> None:
    (tmp_path / ".bash_profile").write_text("set -xv\n")
    out, err, printed, errors = _run(["bash"], make_command(["echo", "a"], mark=MARK), tmp_path)
    assert (printed, errors, err.code) == (b"a\n", b"", 0)
    assert MARK.encode() not in err.noise


def test_a_program_is_none_of_the_shells_own_words(tmp_path: Path) -> None:
    (tmp_path / ".bash_profile").write_text("true() { echo function; }; alias true=false\n")
    out, _, printed, _ = _run(["bash"], make_command(["true"], mark=MARK), tmp_path)
    assert (printed, out.code) == (b"", 0)
    _, err, _, errors = _run(["bash"], make_command(["cd"], mark=MARK), tmp_path)
    assert err.code == 127
    assert b"not found" in errors


def test_ctrl_c_is_not_ignored(tmp_path: Path) -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT))"
    out, _, printed, _ = _run(["bash"], make_command(["python3", "-c", code], mark=MARK), tmp_path)
    assert b"default_int_handler" in printed


def test_no_byte_of_an_argument_stands_in_the_command_for_the_first_shell() -> None:
    command = make_command(["x", *HOSTILE[:-1]], mark=MARK)
    inside = command.removeprefix('exec /bin/sh -c \'eval "$(printf %b "$1")"\' clusterlm \'')
    assert set(inside.removesuffix("'")) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,+@%- \\"
    )


def test_what_cannot_be_a_command_line_is_refused() -> None:
    with pytest.raises(SshError, match="too long"):
        make_command(["x", "\n" * 60_000], mark=MARK)
    for argv in ([], ["a\0b"], ["-x"]):
        with pytest.raises(ValueError, match="no program"):
            make_command(argv, mark=MARK)
