"""A cluster behind `LocalTransport`, and a laptop with a profile of it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterlm import cli
from clusterlm.cluster.images.wheel import requirements_of
from clusterlm.cluster.remote import bootstrap as boot
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.ssh import connect
from clusterlm.spec.profile import Profile
from tests.cluster.remote.local_transport import LocalTransport

BASE_PYTHON = str(Path(sys._base_executable).resolve())
SLURM = Path(__file__).parent / "fake_slurm"


def profile_of(**further: object) -> Profile:
    return Profile.model_validate(
        {"host": "login.example", "folder": "~/shared", "python": BASE_PYTHON, **further}
    )


def seed_packages(transport: LocalTransport, profile: Profile) -> None:
    """Packages without pip: those that this test runs with."""
    found = boot._probe(transport, "there", profile)
    assert found.python is not None
    name = boot._deps_name(requirements_of(), found.python)
    root = Path(found.folder) / "software" / name
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    site = root / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    own = sysconfig.get_path("purelib")
    (site / "packages.pth").write_text(f"import site; site.addsitedir({own!r})\n")
    (root / "READY").write_text(name)


@pytest.fixture(scope="session")
def installed_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home over there with clusterlm in it; used by many tests, so each has its own folder."""
    home = tmp_path_factory.mktemp("there") / "home"
    home.mkdir()
    transport = LocalTransport(home)
    seed_packages(transport, profile_of())
    boot.bootstrap(transport, "there", profile_of(), tell=lambda line: None)
    return home


@pytest.fixture
def there(tmp_path: Path, installed_home: Path) -> LocalTransport:
    """The other machine, with a Slurm that takes every job; its software is there already."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "shared").mkdir()
    (home / "shared" / "software").symlink_to(installed_home / "shared" / "software")
    (home / ".bash_profile").write_text(
        f'echo "Welcome to the cluster" >&2\nexport PATH="{SLURM}:$PATH"\n'
    )
    return LocalTransport(home)


@pytest.fixture
def remote(there: LocalTransport) -> Remote:
    return Remote("there", profile_of(), there, tell=lambda line: None)


@pytest.fixture
def laptop(tmp_path: Path, there: LocalTransport, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the laptop, whose clusters.yaml knows `there`."""
    folder = tmp_path / "laptop"
    folder.mkdir()
    config = folder / "clusters.yaml"
    config.write_text(
        f"clusters: {{there: {{host: login.example, folder: ~/shared, python: {BASE_PYTHON}}}}}\n"
    )
    config.chmod(0o600)
    for name in [n for n in os.environ if n.startswith(("CLUSTERLM_", "SLURM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(config))
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(folder / "runs"))
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(folder / "cache" / "data"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    # nothing of Slurm on this machine's PATH
    monkeypatch.setattr(connect, "connect", lambda name, profile: there)
    project = folder / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return project


Clusterlm = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def clusterlm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Clusterlm:
    """Type a command: exit code, stdout, stderr."""

    def type_(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clusterlm", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return type_


def git(folder: Path, *words: str) -> None:
    config = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *config, *words], cwd=folder, check=True, capture_output=True)
