"""Stand-ins for NVIDIA's base images, which no test may download (20 GB behind a login).

`fake` is a Debian with Python and a torch of three files, under the name and the version of the
default base. `train` is the same Debian with the real torch of the environment that runs the tests.
Both hold pip to a constraint file of their own, as NVIDIA's do.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from tests.bed import wheels
from tests.bed.waiting import BedError
from tests.bed.wheels import closure, installed_files, plain_wheel, repack, versions_of

SUITE, PYTHON = "bookworm", "3.11"
# the compiler is for what DeepSpeed builds on the CPU; NVIDIA's images have one, too
INCLUDED = ("python3", "python3-pip", "python3-venv", "python3-dev", "g++", "ca-certificates")
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"

FAKE_BASE = "nvcr.io/nvidia/pytorch:24.08-py3"
TRAIN_BASE = "nvcr.io/nvidia/pytorch:99.01-py3"
FAKE_TORCH = "2.5.0a0+872d972e41"

# `heldpkg` is there in two versions: the base wants the older one
HELD = "heldpkg==1.0"
DOCKERFILE = f"""\
FROM {{rootfs}}
COPY site/ /{SITE}/
COPY constraint.txt /etc/pip/constraint.txt
ENV PATH=/usr/local/nvidia/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV PIP_CONSTRAINT=/etc/pip/constraint.txt
LABEL clusterlm.bed={{key}}
CMD ["/bin/bash"]
"""


def cache_folder() -> Path:
    """Where what takes long to make outlives a session."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "clusterlm-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def rootfs_tar() -> Path:
    """A minimal Debian with Python, as a tar; made once (a minute, 300 MB).

    Raises:
        BedError: debootstrap failed; the message holds the end of what it said.
    """
    path = cache_folder() / f"{SUITE}-{_key(*INCLUDED)}.tar"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".rootfs-") as work:
        root, aside = Path(work) / "root", Path(work) / "tar"
        packages = f"--include={','.join(INCLUDED)}"
        argv = ["debootstrap", "--variant=minbase", packages, SUITE, str(root)]
        done = subprocess.run([*argv, *mirror()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BedError("debootstrap failed:\n" + "\n".join(done.stdout.splitlines()[-15:]))
        for archive in (root / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        subprocess.run(["tar", "-C", root, "-cf", aside, "."], check=True)
        aside.rename(path)
    return path


def wheelhouse(*, thin: bool = False) -> Path:
    """Wheels of all that clusterlm trains with, without torch, and of the packages below.

    Args:
        thin: only what the command line needs is real; of the heavy rest, wheels of its names and
            versions with nothing in them. An image of them is built in seconds and cannot train.

    Raises:
        BedError: the tests run with another Python than the base has.
    """
    if sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        raise BedError(f"the stand-in bases have Python {PYTHON}: run the tests with it")
    names = set(closure("clusterlm[train,fast]", without=_brought_by_torch())) - {"clusterlm"}
    hollow = names - set(closure("clusterlm")) if thin else set()
    code = Path(wheels.__file__).read_text()
    kind = "thin-wheelhouse" if thin else "wheelhouse"
    key = _key(versions_of(sorted(names)), str(sorted(hollow)), str(MADE_UP), code)
    folder = cache_folder() / f"{kind}-{key}"
    if folder.exists():
        return folder
    _remove_older(kind)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{kind}-") as work:
        aside = Path(work) / "wheels"
        aside.mkdir()
        for name in names - hollow:
            repack(name, aside)
        for name in hollow:
            plain_wheel(aside, name, distribution(name).version)
        for made_up in MADE_UP:
            plain_wheel(aside, *made_up[:2], requires=made_up[2], files=dict(made_up[3]))
        aside.rename(folder)
    return folder


def _remove_older(kind: str) -> None:
    """What an earlier version of the environment left."""
    for folder in cache_folder().glob(f"{kind}-*"):
        shutil.rmtree(folder, ignore_errors=True)


# name, version, what it requires, files beside its module
MADE_UP: tuple[tuple[str, str, tuple[str, ...], tuple[tuple[str, bytes], ...]], ...] = (
    ("goodpkg", "1.0", ("torch>=2.0",), ()),
    ("evilpin", "1.0", ("torch==2.9.9",), ()),
    ("eviluser", "1.0", ("evilpin",), ()),
    ("evilfiles", "1.0", (), (("torch/version.py", b"__version__ = '2.9.9'\n"),)),
    ("eviladds", "1.0", (), (("torch/more.py", b"MORE = 1\n"),)),
    ("heldpkg", "1.0", (), ()),
    ("heldpkg", "2.0", (), ()),
    ("torch", "2.9.9", (), ()),
    # for the fake base: the name of the real one bounds it, as its torch is too old for the newest
    ("transformers", "4.57.6", (), ()),
)


@dataclass(frozen=True)
class Base:
    """A stand-in: its name, and the files of its torch by their path below site-packages."""

    tag: str
    site: dict[str, Path]
    content: str

    def dockerfile(self, rootfs: str) -> str:
        return DOCKERFILE.format(rootfs=rootfs, key=self.key)

    @property
    def key(self) -> str:
        return _key(self.content, DOCKERFILE, *INCLUDED)


def fake_base(folder: Path) -> Base:
    """A torch that says its version and nothing else; its wheel is unpacked into `folder`."""
    version = f"__version__ = {FAKE_TORCH!r}\ncuda: str = '12.6'\n".encode()
    files = {
        "torch/__init__.py": b"from torch.version import __version__, cuda\n",
        "torch/version.py": version,
    }
    wheel = plain_wheel(folder, "torch", FAKE_TORCH, files=files)
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder / "site")
    site = {
        str(p.relative_to(folder / "site")): p
        for p in (folder / "site").rglob("*")
        if p.is_file() and p.name != "torch.py"
    }
    return Base(FAKE_BASE, site, f"fake {FAKE_TORCH} 3")


def train_base() -> Base:
    """The torch that runs the tests, with all that it needs."""
    names = closure("torch")
    site: dict[str, Path] = {}
    for name in names:
        site |= installed_files(distribution(name))
    return Base(TRAIN_BASE, site, versions_of(names))


def context_tar(base: Base, rootfs: str) -> Iterable[bytes]:
    """The build context of a stand-in, in pieces; the files are read as they are sent."""
    texts = {"Dockerfile": base.dockerfile(rootfs), "constraint.txt": f"{HELD}\n"}
    for name, text in texts.items():
        header = tarfile.TarInfo(name)
        header.size = len(text.encode())
        yield header.tobuf() + _padded(text.encode())
    for name, path in base.site.items():
        header = tarfile.TarInfo(f"site/{name}")
        header.size, header.mode = path.stat().st_size, 0o755 if os.access(path, os.X_OK) else 0o644
        yield header.tobuf(tarfile.GNU_FORMAT)
        yield _padded(path.read_bytes())
    yield b"\0" * 1024


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def _brought_by_torch() -> frozenset[str]:
    """Guarded packages: the base has them, and no wheel of them may be at hand."""
    guarded = re.compile(r"torch|triton|nvidia-.*")
    return frozenset(n for n in closure("torch") if guarded.fullmatch(n) and n != "nvidia-ml-py")


def mirror() -> list[str]:
    """Where packages come from: what apt uses here; without apt, debootstrap's default."""
    argv = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return []
    sites = [line for line in done.stdout.splitlines() if line.rstrip("/").endswith("/debian")]
    return sites[:1]


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
