"""Everything that a job is rendered to, and what must hold of each text whatever its values are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from clusterlm.container import container_of
from clusterlm.errors import ClusterLMError
from clusterlm.image_paths import ImagePaths
from clusterlm.paths import RunPaths
from clusterlm.render import (
    Launch,
    render_dockerfile,
    render_import_sbatch,
    render_run,
    render_sbatch,
)
from clusterlm.spec.image import Image, Runtime
from clusterlm.spec.job import Job

RUN = RunPaths(Path("/shared/runs/x"))
RECIPE = "a" * 64
IMAGES: dict[Runtime, str] = {
    "pyxis": "/shared/images/aaaa.sqsh",
    "enroot": "/shared/images/aaaa.sqsh",
    "docker": "clusterlm:aaaaaaaaaaaaaaaa",
    "apptainer": "/shared/images/aaaa.sif",
}


def texts_of(job: Job, runtimes: Iterable[Runtime] = tuple(IMAGES)) -> dict[str, str]:
    """By name; a runtime that cannot carry a value has none.

    Raises:
        ClusterLMError: a value is refused.
    """
    texts = {**render_run(job, RUN, "f" * 32)}
    launch = Launch(dependency="afterok:1")
    for phase in ("encode", "preprocess", "train"):
        texts[f"{phase}.sbatch"] = render_sbatch(job, RUN, phase, launch)
    image = job.image or Image()
    texts["import.sbatch"] = render_import_sbatch(job, ImagePaths(RECIPE), Path("/recorder/python"))
    texts["Dockerfile"] = render_dockerfile(
        image, wheel="w.whl", has_extras=True, wheels="d" * 64, recipe=RECIPE
    )
    for runtime in runtimes:
        inside = job.model_copy(update={"image": image.model_copy(update={"runtime": runtime})})
        try:
            container = container_of(inside, RUN, RECIPE, image.file or IMAGES[runtime])
            found = render_run(inside, RUN, "f" * 32, container)
        except ClusterLMError:
            continue
        texts |= {f"{runtime}.{name}": text for name, text in found.items()}
    return texts


def sbatch_options(text: str) -> list[str]:
    """The options of sbatch in a script, without their values."""
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    return [re.split("[= ]", line.split(" ", 1)[1])[0] for line in lines]


def docker_steps(text: str) -> list[list[str]]:
    """The instructions of a Dockerfile, as docker takes them apart; raises where it would not."""
    steps = []
    for line in text.splitlines():
        assert not line.endswith("\\"), line
        if not line or line.startswith("#"):
            # directives of the parser stand first, as `# name=value`
            assert not re.match(r"#\s*(syntax|escape|check)\s*=", line), line
            continue
        word, _, rest = line.partition(" ")
        if word == "RUN":
            mounts = re.match(r"(?:--mount=type=\S+ )*", rest)
            assert mounts
            steps.append([word, *mounts[0].split(), *_words(rest[mounts.end() :])])
        elif word in ("COPY", "CMD"):
            steps.append([word, *_words(rest)])
        elif word in ("ENV", "LABEL"):
            name, _, value = rest.partition("=")
            steps.append([word, name, _literal(value)])
        else:
            assert word in ("FROM", "USER"), line
            assert re.fullmatch(r"[A-Za-z0-9][\w./:@-]*", rest), line
            steps.append([word, rest])
    return steps


def _words(text: str) -> list[str]:
    words = json.loads(text)
    assert isinstance(words, list)
    assert all(isinstance(word, str) for word in words)
    return words


def _literal(value: str) -> str:
    """The text that docker reads in `"..."`: no variable in it, every quote escaped."""
    assert re.fullmatch(r'"(?:[^"\\$]|\\["\\$])*"', value), value
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def srun_options(text: str) -> list[str]:
    """Options of pyxis.options: each line is one word of an argv."""
    for line in text.splitlines():
        assert line.startswith("--"), line
        assert re.fullmatch(r"--[a-z-]+(=[^\s\"'`$;&|<>\\]*)?", line), line
    return [line.partition("=")[0] for line in text.splitlines()]
