"""Programs on a machine behind a real sshd: the same for both backends."""

from __future__ import annotations

import io
import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from clusterlm.cluster.ssh.connect import connect
from clusterlm.cluster.ssh.talk import SshTransport
from clusterlm.errors import SshError
from clusterlm.spec.profile import Profile
from tests.bed.ssh_fixture import SshHome, shell_script
from tests.cluster.ssh.hostile import HOSTILE

PRINT_WORDS = [
    "python3",
    "-c",
    r"import os,sys;sys.stdout.buffer.write(b'\0'.join(map(os.fsencode,sys.argv[1:])))",
]


@pytest.fixture
def there(ssh: SshHome, backend: str) -> SshTransport:
    return ssh.connect(backend, ssh.server("plain"))


def test_outputs_input_and_code(there: SshTransport) -> None:
    done = there.run(["sh", "-c", "cat; echo no >&2; exit 7"], stdin=b"yes")
    assert (done.code, done.out, done.err) == (7, "yes", "no\n")
    assert done.argv == ("sh", "-c", "cat; echo no >&2; exit 7")
    # no input is an empty one: nothing waits for a person
    assert there.run(["cat"], timeout_s=20).out == ""
    assert there.run(["sh", "-c", 'echo "$LC_ALL $SLURM_TIME_FORMAT"']).out == "C standard\n"
    killed = there.run(["sh", "-c", "kill -9 $$"])
    assert (killed.code, killed.err) == (137, "")
    # ssh itself ends so when a connection fails
    assert there.run(["sh", "-c", "exit 255"]).code == 255


def test_every_word_arrives_as_it_is(there: SshTransport) -> None:
    out = io.BytesIO()
    done = there.pipe([*PRINT_WORDS, *HOSTILE[:-1]], sink=out)
    assert (done.code, done.err) == (0, "")
    assert [os.fsdecode(word) for word in out.getvalue().split(b"\0")] == HOSTILE[:-1]
    assert len(HOSTILE) >= 40


def test_a_missing_program_is_as_in_a_shell(there: SshTransport) -> None:
    done = there.run(["no-such-program"])
    assert done.code == 127
    assert "no-such-program: not found" in done.err
    assert there.has("sh")
    assert not there.has("no-such-program")


def test_a_program_that_takes_too_long_is_ended_with_what_it_started(
    there: SshTransport, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 300 & echo $! > {pids}; echo $$ >> {pids}; wait; sleep 300"
    done = there.run(["sh", "-c", script], timeout_s=1)
    assert done.code is None
    assert done.err == "sh: no answer in 1 s"
    assert not _alive(pids)


def test_a_daemon_left_behind_holds_nobody_up(there: SshTransport, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()
    done = there.run(["sh", "-c", f"sleep 60 & echo $! > {pids}; echo done"], timeout_s=40)
    assert done.out == "done\n"
    assert time.monotonic() - began < 30
    assert _alive(pids)
    os.kill(int(pids.read_text()), 9)


def test_lines_come_as_they_are_printed(there: SshTransport) -> None:
    came: list[tuple[float, str]] = []
    script = r"printf 'a\nb\r10%%\rc'; echo d >&2; sleep 1.5; echo e; exit 7"
    assert (
        there.stream(["sh", "-c", script], lambda line: came.append((time.monotonic(), line))) == 7
    )
    assert [line for _, line in came] == ["a", "b", "10%", "cd", "e"]
    assert came[-1][0] - came[0][0] > 1


def test_ctrl_c_ends_a_stream_over_there_too(there: SshTransport, tmp_path: Path) -> None:
    pids, clean = tmp_path / "pids", tmp_path / "clean"
    script = (
        f"trap 'sleep 0.3; touch {clean}; exit' INT; sleep 300 & echo $! > {pids}; "
        f"echo $$ >> {pids}; echo go; wait"
    )
    seen = []

    def each(line: str) -> None:
        seen.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        there.stream(["bash", "-c", script], each)
    assert seen == ["go"]
    # it may clean up, and is waited for
    assert clean.exists()
    assert not _alive(pids)
    assert there.run(["true"]).is_ok


def test_a_stream_that_ignores_ctrl_c_is_killed(
    there: SshTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterlm.cluster.ssh.login_shell.STOP_GRACE_S", 1)
    pids = tmp_path / "pids"

    def each(line: str) -> None:
        raise RuntimeError(line)

    script = f"trap '' INT; echo $$ > {pids}; echo go; sleep 300; sleep 300"
    with pytest.raises(RuntimeError, match="go"):
        there.stream(["sh", "-c", script], each)
    assert not _alive(pids)


def test_bytes_go_both_ways_unchanged(there: SshTransport) -> None:
    data = random.Random(1).randbytes(3_000_000) + b"\r\n\x00\xff~.\n"
    moved: list[int] = []
    out = io.BytesIO()
    done = there.pipe(["cat"], source=io.BytesIO(data), sink=out, moved=moved.append)
    assert (done.code, done.out) == (0, "")
    assert out.getvalue() == data
    assert sum(moved) == len(data)
    # a program that ends before it has read all
    assert there.pipe(["head", "-c", "3"], source=io.BytesIO(data)).code == 0


def test_what_breaks_in_the_source_comes_through(there: SshTransport) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        there.pipe(["cat"], source=Broken())  # type: ignore[arg-type]
    assert there.run(["true"]).is_ok


def test_several_at_once_over_one_connection(there: SshTransport) -> None:
    there.run(["true"])
    results: dict[int, str] = {}

    def one(number: int) -> None:
        done = there.run(["sh", "-c", 'sleep 0.5; echo "$1"', "sh", str(number)], timeout_s=60)
        results[number] = done.out

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(6)}


def test_after_closing_a_call_connects_again(there: SshTransport) -> None:
    assert there.run(["true"]).is_ok
    there.close()
    assert there.run(["true"]).is_ok
    there.hang_up()
    assert there.run(["true"]).is_ok


def test_noise_of_the_login_is_nobodys_output(ssh: SshHome, backend: str) -> None:
    home = ssh.bed.folder / "noisy-home"
    home.mkdir(exist_ok=True)
    (home / ".bash_profile").write_text(
        "echo '*** MAINTENANCE ***'; echo quota >&2; read -r x; printf 'no newline'; set -eux\n"
    )
    (home / ".bash_logout").write_text("echo bye; echo bye >&2\n")
    shell = shell_script(home / "shell", "echo MOTD; echo warning >&2; printf '\\x1b[31m 100 %%'")
    banner = home / "banner"
    banner.write_text("Only for members.\n")
    server = ssh.server("noisy", shell=shell, home=home, more=f"Banner {banner}")
    there = ssh.connect(backend, server, setup=["echo in setup", "export SITE='x y'"])
    done = there.run(["sh", "-c", 'cat; echo "$SITE" >&2'], stdin=b"in")
    assert (done.code, done.out, done.err) == (0, "in", "x y\n")
    lines: list[str] = []
    assert there.stream(["echo", "only this"], lines.append) == 0
    assert lines == ["only this"]
    # what should have brought a program is worth reading when it is not there
    assert "quota" in there.run(["sinfo-of-no-cluster"]).err


@pytest.mark.parametrize("shell", ["tcsh", "fish", "zsh", "dash"])
def test_other_login_shells(ssh: SshHome, backend: str, shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    home = ssh.bed.folder / f"{shell}-home"
    home.mkdir(exist_ok=True)
    (home / ".tcshrc").write_text("echo MOTD\n")
    there = ssh.connect(backend, ssh.server(shell, shell=path, home=home))
    out = io.BytesIO()
    there.pipe([*PRINT_WORDS, *HOSTILE[:-1]], sink=out)
    assert [os.fsdecode(word) for word in out.getvalue().split(b"\0")] == HOSTILE[:-1]


def test_a_login_that_ends_before_the_program_is_told(ssh: SshHome, backend: str) -> None:
    home = ssh.bed.folder / "closed-home"
    home.mkdir(exist_ok=True)
    (home / ".bash_profile").write_text("echo 'Your project has ended.'; exit 3\n")
    there = ssh.connect(backend, ssh.server("closed", shell="bash", home=home))
    with pytest.raises(SshError, match=r"(?s)exit 3.*Your project has ended"):
        there.run(["true"])


def test_nothing_of_the_input_stands_in_an_argument_list(
    there: SshTransport, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = f"cat /proc/[0-9]*/cmdline > {seen} 2>/dev/null; cat > /dev/null"
    there.run(["sh", "-c", script], stdin=b"canary-4711-secret")
    assert seen.stat().st_size > 0
    assert b"canary-4711-secret" not in seen.read_bytes()


def test_names_are_never_options() -> None:
    for host in ("-oProxyCommand=id", "a b", "a;id", "", "a\n"):
        with pytest.raises(SshError, match="no host name"):
            connect("x", Profile.model_construct(host=host, setup=[], user=None, port=None))
    with pytest.raises(SshError, match="no user name"):
        connect("x", Profile.model_construct(host="a", setup=[], user="-l", port=None))
    with pytest.raises(SshError, match="this machine"):
        connect("x", Profile())


def _alive(pids: Path) -> list[str]:
    """Of the processes on file those that still run; what was killed takes a moment to go."""
    until = time.monotonic() + 3
    while True:
        alive = [pid for pid in pids.read_text().split() if _runs(pid)]
        if not alive or time.monotonic() > until:
            return alive
        time.sleep(0.05)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
