"""Slurm of other Debian releases, run on this machine's own file system.

The packages are unpacked, never installed. Each program is given the release's own dynamic linker
and libraries (patchelf), so a slurmd of Debian 11 or 13 starts jobs that see this machine as it is,
its Python among them. A chroot would be simpler and could not run them: Debian 11 has Python 3.9.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bed.bases import cache_folder, mirror
from tests.bed.waiting import BedError

RELEASES = {"20.11": "bullseye", "22.05": "bookworm", "24.11": "trixie", "26.05": "forky"}
"""Which Debian has which Slurm; the last is its testing release, and moves."""

_PACKAGES = ("slurmctld", "slurmd", "slurmdbd", "slurm-client")
_DAEMONS = ("slurmctld", "slurmd", "slurmdbd", "slurmstepd")
_CLIENTS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sdiag", "sinfo", "squeue")
_CLIENTS += ("sprio", "srun", "sshare", "sstat")
_LIBRARIES = "lib/x86_64-linux-gnu"
_RECIPE = "1"
"""Part of the name of what is kept: raise it when the steps below change."""


@dataclass(frozen=True)
class SlurmBuild:
    """One version, ready to run."""

    version: str
    """20.11, 22.05, 24.11."""
    root: Path

    @property
    def programs(self) -> Path:
        """To be put before PATH."""
        return self.root / "programs"

    @property
    def plugins(self) -> Path:
        """For `PluginDir`; the programs were built to look in /usr."""
        return self.root / "usr" / _LIBRARIES / "slurm-wlm"


def own_version() -> str:
    """Of this machine's own Slurm: `22.05`; empty when there is none."""
    # not by PATH, which may begin with another version's
    program = shutil.which("slurmctld", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        return ""
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+\.\d+)\.\d", said.stdout)
    return found.group(1) if found else ""


def build_of(version: str) -> SlurmBuild | None:
    """The programs of a version, made once (two minutes, 200 MB); None: the machine's own are.

    Raises:
        BedError: they could not be had; the message holds the end of what was said.
    """
    if version == own_version():
        return None
    folder = cache_folder() / f"slurm-{version}-{_RECIPE}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".slurm-{version}-") as work:
            aside = Path(work) / "root"
            _unpack(RELEASES[version], Path(work) / "release", aside)
            # the names of libraries are written into the programs: where they will lie at last
            _relink(aside, at=folder)
            aside.rename(folder)
    return SlurmBuild(version, folder)


def _unpack(release: str, fetched: Path, root: Path) -> None:
    """Fetch the packages and all they need, and unpack them; none of their scripts runs."""
    wanted = f"--include={','.join(_PACKAGES)}"
    argv = ["debootstrap", "--foreign", "--variant=minbase", wanted, release, str(fetched)]
    argv += mirror()
    scripts = Path("/usr/share/debootstrap/scripts")
    if mirror() and not (scripts / release).exists():
        # a release that is younger than this debootstrap; all of Debian's share one script
        argv.append(str(scripts / "sid"))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"debootstrap {release}:\n" + "\n".join(done.stdout.splitlines()[-15:]))
    root.mkdir()
    for package in sorted((fetched / "var/cache/apt/archives").glob("*.deb")):
        unpacked = Path(fetched.parent / "one")
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)
        _take_what_runs(unpacked, root)
        shutil.rmtree(unpacked)


def _take_what_runs(unpacked: Path, root: Path) -> None:
    """Slurm's programs and every library; older releases have /lib beside /usr/lib."""
    for libraries in (unpacked / "usr" / _LIBRARIES, unpacked / _LIBRARIES):
        if libraries.is_dir():
            into = root / "usr" / _LIBRARIES
            shutil.copytree(libraries, into, symlinks=True, dirs_exist_ok=True)
    for name in (*_DAEMONS, *_CLIENTS):
        for place in (f"usr/sbin/{name}-wlm", f"usr/sbin/{name}", f"usr/bin/{name}"):
            if (unpacked / place).is_file():
                (root / "programs").mkdir(exist_ok=True)
                shutil.copy2(unpacked / place, root / "programs" / name)
                break


def _relink(root: Path, *, at: Path) -> None:
    libraries = at / "usr" / _LIBRARIES
    linker = libraries / "ld-linux-x86-64.so.2"
    for program in (root / "programs").iterdir():
        argv = ["patchelf", "--set-interpreter", str(linker), "--force-rpath"]
        argv += ["--set-rpath", f"{libraries / 'slurm-wlm'}:{libraries}", str(program)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BedError(f"patchelf {program.name}: {done.stderr.strip()}")
