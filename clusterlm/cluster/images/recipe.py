"""What an image is made from, and the one digest of it all.

    Dockerfile                       rendered; its last label is the digest of everything else
    build/                           the steps that run inside, see node/image_build.py
    requirements-train.txt           what clusterlm trains with, and the user's pins of it
    requirements.txt                 what the user adds
    clusterlm-<version>-py3-...whl   the clusterlm that runs now
    wheelhouse/                      the user's wheels, linked

An image whose label is this digest need not be built again. What does not change the image is not
in it: who builds, what starts it, mounts, the registry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.images.requirements import requirements_for
from clusterlm.cluster.images.wheel import WHEEL_NAME, build_wheel, code_digest
from clusterlm.errors import ImageError
from clusterlm.image_paths import ImagePaths
from clusterlm.node import image_build
from clusterlm.render import render_dockerfile
from clusterlm.spec.image import Image

STACK_FILE = "requirements-train.txt"
EXTRAS_FILE = "requirements.txt"
WHEELHOUSE = "wheelhouse"

_STEPS = ("image_build.py", "image_base.py", "image_pip.py", "image_verify.py", "redact.py")
_PACKAGES = (".whl", ".tar.gz", ".zip")


@dataclass(frozen=True)
class Recipe:
    """Everything that an image is made from.

    Attributes:
        digest: hex, of all of it and of the names of the build secrets.
        files: those of the context that we write, by their name in it.
        linked: those of the user's, by their name in the context.
        code_digest: of the clusterlm that goes in.
        base: what it stands on.
    """

    digest: str
    files: dict[str, bytes]
    linked: dict[str, Path]
    code_digest: str
    base: str

    @property
    def paths(self) -> ImagePaths:
        return ImagePaths(self.digest)


def recipe_of(image: Image) -> Recipe:
    """What `image` is made from. Reads files of this machine, asks nobody.

    Raises:
        ImageError: the wheelhouse is absent or empty, the requirements cannot be used.
    """
    wanted = requirements_for(image)
    linked = _wheelhouse(Path(image.wheelhouse).expanduser()) if image.wheelhouse else {}
    wheels = _digest_of_files(linked) if linked else None
    files = {STACK_FILE: _lines(wanted.stack), WHEEL_NAME: build_wheel(), **_steps()}
    if wanted.extras:
        files[EXTRAS_FILE] = _lines(wanted.extras)

    def dockerfile(recipe: str) -> bytes:
        text = render_dockerfile(
            image, wheel=WHEEL_NAME, has_extras=EXTRAS_FILE in files, wheels=wheels, recipe=recipe
        )
        return text.encode()

    digest = _digest({**files, "Dockerfile": dockerfile("")}, wheels or "", *image.build_secrets)
    files["Dockerfile"] = dockerfile(digest)
    return Recipe(digest, files, linked, code_digest(), image.base)


def write_context(recipe: Recipe) -> Path:
    """Fill the folder that is built from: aside, then renamed, so that it is whole or absent."""
    context = recipe.paths.context
    aside = context.with_name(f".{context.name}.{uuid.uuid4().hex[:12]}")
    try:
        for name, data in recipe.files.items():
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            path.write_bytes(data)
            # the umask of one user and the time of a file are no change of the image
            path.chmod(0o644)
            os.utime(path, (0, 0))
        for name, source in recipe.linked.items():
            _link(source, aside / name)
        _replace_folder(aside, context)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return context


def _steps() -> dict[str, bytes]:
    """The programs of the build, laid so that `python3 build STEP` finds them."""
    room = Path(image_build.__file__).parent
    found = {f"build/clusterlm/node/{name}": (room / name).read_bytes() for name in _STEPS}
    return {"build/__main__.py": (room / "image_main.py").read_bytes(), **found}


def _wheelhouse(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ImageError(f"image.wheelhouse: no folder {folder}")
    found = {
        f"{WHEELHOUSE}/{path.name}": path.absolute()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.endswith(_PACKAGES)
    }
    if not found:
        raise ImageError(
            f"image.wheelhouse: {folder} holds no packages ({', '.join(_PACKAGES)})\n"
            "  fill it where a network is: pip wheel -w FOLDER -r requirements.txt, with the"
            " Python version of the base"
        )
    return found


def _lines(requirements: tuple[str, ...]) -> bytes:
    return "".join(f"{line}\n" for line in requirements).encode()


def _digest(files: dict[str, bytes], *words: str) -> str:
    whole = hashlib.sha256()
    for name, data in sorted(files.items()):
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    for word in words:
        whole.update(f"{word}\n".encode())
    return whole.hexdigest()


def _digest_of_files(files: dict[str, Path]) -> str:
    # hashing releases the interpreter's lock: a gigabyte takes a second on two cores
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(_sha256, files.values())
        return _digest({n: d.encode() for n, d in zip(files, digests, strict=True)})


def _sha256(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            whole.update(chunk)
    return whole.hexdigest()


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        # another file system, or one without hard links
        shutil.copyfile(source, target)


def _replace_folder(aside: Path, folder: Path) -> None:
    """Put `aside` in the place of `folder`; another process may do so with the same content."""
    old = aside.with_name(f"{aside.name}.old")
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise
    shutil.rmtree(old, ignore_errors=True)
