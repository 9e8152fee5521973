"""spec + places -> {file name: text}. The only user of templates/.

What it returns is what `render` and `--dry-run` print, what `submit` writes into the run directory
and what sbatch gets: the same text, from the same call. Every value goes through a filter: `sh`
quotes for a shell, `directive` is for an #SBATCH line (where quoting does not protect, so it
refuses), `comment` for a comment, `json_exec` and `docker_env` for a Dockerfile.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clusterlm import __version__
from clusterlm.container import Container, words_for_templates
from clusterlm.errors import ClusterLMError
from clusterlm.image_paths import ImagePaths, images_dir
from clusterlm.paths import CachePaths, Phase, RunPaths, cache_dir
from clusterlm.spec.image import Image
from clusterlm.spec.job import Job
from clusterlm.spec.units import slurm_time

if TYPE_CHECKING:
    from jinja2 import Environment

# what may stand in an #SBATCH line; a space is allowed between double quotes
_DIRECTIVE = re.compile(r"[A-Za-z0-9._/@:,%+=~\[\]&|*() -]+")

# Slurm, and submitit, expand %j in a path
_RUN_FOLDER = re.compile(r"[A-Za-z0-9 ._/@+=-]+")

IMPORT_TIME_S = 2 * 3600
"""Enough for 20 GB on a slow shared folder."""


@dataclass(frozen=True)
class Launch:
    """What differs from one submission of a run to the next."""

    token: str = "TOKEN"
    """Of this send, see `supervise/owner.py`."""
    dependency: str | None = None
    """`afterok:123`."""


def render_run(
    job: Job, run: RunPaths, fingerprint: str | None, container: Container | None = None
) -> dict[str, str]:
    """The files of a run that do not depend on the submission: what each node runs, and in what.

    Args:
        job: the resolved spec.
        run: where the run lies (or will lie).
        fingerprint: of its prepared data; None when it has no data section.
        container: what the phases run in; None for the current Python.
    """
    inside = words_for_templates(container, job) if container else None
    phases: list[Phase] = ["train", "preprocess"] if fingerprint else ["train"]
    files = {
        run.node_script(phase).name: _node_script(job, run, phase, fingerprint, inside)
        for phase in phases
    }
    if container:
        is_pyxis = container.runtime == "pyxis"
        template = "pyxis.options.j2" if is_pyxis else f"container_{container.runtime}.sh.j2"
        own = {"run": run.name, "version": __version__, "run_dir": str(run.root)}
        file = run.pyxis_options if is_pyxis else run.container_script
        files[file.name] = _environment().get_template(template).render({**own, **(inside or {})})
    return files


def render_sbatch(job: Job, run: RunPaths, phase: Phase, launch: Launch) -> str:
    """The submission file of one phase."""
    asked = job.resources
    one = asked.preprocess
    is_train = phase == "train"
    return (
        _environment()
        .get_template("train.sbatch.j2" if is_train else "preprocess.sbatch.j2")
        .render(
            run=run.name,
            phase=phase,
            version=__version__,
            resources=asked,
            nodes=asked.nodes + asked.spares if is_train else 1,
            time=slurm_time(asked.time if is_train else one.time or asked.time),
            partition=asked.partition if is_train else one.partition or asked.partition,
            cpus=asked.cpus_per_node if is_train else one.cpus,
            mem=asked.mem if is_train else one.mem,
            gpus=_gpus(job),
            gpu_option=asked.gpu_request or "gres",
            requeue=job.recovery.requeue,
            stop_grace=job.recovery.stop_grace,
            survives_node_loss=asked.nodes + asked.spares > 1,
            dependency=launch.dependency,
            tasks=job.encode_tasks,
            submitit_dir=str(run.submitit),
            command=_batch_command(run, phase, launch.token),
        )
    )


def _batch_command(run: RunPaths, phase: Phase, token: str) -> str:
    """What the batch script becomes: the guard, then submitit with the supervisor."""
    words = [sys.executable, "-u", "-m", "clusterlm.supervise.batch_step", str(run.root)]
    return shlex.join([*words, phase, token])


def _gpus(job: Job) -> str | None:
    """`gpu:a100:8` for --gres, `a100:8` for --gpus-per-node."""
    asked = job.resources
    if not asked.gpus_per_node:
        return None
    kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
    head = "" if asked.gpu_request == "gpus-per-node" else "gpu:"
    return f"{head}{kind}{asked.gpus_per_node}"


def _node_script(
    job: Job, run: RunPaths, phase: Phase, fingerprint: str | None, inside: dict[str, Any] | None
) -> str:
    script = run.node_script(phase)
    python = inside["python"] if inside else sys.executable
    return (
        _environment()
        .get_template(f"{script.name}.j2")
        .render(
            run=run.name,
            phase=phase,
            version=__version__,
            script_name=script.name,
            run_dir=str(run.root),
            checkpoint_dir=str(run.checkpoints),
            model_dir=str(run.model),
            metrics_file=str(run.metrics),
            cache=str(CachePaths.of(fingerprint).root) if fingerprint else "",
            cache_dir=str(cache_dir()),
            stop_grace=job.recovery.stop_grace,
            secrets_file=str(run.secrets) if job.secrets else None,
            on_cpu=job.resources.gpus_per_node == 0,
            env=job.env,
            python=python,
            ranks_per_node=job.resources.ranks_per_node,
            command=_command(job, run, phase, python),
            tasks=job.encode_tasks,
            inside=inside,
        )
    )


def _command(job: Job, run: RunPaths, phase: Phase, python: str) -> list[str]:
    """What a rank runs: the built-in phase, or the user's own script under the same Python."""
    own = job.train.command
    if phase == "preprocess" or own is None:
        return [python, "-m", "clusterlm", phase, str(run.root)]
    return [python, *own] if own[0].endswith(".py") else list(own)


def render_dockerfile(
    image: Image, *, wheel: str, has_extras: bool, wheels: str | None, recipe: str
) -> str:
    """The Dockerfile of an image.

    Args:
        image: what is asked for.
        wheel: file name of the clusterlm that goes in.
        has_extras: whether there is a requirements.txt beside it.
        wheels: digest of the wheelhouse beside it; None without one.
        recipe: digest of everything that the image is made from, empty while it is being made.
    """
    return render_text(
        "Dockerfile.j2",
        version=__version__,
        base=image.base,
        apt=image.apt,
        secrets=image.build_secrets,
        env=image.env,
        wheel=wheel,
        has_extras=has_extras,
        wheels=wheels,
        recipe=recipe,
    )


@dataclass(frozen=True)
class Import:
    """How an image becomes one file."""

    program: Literal["enroot", "apptainer"]
    image: ImagePaths
    source: str
    """`dockerd://...`, `podman://...`, `docker://...`; docker-daemon:... for apptainer."""
    needs_bytes: int
    """Size of the image as it lies unpacked."""
    container_program: str | None = None
    """docker or podman: what enroot makes a container with, to export it."""
    archive_argv: tuple[str, ...] = ()
    """Command that writes the image to an archive, without its last word, `docker-archive:FILE`."""

    @property
    def script_name(self) -> str:
        return "enroot_import.sh" if self.program == "enroot" else "apptainer_build.sh"

    @property
    def file(self) -> Path:
        """What is made."""
        return self.image.squashfs if self.program == "enroot" else self.image.sif


def render_import(asked: Import) -> str:
    """The script that makes one file of an image; by hand or in a job it is the same."""
    return render_text(
        f"{asked.script_name}.j2",
        version=__version__,
        program=asked.program,
        script_name=asked.script_name,
        short=asked.image.short,
        file=str(asked.file),
        lock=str(asked.image.lock),
        needs=asked.needs_bytes,
        temp_variable="ENROOT_TEMP_PATH" if asked.program == "enroot" else "APPTAINER_TMPDIR",
        layers=str(images_dir() / "layers"),
        source=asked.source,
        container_program=asked.container_program,
        archive_argv=asked.archive_argv,
    )


def render_import_sbatch(job: Job, image: ImagePaths, script: Path) -> str:
    """The submission file of an import on one node."""
    asked = job.resources
    one = asked.preprocess
    return render_text(
        "import.sbatch.j2",
        run=f"image-{image.short}",
        phase="import",
        version=__version__,
        resources=asked,
        nodes=1,
        time=slurm_time(one.time or min(asked.time, IMPORT_TIME_S)),
        partition=one.partition or asked.partition,
        cpus=one.cpus,
        mem=one.mem,
        requeue=False,
        stop_grace=0,
        dependency=None,
        submitit_dir=str(script.parent),
        script=str(script),
    )


def render_text(template: str, **values: Any) -> str:
    """One template, filled."""
    return _environment().get_template(template).render(values)


def refuse_unsafe_folder(run: RunPaths) -> None:
    """A run directory whose path cannot stand in an #SBATCH line is refused before it is made."""
    if not _RUN_FOLDER.fullmatch(str(run.root)):
        raise ClusterLMError(
            f"the run directory {str(run.root)!r} has a character no #SBATCH line can hold\n"
            "  set CLUSTERLM_RUNS_DIR to a folder of letters, digits, spaces and ._/@+=-"
        )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # imported here: reading commands need no templates
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("clusterlm", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters.update(sh=_sh, directive=_directive, comment=_comment)
    env.filters.update(json_exec=_json_exec, docker_env=_docker_env)
    return env


def _sh(value: Any) -> str:
    text = str(value)
    if "\0" in text:
        raise ClusterLMError(f"{text!r} holds a NUL, which no shell can pass on")
    return shlex.quote(text)


def _directive(value: Any) -> str:
    text = str(value)
    if not _DIRECTIVE.fullmatch(text):
        raise ClusterLMError(f"{text!r} cannot stand in an #SBATCH line")
    return f'"{text}"' if re.search(r"[ ()|&*]", text) else text


def _json_exec(words: list[str]) -> str:
    """Exec form of a Dockerfile: a list that no shell reads."""
    return json.dumps(words, ensure_ascii=False)


def _docker_env(value: Any) -> str:
    """A value in ENV or LABEL, literally: Docker expands $NAME also between double quotes."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", str(value)) + '"'


def _comment(value: Any) -> str:
    return re.sub(r"[^ -~]", "?", str(value))
