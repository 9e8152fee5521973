"""Files over connections that break, onto disks that are full: whole, or not there."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterlm.cluster.ssh import talk
from clusterlm.cluster.ssh.far_files import part_of
from clusterlm.cluster.ssh.talk import SshTransport
from clusterlm.cluster.ssh.transfer import fetch_file, send_file
from clusterlm.errors import ConnectionLost, SshError
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.ssh_fixture import SshHome

DATA = random.Random(3).randbytes(2_500_000)


@pytest.fixture
def there(ssh: SshHome, backend: str) -> SshTransport:
    return ssh.connect(backend, ssh.server("plain"))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    path.chmod(0o640)
    return path


def test_a_file_goes_there_and_comes_back(there: SshTransport, local: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    far = tmp_path / "new folder" / "it's $(here).bin"
    moved = send_file(there, local, str(far), progress=lambda *step: seen.append(step))
    assert (moved.size, moved.num_sent) == (len(DATA), len(DATA))
    assert moved.sha256 == hashlib.sha256(DATA).hexdigest()
    assert far.read_bytes() == DATA
    assert far.stat().st_mode & 0o777 == 0o640
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    back = tmp_path / "deep" / "back.bin"
    assert fetch_file(there, str(far), back).num_sent == len(DATA)
    assert back.read_bytes() == DATA
    # nothing is left beside them, and the second time nothing goes over
    assert os.listdir(far.parent) == [far.name]
    assert os.listdir(back.parent) == [back.name]
    assert send_file(there, local, str(far)).num_sent == 0
    assert fetch_file(there, str(far), back).num_sent == 0


def test_a_part_is_gone_on_with_and_a_wrong_one_is_not_believed(
    there: SshTransport, local: Path, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(DATA).hexdigest()
    far, back = tmp_path / "far.bin", tmp_path / "back.bin"
    Path(part_of(str(far), sha256)).write_bytes(DATA[:2_000_000])
    assert send_file(there, local, str(far)).num_sent == 500_000
    Path(part_of(str(back), sha256)).write_bytes(DATA[:2_400_000])
    assert fetch_file(there, str(far), back).num_sent == 100_000
    far.unlink()
    back.unlink()
    Path(part_of(str(far), sha256)).write_bytes(b"x" * 2_000_000)
    send_file(there, local, str(far), pause=lambda _: None)
    Path(part_of(str(back), sha256)).write_bytes(b"x" * 2_000_000)
    fetch_file(there, str(far), back, pause=lambda _: None)
    assert far.read_bytes() == back.read_bytes() == DATA


def test_an_empty_file(there: SshTransport, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    send_file(there, tmp_path / "empty", f"{tmp_path}/far")
    fetch_file(there, f"{tmp_path}/far", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounts a small disk: needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(argv, capture_output=True).returncode:
        pytest.skip("no mounts here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_in_words(
    there: SshTransport, local: Path, small_disk: Path, tmp_path: Path
) -> None:
    with pytest.raises(SshError, match=r"No space left on device: make room"):
        send_file(there, local, f"{small_disk}/far.bin")
    assert not (small_disk / "far.bin").exists()
    for part in small_disk.iterdir():
        part.unlink()
    with pytest.raises(SshError, match=r"No space left on device: make room"):
        fetch_file(there, str(local), small_disk / "back.bin")


def test_what_is_refused_is_told_at_once(there: SshTransport, local: Path, tmp_path: Path) -> None:
    def never(_: float) -> None:
        raise AssertionError("tried again")

    with pytest.raises(SshError, match="No such file"):
        fetch_file(there, f"{tmp_path}/none", tmp_path / "back", pause=never)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SshError, match="directory"):
        send_file(there, local, f"{tmp_path}/folder", pause=never)
    with pytest.raises(SshError, match="No such file"):
        send_file(there, tmp_path / "none", f"{tmp_path}/far", pause=never)
    with pytest.raises(SshError, match="not found"):
        send_file(there, local, f"{tmp_path}/far", python="no-python", pause=never)
    for path in ("relative", "~/x", "/folder/", "/a\0b"):
        with pytest.raises(SshError, match="absolute path"):
            send_file(there, local, path)


def test_a_part_that_is_a_link_is_not_followed(
    there: SshTransport, local: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    sha256 = hashlib.sha256(DATA).hexdigest()
    Path(part_of(f"{tmp_path}/far", sha256)).symlink_to(victim)
    Path(part_of(f"{tmp_path}/back", sha256)).symlink_to(victim)
    with pytest.raises(SshError, match="symbolic links"):
        send_file(there, local, f"{tmp_path}/far")
    with pytest.raises(SshError, match="symbolic links"):
        fetch_file(there, str(local), tmp_path / "back")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("seed", [1])
def test_cuts_cost_no_more_than_what_was_on_its_way(
    ssh: SshHome,
    backend: str,
    local: Path,
    tmp_path: Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # nothing of the other side is waited for once the line is cut
    monkeypatch.setattr(talk, "STOP_GRACE_S", 600.0)
    server = ssh.server("plain")
    chance = random.Random(seed)
    with CuttingProxy(server.port) as proxy:
        ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
        ssh.alias("cluster", server, port=proxy.port)
        there = ssh.connect(backend, "cluster")
        there.run(["true"])

        def cut_again(_: float) -> None:
            proxy.cut_after(chance.randrange(400_000, 1_800_000))

        # no line is so fast that a program starts after all has been sent
        proxy.delay(0.01)
        cut_again(0)
        send_file(there, local, f"{tmp_path}/far", pause=cut_again, tries=20)
        cut_again(0)
        fetch_file(there, f"{tmp_path}/far", tmp_path / "back", pause=cut_again, tries=20)
        there.hang_up()
    assert (tmp_path / "far").read_bytes() == (tmp_path / "back").read_bytes() == DATA
    assert proxy.num_accepted > 2


def test_a_line_that_stays_dead_ends_it(ssh: SshHome, backend: str, local: Path) -> None:
    server = ssh.server("plain")
    waits: list[float] = []
    with CuttingProxy(server.port) as proxy:
        ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
        ssh.alias("cluster", server, port=proxy.port)
        there = ssh.connect(backend, "cluster")
        there.run(["true"])

        def wait(seconds: float) -> None:
            waits.append(seconds)
            proxy.cut_after(30_000)

        proxy.cut_after(100_000)
        with pytest.raises(SshError) as caught:
            send_file(there, local, f"{local.parent}/far", pause=wait, tries=4)
        there.hang_up()
    assert isinstance(caught.value, ConnectionLost) or "hung up" in str(caught.value)
    assert waits[-3:] == [1.0, 2.0, 4.0]
