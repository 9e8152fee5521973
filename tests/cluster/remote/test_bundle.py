"""Many small files come in one stream: whole, checked, and never outside of their folder."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.remote import bootstrap as boot
from clusterlm.cluster.remote import bundle, fetch
from clusterlm.cluster.remote.bundle import Receiver
from clusterlm.cluster.remote.forward import Remote
from clusterlm.errors import ConnectionLost, SshRefused
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.ssh_fixture import SshHome
from tests.cluster.remote.conftest import Clusterlm, profile_of
from tests.cluster.remote.local_transport import LocalTransport
from tests.cluster.remote.test_submit_elsewhere import job, run_there

SIZES = (0, 1, 79, 80, 81, 5000, 70_000, *range(100, 130))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    for number, size in enumerate(SIZES):
        file = root / "logs" / f"{number % 5}" / f"rank{number}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(size))
    return root


def files_of(root: Path) -> dict[str, bytes]:
    found = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def sizes_of(root: Path) -> dict[str, int]:
    return {path: len(content) for path, content in files_of(root).items()}


def stream_of(root: Path, wanted: list[tuple[str, int]]) -> bytes:
    sink = io.BytesIO()
    bundle.give(root, wanted, sink)
    return sink.getvalue()


def remote_of(transport: Any) -> Remote:
    remote = Remote("there", profile_of(), transport, tell=lambda line: None)
    remote.__dict__["installed"] = boot.Installed(sys.executable, "/s", "/home/me")
    return remote


@pytest.mark.parametrize("piece", [1, 7, 64, 4096, 10**6])
def test_pieces_of_any_size_make_the_same_files(run: Path, tmp_path: Path, piece: int) -> None:
    wanted = list(sizes_of(run).items())
    stream = stream_of(run, wanted)
    came: list[int] = []
    with Receiver(wanted, lambda path: tmp_path / "out" / path, came=came.append) as receiver:
        for at in range(0, len(stream), piece):
            assert receiver.write(stream[at : at + piece]) == len(stream[at : at + piece])
        assert receiver.left == []
    assert files_of(tmp_path / "out") == files_of(run)
    assert sum(came) == sum(sizes_of(run).values())


def test_every_cut_leaves_whole_files_alone(run: Path, tmp_path: Path) -> None:
    wanted = [item for item in sizes_of(run).items() if item[1] < 200]
    stream = stream_of(run, wanted)
    whole = files_of(run)
    for cut in range(0, len(stream), 37):
        out = tmp_path / str(cut)
        with Receiver(wanted, lambda path, out=out: out / path) as receiver:
            receiver.write(stream[:cut])
            left = [path for path, _ in receiver.left]
        got = files_of(out)
        assert all(content == whole[path] for path, content in got.items())
        assert sorted([*got, *left]) == sorted(path for path, _ in wanted)


def test_a_broken_line_goes_on_with_what_is_missing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda s: None)
    there = LocalTransport(tmp_path)
    there.cuts = [4000, 5000, 80_000]
    sizes = sizes_of(run)
    fetch._fetch_small(
        remote_of(there), str(run), sizes, lambda p: tmp_path / "o" / p, lambda line: None
    )
    assert files_of(tmp_path / "o") == files_of(run)
    assert len(there.calls) == 4
    # a line that never brings a file is given up
    there.cuts = [10] * 20
    with pytest.raises(ConnectionLost):
        fetch._fetch_small(
            remote_of(there), str(run), sizes, lambda p: tmp_path / "n" / p, lambda line: None
        )
    assert files_of(tmp_path / "n") == {}


def test_what_changes_meanwhile_harms_nothing(run: Path, tmp_path: Path) -> None:
    wanted = [("logs/0/rank0.log", 0), ("logs/1/rank1.log", 1), ("logs/2/rank2.log", 79)]
    wanted += [("logs/0/rank5.log", 5000), ("logs/1/rank6.log", 70_000)]
    # one grows, one has gone, one is a folder now, one a pipe, one is shorter
    (run / "logs/0/rank0.log").write_text("grown")
    (run / "logs/1/rank1.log").unlink()
    (run / "logs/2/rank2.log").unlink()
    (run / "logs/2/rank2.log").mkdir()
    (run / "logs/0/rank5.log").unlink()
    os.mkfifo(run / "logs/0/rank5.log")
    (run / "logs/1/rank6.log").write_text("short")
    with Receiver(wanted, lambda path: tmp_path / "out" / path) as receiver:
        receiver.write(stream_of(run, wanted))
        assert receiver.left == []
    assert files_of(tmp_path / "out") == {"logs/0/rank0.log": b"", "logs/1/rank6.log": b"short"}


def framed(content: bytes, *, mode: str = "600", sha256: str | None = None) -> bytes:
    digest = sha256 or hashlib.sha256(content).hexdigest()
    return f"{len(content)} {mode}\n".encode() + content + f"{digest}\n".encode()


@pytest.mark.parametrize(
    "stream",
    [
        framed(b"more than was said"),
        framed(b"ab", sha256="0" * 64),
        framed(b"ab", sha256="../../x"),
        framed(b"ab", mode="99999"),
        framed(b"ab") + framed(b"cd") + framed(b"ef"),
        framed(b"ab") + framed(b"cd") + b"more\n",
        b"x" * 5000,
        b"-5 600\n",
        b"1e9 600\n",
        b"../../other 5 600\n",
        b"\n\n\n",
        b"\xff\xfe\n",
    ],
)
def test_a_stream_of_lies_is_refused_and_writes_nothing_else(stream: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out"
    receiver = Receiver([("a", 2), ("b/c", 2)], lambda path: out / path)
    with receiver, pytest.raises(SshRefused):
        receiver.write(stream)
    assert set(files_of(tmp_path)) <= {"out/a", "out/b/c"}
    assert set(files_of(tmp_path).values()) <= {b"ab", b"cd"}


def test_a_full_disk_is_told_with_its_place_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("clusterlm.cluster.remote.bundle.os.open", full)
    receiver = Receiver([("a", 2)], lambda path: tmp_path / path)
    with pytest.raises(SshRefused, match=f"{tmp_path}/a: No space left on device: make room"):
        receiver.write(framed(b"ab"))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(victim)
    with Receiver([("a", 2)], lambda path: out / path) as receiver:
        receiver.write(framed(b"ab", mode="4777"))
    assert victim.read_text() == "mine"
    assert (out / "a").read_text() == "ab"
    assert not (out / "a").is_symlink()
    assert (out / "a").stat().st_mode & 0o7777 == 0o755


def test_the_other_side_gives_nothing_outside_of_the_run(run: Path) -> None:
    for path in ("../secret", "/etc/passwd", "logs/../../x", ""):
        with pytest.raises(SshRefused):
            stream_of(run, [(path, 10)])


def test_an_end_that_comes_early_is_told(tmp_path: Path) -> None:
    there = LocalTransport(tmp_path)
    remote = remote_of(there)
    remote.__dict__["installed"] = boot.Installed("/bin/true", "/s", "/home/me")
    with pytest.raises(SshRefused, match="ended early"):
        fetch._fetch_small(remote, "/r", {"a": 1, "b": 1}, lambda p: tmp_path / p, print)


def test_a_real_line_brings_them(ssh: SshHome, backend: str, run: Path, tmp_path: Path) -> None:
    remote = remote_of(ssh.connect(backend, ssh.server("plain")))
    out = tmp_path / "o"
    fetch._fetch_small(remote, str(run), sizes_of(run), lambda path: out / path, print)
    assert files_of(out) == files_of(run)


def test_a_real_line_that_breaks_is_gone_on_with(
    ssh: SshHome, backend: str, run: Path, tmp_path: Path
) -> None:
    for number in range(60):
        (run / "logs" / f"more{number}.log").write_bytes(os.urandom(100_000))
    server = ssh.server("plain")
    said: list[str] = []
    with CuttingProxy(server.port) as proxy:
        ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
        transport = ssh.connect(backend, ssh.alias("cut", server, port=proxy.port))
        assert transport.run(["true"]).is_ok
        out = tmp_path / "o"
        proxy.cut_after(4_000_000)
        fetch._fetch_small(
            remote_of(transport), str(run), sizes_of(run), lambda path: out / path, said.append
        )
        assert any("going on with what is missing" in line for line in said)
        # what had come whole did not come again; all of it would be 1.66, on its way may be some MB
        assert proxy.num_bytes < 1.5 * sum(sizes_of(run).values())
        transport.hang_up()
    assert files_of(out) == files_of(run)


def test_fetch_needs_one_stream_for_many_files(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml")
    logs = run_there(there) / "attempts" / "1" / "logs"
    logs.mkdir(parents=True)
    for rank in range(40):
        (logs / f"rank{rank}.log").write_text(f"rank {rank}\n")
    (logs / "large.log").write_bytes(os.urandom(fetch.LARGE))
    before = len(there.calls)
    code, out, err = clusterlm("fetch", "small", "--logs")
    assert code == 0, err
    got = laptop / "small" / "logs"
    assert files_of(got / "attempts" / "1" / "logs") == files_of(logs)
    # a look, one stream, and two calls for the large one
    assert len(there.calls) - before <= 6
    assert out.strip() == "small/logs"
