"""What a script exports: variables of the ranks, secrets, or what the launcher gives."""

from __future__ import annotations

from clusterlm.importing.draft import Draft
from clusterlm.importing.shell import unset_in
from clusterlm.spec import variables

REASONS = {
    "CUDA_VISIBLE_DEVICES": "the launcher gives each rank its GPU; see resources.gpus_per_node",
    "RUADAPT_NO_TRAIN": "the data phase is a job of its own",
    "NNODES": "see resources.nodes",
    "GPUS_PER_NODE": "see resources.gpus_per_node",
    "OMP_NUM_THREADS": "the launcher gives it",
}


def read_environment(exported: dict[str, str], used: set[str], draft: Draft) -> None:
    """Put exported variables into `env` or `secrets`.

    Args:
        exported: names and values.
        used: names that were filled into the command: parameters, not for the ranks.
        draft: of the job.
    """
    for name, value in exported.items():
        if name == "CUDA_VISIBLE_DEVICES" and not unset_in(value) and value:
            number = value.count(",") + 1
            if draft.comments.get("resources.gpus_per_node") == "one process":
                draft.remove("resources.gpus_per_node")
            if not draft.has("resources.gpus_per_node"):
                draft.put("resources.gpus_per_node", number, f"{name}={value}")
        if variables.holds_secret(name, value):
            draft.extend("secrets", name)
            draft.drop(f"export {name}=...", "a secret: its value travels from your environment")
        elif name in used:
            continue
        elif name in REASONS or variables.is_launchers(name) or variables.is_bases(name):
            draft.drop(f"export {name}", REASONS.get(name, "the launcher or the image gives it"))
        elif unset_in(value):
            draft.drop(f"export {name}", "its value is known only when the script runs")
        elif value.isprintable() and value:
            draft.put(f"env.{name}", value, "exported")
        elif value:
            draft.note(f"export {name}", "its value is more than one line; left out")
