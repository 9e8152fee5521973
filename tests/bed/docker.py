"""A real dockerd of the tests' own, with stand-ins for NVIDIA's base images.

    def test_image_runs(docker):
        done = docker.run("run", "--rm", "--network", "host", docker.fake_base, "python3", "-V")

`docker` sets DOCKER_HOST and PATH for the test, so that the code under test finds this daemon and a
client that works with it. `docker_bed` is the same for a whole session. The daemon has its own
socket and makes no bridge and no firewall rule; an image or container of this machine's own Docker
is never seen. What it stores outlives the session (`$XDG_CACHE_HOME/clusterlm-tests`), so only the
first run is slow. Tests that use it carry the marker `docker`.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bed import bases
from tests.bed.daemons import Daemon
from tests.bed.waiting import BedError

PROGRAMS = ("dockerd", "containerd", "runc", "debootstrap")
ROOTFS = "clusterlm-bed/rootfs"
# what BuildKit keeps from session to session; the layers of the training stack are the most of it
KEEP_STORAGE = "3GB"


@dataclass
class DockerBed:
    """One dockerd: its work folder (socket, pid, logs), where it stores, a client for it."""

    work: Path
    storage: Path
    client: Path
    _daemon: Daemon | None = None

    @property
    def socket(self) -> Path:
        return self.work / "docker.sock"

    @property
    def env(self) -> dict[str, str]:
        """What a program must have in its environment to reach this daemon and no other."""
        return {
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.work / "config"),
            "DOCKER_BUILDKIT": "1",
            "PATH": f"{self.work}/bin:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        for name in ("log", "pids", "config", "exec", "bin"):
            (self.work / name).mkdir(parents=True, exist_ok=True)
        # before every other client on PATH, and nothing else with it
        (self.work / "bin/docker").symlink_to(self.client)
        config = self.work / "daemon.json"
        collects = {"gc": {"enabled": True, "defaultKeepStorage": KEEP_STORAGE}}
        config.write_text(json.dumps({"builder": collects}))
        argv = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none"]
        argv += ["--config-file", str(config), "--host", f"unix://{self.socket}"]
        argv += ["--data-root", str(self.storage), "--exec-root", str(self.work / "exec")]
        argv += ["--pidfile", str(self.work / "docker.pid"), "--storage-driver", self._driver()]
        self._daemon = Daemon("dockerd", argv, work=self.work, env={**os.environ, **self.env})
        self._daemon.start()
        self._daemon.wait_until_up(lambda: self.run("version", check=False).returncode == 0)

    def stop(self) -> None:
        """End its containers, then itself; nothing stays mounted."""
        if self._daemon and self._daemon.is_alive():
            self.remove_containers()
            self._forget_images()
            self._daemon.stop()
        _unmount_below(self.work, self.storage)

    def run(
        self, *words: str, check: bool = True, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the client.

        Raises:
            BedError: it failed, and `check` was not switched off.
        """
        done = subprocess.run(
            [self.client, *words],
            input=stdin,
            capture_output=True,
            env={**os.environ, **self.env},
            check=False,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode:
            raise BedError(f"docker {' '.join(words)}: exit {done.returncode}\n{out}{err}")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def remove_containers(self) -> None:
        """All of them: they are the bed's own."""
        if left := self.run("ps", "--all", "--quiet").stdout.split():
            self.run("rm", "--force", *left, check=False)

    def _forget_images(self) -> None:
        """The stand-ins stay, and of the layers of what tests built, as much as KEEP_STORAGE."""
        built = self.run("images", "--quiet", "--filter", "label=clusterlm.recipe").stdout.split()
        if built:
            self.run("rmi", "--force", *set(built), check=False)
        self.run("image", "prune", "--force", check=False)
        self.run("builder", "prune", "--force", "--keep-storage", KEEP_STORAGE, check=False)

    def has_base(self, base: bases.Base) -> bool:
        """Whether the very stand-in is stored."""
        show = '{{ index .Config.Labels "clusterlm.bed" }}'
        return (
            self.run("inspect", "--format", show, base.tag, check=False).stdout.strip() == base.key
        )

    def add_base(self, base: bases.Base) -> None:
        """Build a stand-in, unless the very same is stored."""
        if self.has_base(base):
            return
        rootfs = bases.rootfs_tar()
        tag = f"{ROOTFS}:{rootfs.stem}"
        if self.run("inspect", tag, check=False).returncode:
            self.run("import", str(rootfs), tag)
        argv = [self.client, "build", "--network", "host", "--tag", base.tag, "-"]
        with (
            (self.work / "log/base.out").open("wb") as log,
            subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.env},
            ) as build,
        ):
            assert build.stdin is not None
            with contextlib.suppress(BrokenPipeError), build.stdin as stream:
                for piece in bases.context_tar(base, tag):
                    stream.write(piece)
        if build.returncode:
            raise BedError(f"no stand-in {base.tag}:\n{(self.work / 'log/base.out').read_text()}")

    def _driver(self) -> str:
        """Overlay where it can be mounted: vfs copies every layer whole."""
        with tempfile.TemporaryDirectory(dir=self.storage) as trial:
            for name in ("lower", "upper", "work", "merged"):
                (Path(trial) / name).mkdir()
            layers = f"lowerdir={trial}/lower,upperdir={trial}/upper,workdir={trial}/work"
            argv = ["mount", "-t", "overlay", "overlay", "-o", layers, f"{trial}/merged"]
            if subprocess.run(argv, capture_output=True, check=False).returncode:
                return "vfs"
            subprocess.run(["umount", f"{trial}/merged"], check=True)
        return "overlay2"


def find_lack() -> str | None:
    """One sentence that names what this machine lacks to carry the bed; None if nothing."""
    if os.geteuid() != 0:
        return "The Docker bed needs root (dockerd, debootstrap): run the tests as root."
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if absent:
        return f"The Docker bed lacks {', '.join(absent)}: run tests/bed/install.sh as root."
    if find_client() is None:
        return "No docker client here builds with BuildKit: run tests/bed/install.sh as root."
    return None


def find_client() -> Path | None:
    """The first that builds with BuildKit; newer clients cannot without their buildx plugin."""
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/bin", "/usr/sbin"]
    for folder in dict.fromkeys(folders):
        client = Path(folder or ".") / "docker"
        if not os.access(client, os.X_OK):
            continue
        trial = subprocess.run(
            [client, "build", "--help"],
            capture_output=True,
            text=True,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            check=False,
        )
        if trial.returncode == 0 and "--secret" in trial.stdout:
            return client
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "docker: needs the real Docker of tests/bed")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses the bed."""
    for item in items:
        if "docker_bed" in getattr(item, "fixturenames", ()):
            item.add_marker("docker")


@contextlib.contextmanager
def started(client: Path) -> Iterator[DockerBed]:
    """A daemon that runs until the end of the block."""
    with contextlib.ExitStack() as stack:
        work, storage = stack.enter_context(_own_folders())
        bed = DockerBed(work, storage, client)
        stack.callback(bed.stop)
        bed.start()
        bed.remove_containers()
        yield bed


@pytest.fixture(scope="session")
def docker_bed() -> Iterator[DockerBed]:
    """The daemon for a whole session, without any base image."""
    lack = find_lack()
    if lack and (os.environ.get("CI") == "true" or os.environ.get("CLUSTERLM_REQUIRE_DOCKER")):
        pytest.fail(lack, pytrace=False)
    client = find_client()
    if lack or client is None:
        pytest.skip(lack or "no docker client")
    with started(client) as bed:
        yield bed


@pytest.fixture
def docker(docker_bed: DockerBed, monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerBed]:
    """The daemon as the one that this test's environment names; its containers are removed."""
    for name, value in docker_bed.env.items():
        monkeypatch.setenv(name, value)
    yield docker_bed
    docker_bed.remove_containers()


@pytest.fixture(scope="session")
def fake_base(docker_bed: DockerBed, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The default base, with a torch that only says its version."""
    base = bases.fake_base(tmp_path_factory.mktemp("fake-base"))
    docker_bed.add_base(base)
    return base.tag


@pytest.fixture(scope="session")
def train_base(docker_bed: DockerBed) -> str:
    """A base with the torch that runs the tests: what trains outside trains in it."""
    base = bases.train_base()
    docker_bed.add_base(base)
    return base.tag


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """Packages for images built here: containers reach no index."""
    return bases.wheelhouse()


@pytest.fixture(scope="session")
def thin_wheelhouse() -> Path:
    """The same names and versions, hollow where they are heavy: for images that need not train."""
    return bases.wheelhouse(thin=True)


@contextlib.contextmanager
def _own_folders() -> Iterator[tuple[Path, Path]]:
    """A work folder, and the storage of the last session; an empty one while another has that."""
    kept = bases.cache_folder() / "docker"
    kept.mkdir(exist_ok=True, mode=0o711)
    # a socket's path may have 107 characters, so not in the cache folder
    with (
        tempfile.TemporaryDirectory(prefix="clusterlm-docker-") as folder,
        kept.with_suffix(".lock").open("a+") as lock,
    ):
        work = Path(folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (work / "storage").mkdir()
            yield work, work / "storage"
            return
        lock.seek(0)
        if left := lock.read():
            _end_killed_session(Path(left), kept)
        lock.truncate(0)
        lock.write(folder)
        lock.flush()
        yield work, kept


def _end_killed_session(work: Path, storage: Path) -> None:
    """A session that was killed left its dockerd, which holds the storage."""
    is_left = work.is_dir() and work.stat().st_uid == 0
    if is_left and (client := find_client()):
        daemon = Daemon("dockerd", [], work=work)
        bed = DockerBed(work, storage, client, daemon)
        # first the containers: a daemon that ends waits for each of them, or leaves it behind
        if daemon.is_alive() and bed.run("version", check=False).returncode == 0:
            bed.remove_containers()
        daemon.stop()
    _unmount_below(work, storage)
    if is_left:
        shutil.rmtree(work, ignore_errors=True)


def _unmount_below(*folders: Path) -> None:
    for mounted in sorted(_mounts_below(*folders), reverse=True):
        subprocess.run(["umount", "--lazy", mounted], check=False)


def _mounts_below(*folders: Path) -> list[str]:
    rows = [line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [row for row in rows if any(Path(row).is_relative_to(folder) for folder in folders)]
