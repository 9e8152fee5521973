"""#SBATCH lines and srun's options: resources of the job, and the container."""

from __future__ import annotations

import re
import shlex

from clusterlm.importing.arguments import options_of, scalar
from clusterlm.importing.draft import Draft, run_name
from clusterlm.importing.shell import readable, unset_in
from clusterlm.spec.base import SBATCH_EXTRA
from clusterlm.spec.bases import DEFAULT_BASE
from clusterlm.spec.sbatch_options import OWN_SBATCH_OPTIONS

SHORT = {
    "N": "nodes",
    "t": "time",
    "p": "partition",
    "A": "account",
    "q": "qos",
    "J": "job_name",
    "c": "cpus_per_task",
    "C": "constraint",
    "x": "exclude",
    "G": "gpus",
    "n": "ntasks",
    "o": "output",
    "e": "error",
    "w": "nodelist",
    "d": "dependency",
    "D": "chdir",
}
MOVED = {
    **{key: f"resources.{key}" for key in ("nodes", "time", "partition", "account", "qos", "mem")},
    **{key: f"resources.{key}" for key in ("reservation", "constraint", "exclude")},
    "gpus_per_node": "resources.gpus_per_node",
    "cpus_per_task": "resources.cpus_per_node",
}
STEP_OPTIONS = {
    "container_workdir": "paths of a job.yaml are relative to its folder",
    "container_name": "containers are made anew on every node",
    "container_writable": "caches are writable inside as they are",
    "container_remap_root": "ranks run as yourself",
    "container_mount_home": "what a job names is mounted by itself",
}
SRUN_FLAGS = {
    *("label", "l", "exclusive", "unbuffered", "u", "no_container_mount_home", "overlap"),
    *("container_writable", "container_remap_root", "container_mount_home", "verbose", "v"),
}


def read_sbatch(lines: list[tuple[int, str]], draft: Draft) -> None:
    """Put the options of #SBATCH lines into the draft."""
    num_tasks = 1
    for _, line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            draft.note(f"#SBATCH {line}", "cannot be read: a quote is not closed")
            continue
        words = [_long(word) for word in words]
        for name, values, written in options_of(words):
            _read_option(name, values, f"#SBATCH {written}", draft)
            if name == "ntasks_per_node" and values and values[0].isdigit():
                num_tasks = int(values[0])
    cpus = draft.get("resources.cpus_per_node")
    if num_tasks > 1 and isinstance(cpus, int):
        # ranks of a node are one task here
        why = f"{cpus} of each of the {num_tasks} tasks on a node"
        draft.remove("resources.cpus_per_node")
        draft.add("resources.cpus_per_node", cpus * num_tasks, why)
    if lines:
        draft.add("cluster", "slurm", "it has #SBATCH lines")


def read_srun(options: list[str], draft: Draft) -> None:
    """Put the options of an srun that starts the training into the draft."""
    for name, values, written in options_of([_long(word) for word in options]):
        value = values[0] if values else ""
        if name == "container_image":
            _read_image(value, f"srun {written}", draft)
        elif name == "container_mounts":
            _read_mounts(value, f"srun {written}", draft)
        elif name in STEP_OPTIONS:
            draft.drop(f"srun {written}", STEP_OPTIONS[name])
        elif name in ("nodes", "gres", "gpus_per_node") and not unset_in(value):
            _read_option(name, values, f"srun {written}", draft)
        else:
            draft.drop(f"srun {written}", "clusterlm starts one task on each node")
    draft.add("cluster", "slurm", "srun starts it")


def _long(word: str) -> str:
    # -N8 and -N 8 -> --nodes=8, --nodes 8
    match = re.fullmatch(r"-([A-Za-z])(.*)", word)
    if match is None or match[1] not in SHORT:
        return word
    value = match[2].lstrip("=")
    return f"--{SHORT[match[1]]}" + (f"={value}" if value else "")


def _read_option(name: str, values: list[str], written: str, draft: Draft) -> None:
    value = values[0] if values else ""
    option = "--" + name.replace("_", "-")
    if name == "job_name":
        draft.put("name", run_name(value), written)
    elif name in ("gres", "gpus_per_node") and (match := _gpus(value)):
        draft.put("resources.gpus_per_node", int(match[2]), written)
        if match[1]:
            draft.put("resources.gpu_type", match[1], written)
    elif name == "nodes" and "-" in value:
        draft.put("resources.nodes", scalar(value.rpartition("-")[2]), written)
    elif name == "mem" and value.isdigit():
        draft.put("resources.mem", f"{value}M", written)
    elif name == "exclusive":
        draft.put("resources.exclusive", True, written)
    elif name in MOVED and value:
        is_number = value.isdigit() and name in ("nodes", "cpus_per_task")
        draft.put(MOVED[name], int(value) if is_number else value, written)
    elif name in ("gpus", "gpus_per_task", "gpus_per_socket"):
        draft.note(written, "does not count the GPUs of a node; write resources.gpus_per_node")
    elif option in OWN_SBATCH_OPTIONS:
        draft.drop(written, OWN_SBATCH_OPTIONS[option])
    elif re.fullmatch(SBATCH_EXTRA.strip("^$"), extra := option + (f"={value}" if value else "")):
        draft.extend("resources.extra", extra, "further #SBATCH lines")
    else:
        draft.note(written, "is unclear, left out")


def _gpus(value: str) -> re.Match[str] | None:
    return re.fullmatch(r"(?:gpu:)?(?:([A-Za-z][\w.-]*):)?(\d+)(?:\(.*\))?", value)


def _read_image(value: str, written: str, draft: Draft) -> None:
    """A container that clusterlm did not make says at most which base it was built on."""
    draft.add("image.runtime", "pyxis", "srun's options are those of pyxis")
    # enroot parts the registry from the name with a #
    name = readable(value).removeprefix("docker://").replace("#", "/")
    if not value.endswith((".sqsh", ".sif")) and not value.startswith(("/", ".")):
        draft.put("image.base", name, written)
        return
    why = f"the base that {name} was made of; clusterlm builds its own image on top of it"
    draft.ask("image.base", DEFAULT_BASE, why)


def _read_mounts(value: str, written: str, draft: Draft) -> None:
    mounts = [mount for mount in value.split(",") if mount]
    if unset_in(value):
        draft.note(written, "holds names that are not set; write image.mounts")
        return
    # /a:/a is what clusterlm writes as /a
    same = [m.split(":")[0] if m.split(":")[0] == m.partition(":")[2] else m for m in mounts]
    draft.put("image.mounts", same, written)
