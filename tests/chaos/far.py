"""A login node in front of the bed, and laptops whose lines break at will, for the campaigns.

The login node is a real sshd with a home of its own, whose profile knows the bed's Slurm. Over
there every program is the true one; behind the guard of the job of a run named `cut-..` a line in a
file stands for the training, so that a campaign takes minutes and not hours.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from clusterlm.cluster.remote.bootstrap import bootstrap
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.slurm import SlurmBed
from tests.bed.ssh_fixture import SshBed
from tests.bed.sshd import HOST, Sshd
from tests.cluster.remote.conftest import profile_of, seed_packages
from tests.cluster.remote.local_transport import LocalTransport

BACKENDS = ("openssh", "paramiko")

# read by every Python over there; only that of a job has something to do
STAND_IN = """\
import sys

# -u -m clusterlm.supervise.batch_step RUN PHASE TOKEN
if "clusterlm.supervise.batch_step" in sys.orig_argv and "/runs/cut-" in sys.orig_argv[-3]:
    import submitit.core.submission as submission

    def train(folder):
        with open(folder.parent / "trained.txt", "a") as log:
            log.write("once\\n")

    submission.process_job = train
"""


@dataclass
class FarCluster:
    """The login node.

    Attributes:
        home: of the account there.
        server: its sshd.
    """

    home: Path
    server: Sshd

    @property
    def folder(self) -> Path:
        """Of the profile, over there."""
        return self.home / "shared"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def unfinished(self) -> list[str]:
        """What is written aside and was never renamed or removed."""
        kinds = ("objects", "snapshots", "uploads", "submits", "runs")
        asides = [
            path
            for kind in kinds
            for depth in ("*", "*/*", "*/*/*")
            for path in (self.folder / kind).glob(depth)
            if path.name.startswith(".") or path.name.endswith(".part")
        ]
        kept = {self.runs / name for name in (".submits", ".scheduler.json", ".scheduler.lock")}
        kept.add(self.folder / "objects" / ".asked")
        return [str(path.relative_to(self.folder)) for path in asides if path not in kept]

    def programs(self) -> list[int]:
        """Clusterlms that still run over there, those of jobs too."""
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = file.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if line.startswith(f"{self.folder}/software/"):
                found.append(int(file.parent.name))
        return found


@contextmanager
def far_cluster(bed: SlurmBed, folder: Path) -> Iterator[FarCluster]:
    """Start it, with this clusterlm installed."""
    home = folder / "login"
    home.mkdir()
    env = bed.env()
    lines = [f"export {name}={shlex.quote(env[name])}" for name in ("PATH", "SLURM_CONF")]
    (home / ".bash_profile").write_text("\n".join(["echo Welcome; echo quota >&2", *lines, ""]))
    local = LocalTransport(home)
    seed_packages(local, profile_of())
    [site] = (home / "shared/software").glob("*/lib/python*/site-packages")
    (site / "stand_in_for_training.py").write_text(STAND_IN)
    # behind packages.pth, which brings submitit
    (site / "zz.pth").write_text("import stand_in_for_training\n")
    for name in BACKENDS:
        bootstrap(local, name, _profile(name), tell=lambda line: None)
    servers = SshBed(folder / "ssh")
    servers.folder.mkdir()
    try:
        yield FarCluster(home, servers.server("login", shell="bash", home=home))
    finally:
        servers.stop()


def _profile(backend: str) -> object:
    return profile_of(host="login", transport=backend)


@dataclass
class Laptop:
    """A user's machine; the clusters that it knows are `openssh` and `paramiko`, named so after
    the way to the one that there is.
    """

    folder: Path
    proxy: CuttingProxy
    env: dict[str, str]

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def starts(self, project: Path, *words: str, say: Path) -> subprocess.Popen[bytes]:
        """Type a command; what it prints goes to `say`.out and `say`.err."""
        with say.with_suffix(".out").open("wb") as out, say.with_suffix(".err").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "clusterlm", *words],
                env=self.env,
                cwd=project,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def types(self, project: Path, *words: str, timeout_s: float = 240) -> tuple[int, str, str]:
        """Type a command and wait for its end: code and both outputs."""
        done = subprocess.run(
            [sys.executable, "-m", "clusterlm", *words],
            env=self.env,
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


@contextmanager
def laptop(far: FarCluster, folder: Path, *, runs: Path | None = None) -> Iterator[Laptop]:
    """One with a line of its own; several may share their runs."""
    folder.mkdir()
    sockets = Path(tempfile.mkdtemp(prefix="clm", dir="/tmp"))
    with CuttingProxy(far.server.port) as proxy:
        known = folder / "known_hosts"
        known.write_text(far.server.known_host.replace(str(far.server.port), str(proxy.port)))
        lines = ["Host login", f"HostName {HOST}", f"Port {proxy.port}"]
        lines += [f"IdentityFile {far.server.user_key}", "IdentitiesOnly yes"]
        lines += [f"UserKnownHostsFile {known}", "GlobalKnownHostsFile /dev/null", ""]
        (folder / "ssh_config").write_text("\n  ".join(lines))
        clusters = {
            name: _profile(name).model_dump(mode="json", exclude_none=True, exclude_defaults=True)  # type: ignore[attr-defined]
            for name in BACKENDS
        }
        config = folder / "clusters.yaml"
        config.write_text(yaml.safe_dump({"clusters": clusters}))
        config.chmod(0o600)
        yield Laptop(folder, proxy, _environment(folder, sockets, runs or folder / "runs"))
    shutil.rmtree(sockets, ignore_errors=True)


def _environment(folder: Path, sockets: Path, runs: Path) -> dict[str, str]:
    """Ssh and git on PATH, and nothing of Slurm."""
    path = folder / "bin"
    path.mkdir()
    for program in ("ssh", "git", "sh", "bash"):
        if found := shutil.which(program):
            (path / program).symlink_to(found)
    left_out = ("CLUSTERLM_", "SLURM", "SSH_AUTH_SOCK", "PYTHONDONTWRITEBYTECODE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return {
        **kept,
        "PATH": str(path),
        "CLUSTERLM_CONFIG": str(folder / "clusters.yaml"),
        "CLUSTERLM_SSH_CONFIG": str(folder / "ssh_config"),
        "CLUSTERLM_RUNS_DIR": str(runs),
        "CLUSTERLM_CACHE_DIR": str(folder / "cache" / "data"),
        "XDG_RUNTIME_DIR": str(sockets),
    }
