"""Launchers (torchrun, deepspeed, accelerate, srun, python): what of their arguments is a job's.

clusterlm starts the ranks itself: how many nodes and GPUs there are goes to `resources`, who meets
whom where is its own business.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from clusterlm.importing.arguments import options_of, scalar, split_at_program
from clusterlm.importing.draft import Draft
from clusterlm.importing.shell import absence_of, unset_in

MEETING = "clusterlm chooses where the ranks meet, anew for each attempt"
RESTARTS = "the supervisor restarts; see recovery"
SHOWN = "logs lie in the run directory"

TORCHRUN_FLAGS = {"standalone", "no_python", "run_path", "use_env", "m", "module"}
TORCHRUN = {
    "nnodes": "resources.nodes",
    "nproc_per_node": "resources.gpus_per_node",
    **dict.fromkeys(("node_rank", "master_addr", "master_port", "local_addr"), MEETING),
    **dict.fromkeys(("rdzv_id", "rdzv_backend", "rdzv_endpoint", "rdzv_conf"), MEETING),
    "standalone": MEETING,
    **dict.fromkeys(("max_restarts", "monitor_interval", "start_method"), RESTARTS),
    **dict.fromkeys(("log_dir", "redirects", "tee", "role"), SHOWN),
    "use_env": "that is so",
}
DEEPSPEED_FLAGS = {
    *("no_python", "no_local_rank", "module", "force_multi", "save_pid", "no_ssh"),
    *("elastic_training", "bind_cores_to_rank", "no_ssh_check"),
}
DEEPSPEED = {
    "num_nodes": "resources.nodes",
    "num_gpus": "resources.gpus_per_node",
    **dict.fromkeys(("master_addr", "master_port", "node_rank", "hostfile", "H"), MEETING),
    **dict.fromkeys(
        ("no_ssh", "no_ssh_check", "launcher", "launcher_args", "force_multi"), MEETING
    ),
    **dict.fromkeys(("save_pid", "enable_each_rank_log", "no_local_rank"), SHOWN),
}
ACCELERATE_FLAGS = {
    *("multi_gpu", "cpu", "use_deepspeed", "use_fsdp", "use_megatron_lm", "module", "m"),
    *("no_python", "same_network", "quiet", "debug", "mps", "tpu"),
}
ACCELERATE = {
    "num_machines": "resources.nodes",
    "mixed_precision": "train.precision",
    "gradient_accumulation_steps": "train.gradient_accumulation",
    "gradient_clipping": "train.max_grad_norm",
    "deepspeed_config_file": "train.deepspeed",
    "zero_stage": "train.deepspeed.stage",
    "multi_gpu": "resources says how many GPUs there are",
    **dict.fromkeys(("machine_rank", "main_process_ip", "main_process_port"), MEETING),
    **dict.fromkeys(("rdzv_backend", "rdzv_conf", "same_network", "deepspeed_hostfile"), MEETING),
    **dict.fromkeys(("max_restarts", "monitor_interval"), RESTARTS),
    **dict.fromkeys(("dynamo_backend", "quiet", "debug", "num_cpu_threads_per_process"), SHOWN),
}


@dataclass
class Launch:
    """A training command without its launcher.

    Attributes:
        program: the script or module that is started.
        argv: its arguments.
        launcher: torchrun, deepspeed, accelerate or python.
    """

    program: str
    argv: list[str]
    launcher: str


def launch_of(argv: list[str]) -> tuple[str, list[str]] | None:
    """The launcher and its arguments; None when the command is none."""
    name = os.path.basename(argv[0])
    if name == "accelerate" and argv[1:2] == ["launch"]:
        return "accelerate", argv[2:]
    if name in ("torchrun", "deepspeed"):
        return name, argv[1:]
    if re.fullmatch(r"python[\d.]*", name):
        rest = [word for word in argv[1:] if word not in ("-u", "-O", "-B")]
        if rest[:2] and rest[0] == "-m" and len(rest) > 1:
            if rest[1] in ("torch.distributed.run", "torch.distributed.launch"):
                return "torchrun", rest[2:]
            if rest[1] in ("accelerate.commands.launch", "deepspeed.launcher.runner"):
                return rest[1].split(".")[0], rest[2:]
            return "python", rest[1:]
        return "python", rest
    return None


def read_launch(launcher: str, argv: list[str], draft: Draft) -> Launch:
    """Put what a launcher says into the draft; what it starts comes back."""
    reading = {
        "torchrun": (TORCHRUN, TORCHRUN_FLAGS),
        "deepspeed": (DEEPSPEED, DEEPSPEED_FLAGS),
        "accelerate": (ACCELERATE, ACCELERATE_FLAGS),
        "python": ({}, set()),
    }
    table, flags = reading[launcher]
    own, rest = split_at_program(argv, flags)
    given = {name: (values, written) for name, values, written in options_of(own) if name}
    if launcher == "accelerate":
        _read_processes(given, draft)
    for name, (values, written) in given.items():
        _read_option(name, values, written, table, draft)
    _default_gpus(launcher, given, draft)
    return Launch(rest[0] if rest else "", rest[1:], launcher)


def _read_option(
    name: str, values: list[str], written: str, table: dict[str, str], draft: Draft
) -> None:
    meaning = table.get(name)
    value = values[0] if values else "True"
    if name in ("m", "module", "no_python"):
        return
    if name in ("include", "gpu_ids"):
        draft.put("resources.gpus_per_node", value.count(",") + 1, written)
    elif name == "use_deepspeed":
        draft.put("train.strategy", "deepspeed", written)
    elif name == "use_fsdp":
        draft.put("train.strategy", "fsdp", written)
    elif name.startswith("fsdp_") and name.endswith("layer_cls_to_wrap"):
        draft.put("train.fsdp.wrap", value.split(","), written)
    elif name == "config_file":
        draft.note(written, "is not read; write what it says into train.strategy and resources")
    elif meaning is None:
        draft.note(written, "is unclear, left out")
    elif meaning.startswith("resources."):
        _put_count(meaning, value, written, draft)
    elif meaning.startswith("train."):
        is_none = meaning == "train.precision" and value == "no"
        draft.put(meaning, "fp32" if is_none else scalar(value), written)
    else:
        # its value is of no interest, and often a long expression
        draft.drop("--" + name.replace("_", "-"), meaning)


def _put_count(place: str, value: str, written: str, draft: Draft) -> None:
    # 1:4 is torchrun's "between one and four"
    lowest, _, highest = value.partition(":")
    if highest and highest.isdigit():
        draft.put(place, int(highest), written)
        if lowest.isdigit() and lowest != highest:
            draft.put("recovery.min_nodes", int(lowest), written)
    elif value.isdigit():
        draft.put(place, int(value), written)
    elif value in ("gpu", "auto"):
        draft.ask(place, 1, f"{written}: write how many GPUs a node has")
    elif value == "cpu":
        draft.put(place, 0, written)
    elif unset_in(value):
        draft.ask(place, 1, absence_of(value))
    else:
        draft.note(written, "is no number; write it into " + place)


def _read_processes(given: dict[str, tuple[list[str], str]], draft: Draft) -> None:
    """Accelerate counts the processes of all machines together."""
    values, written = given.pop("num_processes", ([], ""))
    machines, _ = given.get("num_machines", (["1"], ""))
    if values and values[0].isdigit() and machines and machines[0].isdigit():
        share = max(1, int(values[0]) // int(machines[0]))
        draft.put("resources.gpus_per_node", share, written)
    elif values:
        draft.ask("resources.gpus_per_node", 1, f"{written}: write how many GPUs a node has")


def _default_gpus(launcher: str, given: dict[str, tuple[list[str], str]], draft: Draft) -> None:
    if draft.has("resources.gpus_per_node"):
        return
    if launcher in ("deepspeed", "accelerate"):
        why = f"{launcher} takes all that are there; write how many GPUs a node has"
        draft.ask("resources.gpus_per_node", 1, why)
    else:
        draft.add("resources.gpus_per_node", 1, "one process")
