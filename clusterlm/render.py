"""spec + places -> {file name: text}. The only user of templates/.

What it returns is what `render` and `--dry-run` print, what `submit` writes into the run directory
and what sbatch gets: the same text, from the same call. Every value goes through a filter: `sh`
quotes for a shell, `directive` is for an #SBATCH line (where quoting does not protect, so it
refuses), `comment` for a comment.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from clusterlm import __version__
from clusterlm.errors import ClusterLMError
from clusterlm.paths import CachePaths, Phase, RunPaths, cache_dir
from clusterlm.spec.job import Job
from clusterlm.spec.units import slurm_time

if TYPE_CHECKING:
    from jinja2 import Environment

# what may stand in an #SBATCH line; a space is allowed between double quotes
_DIRECTIVE = re.compile(r"[A-Za-z0-9._/@:,%+=~\[\]&|*() -]+")

# Slurm, and submitit, expand %j in a path
_RUN_FOLDER = re.compile(r"[A-Za-z0-9 ._/@+=-]+")


@dataclass(frozen=True)
class Launch:
    """What differs from one submission of a run to the next."""

    folder: str = ""
    """submitit's folder, for its usual command line."""
    command: str | None = None
    """submitit's command line for the batch step, already quoted, when it gave one."""
    dependency: str | None = None
    """`afterok:123`."""

    @property
    def batch_command(self) -> str:
        """What the batch script becomes."""
        python, folder = shlex.quote(sys.executable), shlex.quote(self.folder)
        return self.command or f"{python} -u -m submitit.core._submit {folder}"


def render_run(job: Job, run: RunPaths, fingerprint: str | None) -> dict[str, str]:
    """The files of a run that do not depend on the submission: what each node runs.

    Args:
        job: the resolved spec.
        run: where the run lies (or will lie).
        fingerprint: of its prepared data; None when it has no data section.
    """
    files = {run.node_script("train").name: _node_script(job, run, "train", fingerprint)}
    if fingerprint:
        files[run.node_script("preprocess").name] = _node_script(
            job, run, "preprocess", fingerprint
        )
    return files


def render_sbatch(job: Job, run: RunPaths, phase: Phase, launch: Launch) -> str:
    """The submission file of one phase."""
    asked = job.resources
    one = asked.preprocess
    is_train = phase == "train"
    return (
        _environment()
        .get_template(f"{phase}.sbatch.j2")
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
            gpus=_gres(job),
            requeue=job.recovery.requeue,
            stop_grace=job.recovery.stop_grace,
            survives_node_loss=asked.nodes + asked.spares > 1,
            dependency=launch.dependency,
            submitit_dir=str(run.submitit),
            command=launch.batch_command,
        )
    )


def _gres(job: Job) -> str | None:
    asked = job.resources
    if not asked.gpus_per_node:
        return None
    kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
    return f"gpu:{kind}{asked.gpus_per_node}"


def _node_script(job: Job, run: RunPaths, phase: Phase, fingerprint: str | None) -> str:
    script = run.node_script(phase)
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
            python=sys.executable,
            ranks_per_node=job.resources.ranks_per_node,
            command=_command(job, run, phase),
        )
    )


def _command(job: Job, run: RunPaths, phase: Phase) -> list[str]:
    """What a rank runs: the built-in phase, or the user's own script under the same Python."""
    own = job.train.command
    if phase == "preprocess" or own is None:
        return [sys.executable, "-m", "clusterlm", phase, str(run.root)]
    return [sys.executable, *own] if own[0].endswith(".py") else list(own)


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


def _comment(value: Any) -> str:
    return re.sub(r"[^ -~]", "?", str(value))
