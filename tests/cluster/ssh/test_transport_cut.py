"""Connections that break: what is not known is said to be unknown, what is safe is done again."""

from __future__ import annotations

import io
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusterlm.cluster.ssh.talk import SshTransport
from clusterlm.errors import ConnectionLost, SshError
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.ssh_fixture import SshHome


@pytest.fixture
def proxy(ssh: SshHome) -> Iterator[CuttingProxy]:
    with CuttingProxy(ssh.server("plain").port) as proxy:
        yield proxy


@pytest.fixture
def there(ssh: SshHome, backend: str, proxy: CuttingProxy) -> SshTransport:
    server = ssh.server("plain")
    ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
    ssh.alias("cluster", server, port=proxy.port)
    return ssh.connect(backend, "cluster")


def test_a_cut_in_the_middle_is_told_and_the_next_call_connects_again(
    there: SshTransport, proxy: CuttingProxy
) -> None:
    there.run(["true"])
    timer = threading.Timer(1.5, proxy.cut)
    timer.start()
    with pytest.raises(ConnectionLost, match="not known"):
        there.run(["sleep", "20"])
    timer.join()
    assert there.run(["echo", "back"]).out == "back\n"


def test_a_cut_between_two_calls_is_not_noticed(there: SshTransport, proxy: CuttingProxy) -> None:
    for _ in range(3):
        assert there.run(["true"]).is_ok
        proxy.cut()
        time.sleep(0.3)


def test_a_followed_program_ends_when_the_line_is_cut(
    there: SshTransport, proxy: CuttingProxy, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(ConnectionLost):
        there.stream(
            ["sh", "-c", f"echo $$ > {pid}; echo go; exec sleep 300"], lambda _: proxy.cut()
        )
    until = time.monotonic() + 10
    while Path(f"/proc/{pid.read_text().strip()}").exists():
        assert time.monotonic() < until, "it runs on"
        time.sleep(0.1)


def test_a_run_goes_on_over_there_until_its_time_is_up(
    there: SshTransport, proxy: CuttingProxy, tmp_path: Path
) -> None:
    done, begun = tmp_path / "done", tmp_path / "begun"

    def cut() -> None:
        while not begun.exists():
            time.sleep(0.05)
        proxy.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(ConnectionLost):
        there.run(["sh", "-c", f"touch {begun}; sleep 1; touch {done}; sleep 300"], timeout_s=30)
    thread.join()
    until = time.monotonic() + 10
    while not done.exists():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("seed", range(6))
def test_cuts_at_any_byte_are_never_taken_for_a_result(
    there: SshTransport, proxy: CuttingProxy, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(300_000)
    marks = tmp_path / "ran"
    proxy.cut_after(chance.randrange(1, 500_000))
    out = io.BytesIO()
    try:
        done = there.pipe(["sh", "-c", f"echo >> {marks}; cat"], source=io.BytesIO(data), sink=out)
    except ConnectionLost:
        assert data.startswith(out.getvalue())
    except SshError:
        # no connection: then nothing has happened
        assert not marks.exists()
    else:
        assert done.is_ok
        assert out.getvalue() == data
    assert there.run(["true"], timeout_s=60).is_ok


def test_a_socket_that_a_killed_master_left_is_no_hindrance(ssh: SshHome) -> None:
    there = ssh.connect("openssh", ssh.server("plain"))
    there.run(["true"])
    _kill_master()
    assert there.run(["echo", "again"]).out == "again\n"


def test_a_connection_that_fell_silent_is_made_again(
    ssh: SshHome, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a laptop that slept: the master lives, the other end does not answer
    monkeypatch.setattr("clusterlm.cluster.ssh.master.FRESH_S", 0.0)
    monkeypatch.setattr("clusterlm.cluster.ssh.master.PROBE_S", 2.0)
    server = ssh.server("plain")
    ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
    ssh.alias("cluster", server, port=proxy.port)
    there = ssh.connect("openssh", "cluster")
    there.run(["true"])
    proxy.stall()
    timer = threading.Timer(3.0, proxy.resume)
    timer.start()
    assert there.run(["echo", "awake"], timeout_s=60).out == "awake\n"
    timer.join()


def test_a_silent_connection_leaves_half_a_minute_to_look_the_truth_up() -> None:
    pytest.importorskip("paramiko")
    from clusterlm.cluster.ssh import master, paramiko_link

    # ssh gives up one interval after its last question
    assert master.ALIVE_EVERY_S * (master.ALIVE_TIMES + 1) <= 30
    assert paramiko_link.ALIVE_EVERY_S + paramiko_link.ALIVE_PATIENCE_S <= 30


def test_paramiko_gives_up_a_silent_connection(
    ssh: SshHome, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("paramiko")
    monkeypatch.setattr("clusterlm.cluster.ssh.paramiko_link.ALIVE_EVERY_S", 0.5)
    monkeypatch.setattr("clusterlm.cluster.ssh.paramiko_link.ALIVE_PATIENCE_S", 1.5)
    server = ssh.server("plain")
    ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
    ssh.alias("cluster", server, port=proxy.port)
    there = ssh.connect("paramiko", "cluster")
    began = time.monotonic()
    with pytest.raises(ConnectionLost):
        there.stream(["sh", "-c", "echo go; sleep 300"], lambda _: proxy.stall())
    assert time.monotonic() - began < 30
    proxy.resume()


def test_two_clusterlms_share_one_connection(ssh: SshHome, proxy: CuttingProxy) -> None:
    server = ssh.server("plain")
    ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
    ssh.alias("cluster", server, port=proxy.port)
    transports = [ssh.connect("openssh", "cluster") for _ in range(3)]
    threads = [threading.Thread(target=t.run, args=(["true"],)) for t in transports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert proxy.num_accepted == 1


def test_the_folder_of_sockets_is_private(
    ssh: SshHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterlm.cluster.ssh.private_folder import socket_folder

    folder = socket_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert socket_folder() != folder
    folder.chmod(0o700)
    # too long for a socket: another place
    long = tmp_path / ("x" * 90)
    long.mkdir()
    assert not socket_folder({"XDG_RUNTIME_DIR": str(long)}).is_relative_to(long)


def _kill_master() -> None:
    folder = Path(os.environ["XDG_RUNTIME_DIR"]) / "clusterlm-ssh"
    (path,) = [p for p in folder.iterdir() if p.is_socket()]
    found = subprocess.run(
        ["ssh", "-S", str(path), "-O", "check", "x"], capture_output=True, text=True
    )
    os.kill(int(found.stderr.split("pid=")[1].rstrip(")\r\n")), 9)
    time.sleep(0.2)
    assert path.exists()
