"""What builds and keeps images here: docker with BuildKit, podman, or buildah.

The first of them that really answers is taken, or the one that `image.builder` names. Several
docker clients may be on PATH: one of version 23 or newer needs the component buildx, an older one
has BuildKit inside, so the first that can build is taken.
"""

from __future__ import annotations

import grp
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clusterlm.cluster.host import Completed, Host
from clusterlm.cluster.images.trouble import last_line
from clusterlm.errors import ImageError

Kind = Literal["docker", "podman", "buildah"]
KINDS: tuple[Kind, ...] = ("docker", "podman", "buildah")
ANSWER_S = 60.0
BUILDX_SINCE = 23
"""From this major version on, docker's client builds with the component buildx or not at all."""


@dataclass(frozen=True)
class LocalImage:
    """An image that is here."""

    image_id: str
    digest: str
    """`repository@sha256:...` where it came from a registry, else the id."""
    size_bytes: int
    labels: dict[str, str]


@dataclass(frozen=True)
class Engine:
    """A builder that answers."""

    kind: Kind
    program: str
    host: Host
    has_buildx: bool = False

    def build_argv(self, context: Path, tag: str, secrets: dict[str, Path]) -> list[str]:
        """Build `context` as `tag`; secrets by name, each from a file."""
        argv = [self.program, "build", "--network", "host", "--tag", tag]
        for name, file in secrets.items():
            argv += ["--secret", f"id={name},src={file}"]
        if self.kind == "docker":
            argv = ["env", "DOCKER_BUILDKIT=1", *argv, "--progress=plain"]
            # into the daemon's own images, also with a builder that is a container
            argv += ["--load"] if self.has_buildx else []
        elif self.kind == "podman":
            argv += ["--layers", "--pull=missing"]
        else:
            argv += ["--layers"]
        return [*argv, str(context)]

    def image(self, name: str) -> LocalImage | None:
        """The image of this name, or None."""
        if self.kind == "buildah":
            return _buildah_image(self, name)
        done = self.run("image", "inspect", name)
        if not done.is_ok:
            if _DOWN.search(done.err) or _NO_RIGHTS.search(done.err):
                raise ImageError(_docker_trouble(self.program, done.err))
            return None
        found: dict[str, Any] = json.loads(done.out)[0]
        image_id = str(found["Id"])
        labels = (found.get("Config") or {}).get("Labels") or {}
        digest = _digest_of(name, found.get("RepoDigests") or []) or image_id
        return LocalImage(image_id, digest, int(found.get("Size") or 0), labels)

    def root(self) -> Path | None:
        """Folder that images lie in, when it is on this machine."""
        asked = {
            "docker": ("info", "--format", "{{.DockerRootDir}}"),
            "podman": ("info", "--format", "{{.Store.GraphRoot}}"),
            "buildah": ("info", "--format", "{{.store.GraphRoot}}"),
        }[self.kind]
        done = self.run(*asked)
        folder = Path(done.out.strip() or "-")
        # a daemon behind tcp:// or ssh:// speaks of its own disk
        is_remote = self.kind == "docker" and not _socket_is_local()
        return None if is_remote or not done.is_ok or not folder.is_dir() else folder

    def read_file(self, image: str, path: str) -> str:
        """A file of an image; nothing of the image is started, unless buildah has to `cat` it."""
        doing = f"reading {path} out of {image}"
        if self.kind == "buildah":
            name = self._output(("from", "--pull-never", image), doing).strip()
            try:
                return self._output(("run", name, "--", "cat", path), doing)
            finally:
                self.run("rm", name)
        name = self._output(("create", image), doing).split()[-1]
        try:
            with tempfile.TemporaryDirectory(prefix="clusterlm-") as folder:
                copy = Path(folder) / "copy"
                self._output(("cp", f"{name}:{path}", str(copy)), doing)
                return copy.read_text()
        finally:
            self.run("rm", name)

    def remove(self, image: str) -> Completed:
        """Take a name away; the image goes when it has no other."""
        return self.run("rmi", image)

    def run(self, *words: str, timeout_s: float = ANSWER_S) -> Completed:
        """One short command."""
        return self.host.run([self.program, *words], timeout_s=timeout_s)

    def _output(self, words: Sequence[str], doing: str) -> str:
        done = self.run(*words, timeout_s=10 * ANSWER_S)
        if not done.is_ok:
            raise ImageError(f"{doing} failed: {last_line(done.err or done.out)}")
        return done.out


def find_engine(host: Host, wanted: Kind | None = None) -> tuple[Engine, list[str]]:
    """The builder to use, and a line for each one before it that does not answer.

    Raises:
        ImageError: none is installed, or none of those installed can be used.
    """
    notes: list[str] = []
    for kind in (wanted,) if wanted else KINDS:
        if not host.has(kind):
            continue
        try:
            return _ask(kind, host), notes
        except ImageError as error:
            notes.append(str(error))
    if notes:
        raise ImageError("\n".join(notes))
    raise ImageError(_none_installed(wanted))


def engine_named(host: Host, kind: str) -> Engine:
    """The engine that an earlier build used.

    Raises:
        ImageError: it does not answer any more.
    """
    known = [k for k in KINDS if k == kind]
    return find_engine(host, known[0] if known else None)[0]


def _ask(kind: Kind, host: Host) -> Engine:
    if kind == "docker":
        return _ask_docker(host)
    done = host.run([kind, "info"], timeout_s=ANSWER_S)
    if not done.is_ok:
        raise ImageError(
            f"{kind} is installed but does not work: {last_line(done.err or done.out)}\n"
            f"  try:  {kind} info"
        )
    return Engine(kind, kind, host)


def _ask_docker(host: Host) -> Engine:
    first = _docker_client(host, "docker")
    if isinstance(first, Engine):
        return first
    # a newer client without buildx may hide an older one, which builds
    for program in host.run(["which", "-a", "docker"]).out.split()[1:]:
        other = _docker_client(host, program)
        if isinstance(other, Engine):
            return other
    raise ImageError(first)


def _docker_client(host: Host, program: str) -> Engine | str:
    """The client as an engine, or why it cannot build."""
    done = host.run([program, "version", "--format", "{{json .}}"], timeout_s=ANSWER_S)
    try:
        client = json.loads(done.out.splitlines()[0])["Client"]
        version = str(client["Version"])
    except (IndexError, ValueError, KeyError, TypeError):
        return _docker_trouble(program, done.err or done.out or f"exit {done.code}")
    if not done.is_ok:
        return _docker_trouble(program, done.err)
    # podman's command `docker` has OsArch in place of Os and Arch
    if "Arch" not in client:
        return Engine("podman", program, host)
    if _major(version) < BUILDX_SINCE:
        return Engine("docker", program, host)
    if host.run([program, "buildx", "version"], timeout_s=ANSWER_S).is_ok:
        return Engine("docker", program, host, has_buildx=True)
    return (
        f"docker {version} cannot build: its component buildx is missing\n"
        "  install it (Debian, Ubuntu: apt install docker-buildx or docker-buildx-plugin; "
        "https://docs.docker.com/go/buildx/),\n"
        "  or build with podman:  --set image.builder=podman"
    )


_DOWN = re.compile(r"cannot connect to the docker daemon|is the docker daemon running", re.I)
_NO_RIGHTS = re.compile(r"permission denied while trying to connect", re.I)


def _docker_trouble(program: str, text: str) -> str:
    where = re.search(r"(?:unix|tcp|ssh)://[^\s:]+(?::\d+)?(?<!\.)", text)
    place = where[0] if where else os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if _NO_RIGHTS.search(text):
        return _no_rights(place.removeprefix("unix://"))
    if _DOWN.search(text):
        start = (
            "start it:  sudo systemctl start docker"
            if place.startswith("unix:")
            else "look at DOCKER_HOST and `docker context ls`"
        )
        return (
            f"docker is installed, but its daemon does not answer at {place}\n"
            f"  {start}\n"
            "  or build without a daemon:  --set image.builder=podman"
        )
    return f"{program} does not answer: {last_line(text)}\n  try:  {program} version"


def _no_rights(socket: str) -> str:
    try:
        group = grp.getgrgid(os.stat(socket).st_gid).gr_name
    except (OSError, KeyError):
        group = "docker"
    return (
        f"you have no right to use docker: {socket} is for root and the group {group}\n"
        f'  ask an administrator for:  usermod -aG {group} "$USER"   and log in again\n'
        "  or build with podman, which needs no rights:  --set image.builder=podman"
    )


def _none_installed(wanted: Kind | None) -> str:
    what = (
        f"image.builder is {wanted}, but there is no {wanted}"
        if wanted
        else ("nothing here can build an image: there is no docker, podman or buildah")
    )
    return (
        f"{what} on PATH\n"
        "  install one of them (Debian, Ubuntu: apt install podman), or build on another machine:\n"
        "  copy the .sqsh or .sif from its images folder and name it in `image.file`"
    )


def _socket_is_local() -> bool:
    return os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


def _digest_of(name: str, digests: Sequence[str]) -> str | None:
    """Of the digests that an image has in several repositories, the one in its own."""
    own = re.sub(r"(@.*|:[^:/]*)$", "", name)
    return next((d for d in digests if d.split("@")[0].endswith(own)), None)


def _buildah_image(engine: Engine, name: str) -> LocalImage | None:
    done = engine.run("inspect", "--type", "image", name)
    if not done.is_ok:
        return None
    found: dict[str, Any] = json.loads(done.out)
    labels = (((found.get("OCIv1") or {}).get("config") or {}).get("Labels")) or {}
    image_id = str(found.get("FromImageID") or "")
    digest = str(found.get("FromImageDigest") or "")
    repository = re.sub(r":[^:/]*$|@.*$", "", str(found.get("FromImage") or name))
    size = sum(int(row.get("size") or 0) for row in _layers(found))
    return LocalImage(image_id, f"{repository}@{digest}" if digest else image_id, size, labels)


def _layers(found: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        manifest = json.loads(str(found.get("Manifest") or "{}"))
    except ValueError:
        return []
    layers = manifest.get("layers") or []
    return [row for row in layers if isinstance(row, dict)]
