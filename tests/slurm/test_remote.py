"""From a machine without Slurm, over a real sshd whose line breaks: a whole run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from clusterlm.cluster.remote.bootstrap import bootstrap
from clusterlm.spec.probe import Probe
from tests.bed.cutting_proxy import CuttingProxy
from tests.bed.slurm import SlurmBed
from tests.bed.ssh_fixture import SshHome
from tests.cluster.remote.conftest import profile_of, seed_packages
from tests.cluster.remote.local_transport import LocalTransport
from tests.slurm.conftest import SCRIPTS, counting, wait_until

Types = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def login_home(slurm: SlurmBed, tmp_path: Path) -> Path:
    """A home on the login node, whose login shell greets and knows Slurm."""
    home = tmp_path / "login"
    home.mkdir()
    env = slurm.env()
    lines = [f"export {name}={shlex.quote(env[name])}" for name in ("PATH", "SLURM_CONF")]
    (home / ".bash_profile").write_text("\n".join(["echo Welcome; echo quota >&2", *lines, ""]))
    # the packages without pip, the code as it is
    local = LocalTransport(home)
    seed_packages(local, profile_of())
    bootstrap(local, "mine", profile_of(), tell=lambda line: None)
    return home


@pytest.fixture
def proxy(ssh: SshHome, login_home: Path) -> Iterator[CuttingProxy]:
    server = ssh.server(f"login-{login_home.parent.name}", shell="bash", home=login_home)
    with CuttingProxy(server.port) as proxy:
        ssh.known_hosts.write_text(server.known_host.replace(str(server.port), str(proxy.port)))
        ssh.alias("login", server, port=proxy.port)
        yield proxy


@pytest.fixture(params=["openssh", "paramiko"])
def laptop(request: pytest.FixtureRequest, tmp_path: Path, proxy: CuttingProxy) -> Path:
    folder = tmp_path / "laptop"
    (folder / "project").mkdir(parents=True)
    fields = profile_of().model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    fields |= {"host": "login", "transport": request.param}
    config = folder / "clusters.yaml"
    config.write_text(yaml.safe_dump({"clusters": {"mine": fields}}))
    config.chmod(0o600)
    return folder


@pytest.fixture
def env(laptop: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLUSTERLM_R", "SLURM"))}
    # ssh and git, and nothing of Slurm
    path = laptop / "bin"
    path.mkdir()
    for program in ("ssh", "git", "sh", "bash"):
        if found := shutil.which(program):
            (path / program).symlink_to(found)
    return {
        **kept,
        "PATH": str(path),
        "CLUSTERLM_CONFIG": str(laptop / "clusters.yaml"),
        "CLUSTERLM_RUNS_DIR": str(laptop / "runs"),
        "CLUSTERLM_CACHE_DIR": str(laptop / "cache" / "data"),
    }


@pytest.fixture
def types(laptop: Path, env: dict[str, str]) -> Types:
    def type_(*words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "clusterlm", *words]
        return subprocess.run(
            argv,
            env=env,
            cwd=laptop / "project",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return type_


def test_a_run_over_a_line_that_breaks(
    laptop: Path, env: dict[str, str], types: Types, proxy: CuttingProxy
) -> None:
    shutil.copy(SCRIPTS / "counting.py", laptop / "project" / "counting.py")
    job = counting("far", 400, "--save-every", "5")
    job["cluster"] = "mine"
    job["train"]["command"][0] = "counting.py"
    (laptop / "project" / "far.yaml").write_text(yaml.safe_dump(job))
    done = types("submit", "far.yaml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cluster"] == "mine"

    log = laptop / "log.txt"
    with log.open("w") as out:
        argv = [sys.executable, "-m", "clusterlm", "logs", "far", "-f"]
        follower = subprocess.Popen(argv, env=env, cwd=laptop / "project", stdout=out, stderr=out)
    try:
        wait_until(lambda: "step" in log.read_text() or "rank" in log.read_text(), 120, "a line")
        proxy.cut()
        wait_until(lambda: "going on" in log.read_text(), 60, "the cut")
        status = types("status", "far", "--json")
        [row] = json.loads(status.stdout)
        assert row["cluster"] == "mine"
        assert row["state"] in ("STARTING", "TRAINING", "UNKNOWN"), row
        wait_until(lambda: (status_of(types).get("step") or 0) >= 10, 120, "step 10")
        cancelled = types("cancel", "far")
        assert cancelled.returncode == 0, cancelled.stderr
        assert "saved step" in cancelled.stdout
        assert follower.wait(120) == 0
    finally:
        follower.kill()
        follower.wait()
    assert log.read_text().splitlines()[-1].startswith("--- far is CANCELLED")
    assert "far is CANCELLED" in types("why", "far").stdout

    [row] = json.loads(types("status", "--json").stdout)
    step = row["step"] - row["step"] % 5
    fetched = types("fetch", "far", "--checkpoint", str(step))
    if fetched.returncode:
        # the save of the cancel made the older ones go
        runs = laptop.parent / "login" / "shared" / "runs" / "far" / "checkpoints"
        step = max(int(p.name.rpartition("-")[2]) for p in runs.glob("checkpoint-*"))
        fetched = types("fetch", "far", "--checkpoint", str(step))
    assert fetched.returncode == 0, fetched.stderr
    assert (laptop / "project" / "far" / f"checkpoint-{step}" / "MANIFEST.json").is_file()
    assert types("fetch", "far", "--logs").returncode == 0
    assert list((laptop / "project" / "far" / "logs").rglob("rank0.log"))


def status_of(types: Types) -> dict[str, int]:
    rows = json.loads(types("status", "far", "--json").stdout or "[]")
    return rows[0] if rows else {}


def test_doctor_looks_over_there_and_what_it_found_is_kept_here(laptop: Path, types: Types) -> None:
    done = types("doctor", "--cluster", "mine", "--json")
    assert done.returncode == 0, done.stderr
    assert "looks at 2 of the nodes" in done.stderr
    probe = Probe.model_validate_json(done.stdout)
    assert [node.host for node in probe.nodes] == ["node1", "node2"], probe.notes
    assert all(folder.visible for folder in probe.folders)
    kept = (laptop / "probes" / "mine.json").read_text()
    assert Probe.model_validate_json(kept) == probe


def test_check_tells_the_mistakes_of_both_sides_at_once_and_sends_nothing(
    laptop: Path, types: Types
) -> None:
    job = counting("wrong", 5, partition="short", time="2h", account="theirs", gpus_per_node=9)
    job |= {"cluster": "mine", "secrets": ["NOT_SET_ANYWHERE"], "modle": {}}
    job["train"]["command"][0] = "gone.py"
    (laptop / "project" / "wrong.yaml").write_text(yaml.safe_dump(job))
    done = types("check", "wrong.yaml")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "the longest job is 0:10:00 in partition short" in done.stderr
    for place in ("modle", "resources.time", "secrets", "train.command[0]"):
        assert done.stderr.count(f"  {place} ") == 1, done.stderr
    assert "theirs" in done.stdout + done.stderr
    login = laptop.parent / "login" / "shared"
    assert not [path for path in (login / "objects").rglob("*") if path.is_file()]
    assert not (login / "snapshots").exists()


def test_dry_run_prints_what_a_submit_would_send_and_nothing_else(
    laptop: Path, types: Types
) -> None:
    job = {**counting("fine", 5), "cluster": "mine"}
    (laptop / "project" / "fine.yaml").write_text(yaml.safe_dump(job))
    done = types("submit", "fine.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("==> spec.json <==\n")
    assert "it would start now" in done.stderr
    assert "fine.yaml" in done.stderr
