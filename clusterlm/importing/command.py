"""Shell scripts -> the draft of a job: which command trains, and what its words mean here."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from clusterlm.importing.arguments import options_of
from clusterlm.importing.draft import FILL_IN, Draft, run_name
from clusterlm.importing.environment import read_environment
from clusterlm.importing.flags import TRAINING, given_options, read_flags
from clusterlm.importing.programs import Program, known_program, read_data
from clusterlm.importing.sbatch import read_sbatch, read_srun
from clusterlm.importing.shell import Command, Script, read_script, readable
from clusterlm.importing.special_flags import Given
from clusterlm.importing.torchrun import Launch, launch_of, read_launch
from clusterlm.importing.training_flags import DEFAULTS, MOVED

QUIET = {
    *("echo", "cd", "set", "mkdir", "date", "hostname", "sleep", "true", "wait", "tee", "cat"),
    *(
        "clear",
        "free",
        "lscpu",
        "nvidia-smi",
        "ls",
        "pwd",
        "printf",
        "[",
        "[[",
        "test",
        "exit",
        "ulimit",
    ),
    *("which", "python3-config", "trap", "scontrol", "squeue", "unset", "shift", "rm", "cp"),
}
"""Commands that mean nothing for a job; they are counted only."""
PREFIXES = ("sudo", "nohup", "exec", "time", "env", "command")
WRAPPERS = {
    **dict.fromkeys(("apptainer", "singularity", "docker", "podman", "enroot"), "a container"),
    **dict.fromkeys(("mpirun", "mpiexec", "orterun"), "clusterlm starts the ranks"),
    **dict.fromkeys(("uv", "poetry", "conda", "micromamba", "pipenv"), "an environment"),
    **dict.fromkeys(("numactl", "taskset", "timeout", "nice", "stdbuf", "script"), ""),
}
"""Programs that start the one behind them."""
SHELLS = ("bash", "sh", "zsh", "source", ".")
FLAGS_OF_SRUN = ("label", "exclusive", "unbuffered", "overlap", "no-container-mount-home")


class RunsImpruver(Exception):
    """The command is impruver's; what it trains stands in its YAML, which is the text."""


@dataclass
class Found:
    """The command that trains, and who calls it."""

    launcher: str
    argv: list[str]
    command: Command
    script: Script
    stem: str


def draft_scripts(scripts: list[tuple[Path, str]], draft: Draft) -> dict[str, str]:
    """Put shell scripts into the draft; files that they write come back, by name.

    Args:
        scripts: paths and texts; one that calls another (sbatch) in any order.
        draft: of the job.

    Raises:
        Unreadable: a quote or bracket is never closed.
        LookupError: none of them trains.
    """
    found: list[Found] = []
    wanted: list[str] = []
    before: Script | None = None
    files: dict[str, str] = {}
    # the one for sbatch calls the others
    for path, text in sorted(scripts, key=lambda one: "#SBATCH" not in one[1]):
        script = read_script(text, before)
        before = script
        read_sbatch(script.sbatch, draft)
        found += _look_for_training(script, path.stem, draft, wanted)
        files |= script.files
        if script.has_conditions:
            draft.note(path.name, "has conditions or loops; every branch was read, in order")
        for line in script.mended:
            why = "begins with an option: read as part of the command above (a \\ is missing)"
            draft.note(f"{path.name}, line {line}", why)
        _read_own_environment(script, draft, [one for one in found if one.script is script])
    names = {path.name for path, _ in scripts}
    if not found:
        missing = [name for name in wanted if os.path.basename(name) not in names]
        raise LookupError(", ".join(missing))
    _draft_command(found, draft)
    return files


def _look_for_training(script: Script, stem: str, draft: Draft, wanted: list[str]) -> list[Found]:
    found = []
    others: Counter[str] = Counter()
    for command in script.commands:
        argv = _unwrapped(command.argv, draft)
        if not argv:
            continue
        name = os.path.basename(argv[0])
        if name == "impruver":
            _refuse_impruver(argv)
        inner = _inner_script(argv)
        if inner is not None:
            nested = read_script(inner, script, command.line)
            found += _look_for_training(nested, stem, draft, wanted)
        elif (launch := launch_of(argv)) is not None and _trains(*launch):
            found.append(Found(*launch, command, script, stem))
        elif argv[0].endswith(".sh") or (name in SHELLS and argv[1:2] and argv[1].endswith(".sh")):
            wanted.append(argv[0] if argv[0].endswith(".sh") else argv[1])
        elif name in ("pip", "pip3", "conda", "module", "apt-get") or argv[1:3] == ["-m", "pip"]:
            draft.note(readable(" ".join(argv)), _how_to_install(name))
        elif name not in QUIET and name not in SHELLS:
            others[readable(name)] += 1
    for name, count in others.items():
        times = f" ({count} times)" if count > 1 else ""
        draft.note(f"{name} ...{times}", "is another program, left out")
    return found


def _how_to_install(name: str) -> str:
    if name == "module":
        return "what it loads belongs into the image"
    return "packages belong into image.pip (image.apt), never torch"


def _unwrapped(argv: list[str], draft: Draft) -> list[str]:
    """The command without sudo, nohup, srun with its options."""
    while argv and os.path.basename(argv[0]) in PREFIXES:
        argv = [word for word in argv[1:] if not re.match(r"[A-Z_]+=", word)]
    if argv and os.path.basename(argv[0]) in WRAPPERS:
        return _inside(argv, draft)
    if not argv or os.path.basename(argv[0]) != "srun":
        return argv
    options, at = [], 1
    while at < len(argv) and argv[at].startswith("-"):
        options.append(argv[at])
        stands_alone = "=" in argv[at] or argv[at].lstrip("-") in FLAGS_OF_SRUN
        is_joined = re.fullmatch(r"-[A-Za-z].+", argv[at]) is not None
        if not stands_alone and not is_joined and at + 1 < len(argv):
            options.append(argv[at + 1])
            at += 1
        at += 1
    read_srun(options, draft)
    return _unwrapped(argv[at:], draft)


def _inside(argv: list[str], draft: Draft) -> list[str]:
    """What a container, mpirun or an environment starts; the command itself when it trains not."""
    for at in range(1, len(argv)):
        name = os.path.basename(argv[at])
        if launch_of(argv[at:]) is not None or name == "bash":
            why = WRAPPERS[os.path.basename(argv[0])]
            if why.startswith("a"):
                draft.note(readable(" ".join(argv[:at])), f"{why}: see image in docs/job-yaml.md")
            elif why:
                draft.drop(readable(" ".join(argv[:at])), why)
            return argv[at:]
    return argv


def _inner_script(argv: list[str]) -> str | None:
    """The text of `bash -c "..."`, or of `eval "..."`."""
    if argv[0] == "eval":
        return " ".join(argv[1:])
    if os.path.basename(argv[0]) not in SHELLS:
        return None
    for at, word in enumerate(argv[1:-1], start=1):
        if re.fullmatch(r"-[a-z]*c", word):
            return argv[at + 1]
    return None


def _trains(launcher: str, argv: list[str]) -> bool:
    """Whether a launched program looks like a training."""
    if launcher != "python":
        return True
    program = argv[0] if argv else ""
    options = {word.lstrip("-").replace("-", "_").partition("=")[0] for word in argv[1:]}
    is_training = known_program(program) is not None or "train" in os.path.basename(program)
    return is_training or len(options & {*TRAINING, *MOVED}) > 2


def _draft_command(found: list[Found], draft: Draft) -> None:
    first, *others = found
    for other in others:
        words = readable(" ".join([other.launcher, *other.argv[:4]]))
        draft.note(f"line {other.command.line}: {words} ...", "another training; it was left out")
    launch = read_launch(first.launcher, first.argv, draft)
    read_environment(first.command.env, set(), draft)
    if os.path.basename(launch.program) == "impruver":
        _refuse_impruver(launch.argv)
    program = known_program(launch.program)
    given = given_options(launch.argv, draft)
    draft.origins.append(f"{launch.launcher} {readable(launch.program)}")
    read_flags(given, draft)
    read_data(given, program, draft)
    _complete(given, program, launch, draft)
    draft.add("name", run_name(first.stem))


def _refuse_impruver(argv: list[str]) -> NoReturn:
    files = [values[0] for name, values, _ in options_of(argv) if name == "config" and values]
    raise RunsImpruver(readable(files[0] if files else "its YAML"))


def _read_own_environment(script: Script, draft: Draft, found: list[Found]) -> None:
    used = {name for command in script.commands for name in command.used}
    used |= {name for one in found for name in one.command.used}
    # `export HF_HOME=x` followed by `echo $HF_HOME` is still for the ranks
    echoed = {
        name
        for command in script.commands
        if os.path.basename(command.argv[0]) in ("echo", "export")
        for name in command.used
    }
    in_command = {name for one in found for name in one.command.used}
    read_environment(script.exported, used - (echoed - in_command), draft)


def _complete(given: Given, program: Program | None, launch: Launch, draft: Draft) -> None:
    """What the job needs, and the command line does not say."""
    if program is None:
        name = readable(launch.program)
        why = "is a script of its own, which was not read: the job is for the built-in trainer. "
        own = f"To run the script itself write train.command: [{name}, ...] (docs/own-script.md)"
        draft.note(name, why + own)
    else:
        for place, (value, why) in program.sets.items():
            draft.add(place, value, why)
        if program.block_size:
            draft.add("data.block_size", program.block_size, "the default of the script")
    _complete_model(program, draft)
    is_hf = program is not None or bool(TRAINING & set(given) - {"deepspeed"})
    for place, (value, flag) in DEFAULTS.items() if is_hf else ():
        draft.add(place, value, f"the default of transformers: {flag}")
    if is_hf and not draft.has("train.max_steps"):
        draft.add("train.epochs", 3, "the default of transformers: num_train_epochs")
    draft.ask("data.block_size", 1024, "tokens in a training sequence; the command does not say")
    if (draft.get("resources.nodes") or 1) > 1:
        draft.add("cluster", "slurm", "more than one node")
    draft.add("cluster", "local", "this machine; write slurm to train on a cluster")
    why = "not said; at the limit a run saves, requeues and goes on"
    draft.add("resources.time", "1d", why)


def _complete_model(program: Program | None, draft: Draft) -> None:
    draft.ask("model.name", FILL_IN, "folder or hub id of the model; the command does not say")
    if program is not None and program.own_tokenizer:
        draft.ask("data.tokenizer.name", FILL_IN, "the script asks for one beside the model")
    has_own_tokenizer = draft.has("data.tokenizer.name")
    if has_own_tokenizer and program is not None and program.resizes:
        draft.add("model.vocab", "resize", "as there: as many rows as the tokenizer has entries")
    model = draft.get("model.name")
    if "model.name" in draft.to_fill_in and not has_own_tokenizer:
        draft.ask("data.tokenizer.name", FILL_IN, "the model's")
    draft.add("data.tokenizer.name", model, "the model's")
    adapter = draft.get("model.adapter")
    mode = draft.get("train.mode")
    if mode in ("embeddings", "full") and adapter:
        said = ", ".join(draft.comments.get(f"model.adapter.{key}", key) for key in adapter)
        draft.drop(said, f"train.mode is {mode}, so there is no adapter")
        draft.remove("model.adapter")
    elif adapter or (program is not None and program.has_adapter):
        for key, value in program.lora.items() if program else ():
            draft.add(f"model.adapter.{key}", value, "the default of the script")
        draft.add("train.mode", "adapter", "options of LoRA are given")
    elif draft.get("model.quantization"):
        draft.add("train.mode", "adapter", "quantized weights are frozen")
    if draft.get("model.dtype") == "bfloat16" and draft.get("train.mode") == "adapter":
        draft.drop(draft.comments["model.dtype"], "frozen weights are kept so under an adapter")
        draft.remove("model.dtype")
