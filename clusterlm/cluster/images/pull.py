"""A base from its registry, an image to another: with progress, and with words when it fails."""

from __future__ import annotations

import re
import tempfile
from collections import deque
from pathlib import Path

from clusterlm.cluster.images.engine import Engine, LocalImage
from clusterlm.cluster.images.progress import Screen
from clusterlm.cluster.images.trouble import last_line, pull_trouble, push_trouble
from clusterlm.errors import ImageError
from clusterlm.image_paths import ImagePaths

# docker: "a1b2c3: Pull complete"; podman: "Copying blob sha256:a1b2..."
_LAYER = re.compile(r"([0-9a-f]{12}): (.+)")
_LAYER_DONE = ("Pull complete", "Already exists", "Pushed", "Layer already exists")
_DIGEST = re.compile(r"digest: (sha256:[0-9a-f]{64})")
KEPT = 40


def pull_base(engine: Engine, base: str, screen: Screen) -> LocalImage:
    """Have the base here.

    Raises:
        ImageError: offline, not logged in, no such tag, disk full.
    """
    code, said = _run(engine, ["pull", base], f"pull {base}", screen)
    found = engine.image(base) if code == 0 else None
    if found is None:
        raise ImageError(pull_trouble(base, engine.kind, said))
    return found


def push_image(engine: Engine, paths: ImagePaths, repository: str, screen: Screen) -> str:
    """Push as `repository:<short recipe>`.

    Returns:
        `repository@sha256:...`.

    Raises:
        ImageError: no right to write there, or the registry cannot be reached.
    """
    target = f"{repository}:{paths.short}"
    if engine.kind == "docker":
        return _push_by_docker(engine, paths.tag, repository, target, screen)
    with tempfile.TemporaryDirectory(prefix="clusterlm-") as folder:
        file = Path(folder) / "digest"
        words = ["push", "--digestfile", str(file), paths.tag, f"docker://{target}"]
        code, said = _run(engine, words, f"push {target}", screen)
        if code:
            raise ImageError(push_trouble(target, engine.kind, said))
        return f"{repository}@{file.read_text().strip()}"


def _push_by_docker(engine: Engine, tag: str, repository: str, target: str, screen: Screen) -> str:
    tagged = engine.run("tag", tag, target)
    if not tagged.is_ok:
        raise ImageError(f"{engine.kind} cannot name {tag} {target}: {last_line(tagged.err)}")
    try:
        code, said = _run(engine, ["push", target], f"push {target}", screen)
    finally:
        # only the second name goes
        engine.remove(target)
    digest = _DIGEST.search(said)
    if code or digest is None:
        raise ImageError(push_trouble(target, engine.kind, said))
    return f"{repository}@{digest[1]}"


def _run(engine: Engine, words: list[str], what: str, screen: Screen) -> tuple[int, str]:
    """(exit code, the end of the output); the layers are counted on the screen."""
    kept: deque[str] = deque(maxlen=KEPT)
    layers: dict[str, str] = {}
    with screen:

        def each(line: str) -> None:
            kept.append(line)
            if found := _LAYER.match(line):
                layers[found[1]] = found[2]
                done = sum(state.startswith(_LAYER_DONE) for state in layers.values())
                screen.detail(f"{done} of {len(layers)} layers; {line}")
            elif line.strip():
                screen.detail(line)

        screen.step(what)
        code = engine.host.stream([engine.program, *words], each)
    return code, "\n".join(kept)
