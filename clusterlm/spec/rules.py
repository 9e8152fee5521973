"""What the sections of a job must be to each other: small pure rules, all of them in RULES.

A rule reads a job whose paths are absolute and yields problems. It names the sections it reads;
when one of them has mistakes of its own, the rule is left out and the others still run. Rules about
the data stand in `rules_data.py`, about the training in `rules_training.py` and, where they are
transformers' own words, in `rules_further.py`, about the image in
`rules_image.py`, about what of a model is trained in `rules_modes.py` and whether it has such
layers in `rules_layers.py`, those that look at the disk in `rules_files.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec import (
    rules_data,
    rules_files,
    rules_further,
    rules_image,
    rules_layers,
    rules_model,
    rules_modes,
    rules_speed,
    rules_strategy,
    rules_training,
    rules_vocabulary,
    variables,
)
from clusterlm.spec.clusters import RESERVED, advice, read_clusters
from clusterlm.spec.job import LOCAL, Job
from clusterlm.spec.sbatch_options import refusals
from clusterlm.spec.train import DeepSpeed
from clusterlm.spec.units import spoken
from clusterlm.spec.wording import times

ONLY_SLURM = (
    *("partition", "account", "qos", "reservation", "constraint", "exclude"),
    *("exclusive", "extra", "gpu_type"),
)
"""Keys of resources that mean nothing without a scheduler."""


def cluster_is_known(job: Job) -> Iterator[Problem]:
    """`local`, `slurm`, or a name in clusters.yaml."""
    if job.cluster not in RESERVED and job.cluster not in read_clusters():
        yield Problem("cluster", f'"{job.cluster}" is no cluster known here; {advice(job.cluster)}')


def local_is_one_node(job: Job) -> Iterator[Problem]:
    """This machine is one node, and there is no other to replace it."""
    if job.cluster != LOCAL:
        return
    for key, wanted in (("nodes", 1), ("spares", 0)):
        if (found := getattr(job.resources, key)) != wanted:
            message = f"cluster: local is this one machine; write {wanted}, found {found}"
            yield Problem(f"resources.{key}", message)


def min_nodes_can_be_kept(job: Job) -> Iterator[Problem]:
    """Fewer nodes than asked for, and a batch that each number of them can make."""
    fewest, nodes = job.recovery.min_nodes, job.resources.nodes
    if fewest is None:
        return
    if fewest > nodes:
        yield Problem("recovery.min_nodes", f"{fewest} is more than resources.nodes, {nodes}")
    total, ranks = job.train.global_batch_size, job.resources.ranks_per_node
    if total is None or job.train.command is not None:
        return
    for count in range(fewest, nodes):
        step = count * ranks * job.train.micro_batch_size
        if total % step:
            message = (
                f"on {times(count, 'node')} train.global_batch_size {total} is no multiple of "
                f"micro_batch_size {job.train.micro_batch_size} x ranks {count * ranks} = {step}; "
                "write a batch that is, or write gradient_accumulation instead of it"
            )
            yield Problem("recovery.min_nodes", message)
            return


def gpus_serve_all_processes(job: Job) -> Iterator[Problem]:
    """No two ranks share a GPU."""
    gpus, ranks = job.resources.gpus_per_node, job.resources.processes_per_node
    if gpus > 0 and ranks is not None and ranks > gpus:
        message = f"{ranks} processes on {times(gpus, 'GPU')}; each needs its own: at most {gpus}"
        yield Problem("resources.processes_per_node", message)


def sbatch_extras_are_not_ours(job: Job) -> Iterator[Problem]:
    """Options that clusterlm writes itself have keys of their own."""
    for number, message in refusals(job.resources.extra):
        yield Problem(f"resources.extra[{number}]", message)


def stop_fits_into_the_time_limit(job: Job) -> Iterator[Problem]:
    """A stop request sent stop_grace before the limit must come after the start."""
    grace, limit = job.recovery.stop_grace, job.resources.time
    if grace >= limit:
        message = (
            f"{spoken(grace)} to save, but the time limit is {spoken(limit)}: every run would be "
            "stopped at its start; raise resources.time or lower this"
        )
        yield Problem("recovery.stop_grace", message)


def env_names_are_free(job: Job) -> Iterator[Problem]:
    """Names that clusterlm, torchrun or Slurm give to a rank are theirs."""
    for name in job.env:
        if variables.is_launchers(name):
            yield Problem(f"env.{name}", "is given by the launcher; choose another name")


def env_holds_no_secret(job: Job) -> Iterator[Problem]:
    """What stands in env goes into scripts and logs."""
    for name, value in job.env.items():
        if variables.holds_secret(name, value):
            message = f"looks like a secret, and env is written into scripts; use secrets: [{name}]"
            yield Problem(f"env.{name}", message)


def secrets_are_names(job: Job) -> Iterator[Problem]:
    """A secret's value never stands in a job.yaml; the message must not repeat it."""
    for number, name in enumerate(job.secrets):
        where = f"secrets[{number}]"
        if variables.is_secret_itself(name):
            yield Problem(where, "looks like the value of a secret; write only its variable's name")
        elif variables.is_launchers(name):
            yield Problem(where, f"{name} is given by the launcher; it is no secret")
        elif name in job.env:
            yield Problem(where, f"{name} is in env too; keep it here and take it out of env")


def notes_on(job: Job) -> list[str]:
    """What is right and may still surprise; for the user to see, not to change."""
    parts = (rules_image, rules_strategy, rules_modes)
    notes = [note for part in parts for note in part.notes_on(job)]
    asked = [key for key in ONLY_SLURM if getattr(job.resources, key) not in (None, False, [])]
    if job.cluster == LOCAL and asked:
        notes.append(f"cluster: local takes no notice of resources.{', '.join(asked)}")
    if job.cluster == LOCAL and job.data and job.data.tasks > 1:
        notes.append(f"cluster: local takes no notice of data.tasks: {job.data.tasks} run as one")
    named = {"model.name": job.model, "data.tokenizer.name": job.data and job.data.tokenizer}
    for place, section in named.items():
        name = section.name if section else None
        # what is a folder has been made absolute
        if name and not name.startswith("/"):
            notes.append(f'{place}: "{name}" is no folder here; taken as a hub id, not verified')
    zero = job.train.deepspeed
    adapter = job.model.adapter if job.model else None
    if adapter and adapter.modules_to_save and isinstance(zero, DeepSpeed) and zero.stage == 3:
        notes.append(
            "model.adapter.modules_to_save under ZeRO stage 3 fails in some versions of peft; "
            "if it does, name these layers in target_modules"
        )
    return notes


Rule = tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]]
"""A check, and the top-level keys it reads."""

RULES: tuple[Rule, ...] = (
    *rules_training.RULES,
    *rules_further.RULES,
    *rules_model.RULES,
    *rules_modes.RULES,
    *rules_layers.RULES,
    *rules_strategy.RULES,
    *rules_speed.RULES,
    *rules_vocabulary.RULES,
    (cluster_is_known, ("cluster",)),
    (local_is_one_node, ("cluster", "resources")),
    (min_nodes_can_be_kept, ("recovery", "resources", "train")),
    (gpus_serve_all_processes, ("resources",)),
    (sbatch_extras_are_not_ours, ("resources",)),
    (stop_fits_into_the_time_limit, ("recovery", "resources")),
    (env_names_are_free, ("env",)),
    (env_holds_no_secret, ("env",)),
    (secrets_are_names, ("secrets", "env")),
    (rules_image.image_file_stands_alone, ("image",)),
    (rules_image.image_file_fits_its_runtime, ("image", "cluster")),
    (rules_image.runtime_goes_with_the_cluster, ("image", "cluster")),
    (rules_image.import_has_what_it_needs, ("image", "cluster")),
    (rules_image.image_never_replaces_torch, ("image",)),
    (rules_image.base_can_hold_what_is_added, ("image",)),
    (rules_image.requirements_can_be_installed, ("image",)),
    (rules_image.wheelhouse_holds_packages, ("image",)),
    (rules_image.image_env_is_free_and_open, ("image",)),
    (rules_image.build_secrets_are_names, ("image",)),
    (rules_image.mounts_have_places_of_their_own, ("image", "cluster")),
    (rules_data.sources_have_one_origin, ("data",)),
    (rules_data.lengths_leave_something, ("data",)),
    (rules_data.lines_are_of_plain_text, ("data",)),
    (rules_data.mapping_goes_with_its_layout, ("data",)),
    (rules_data.loss_has_one_rule, ("data",)),
    (rules_data.shares_are_said_one_way, ("data",)),
    (rules_data.tokenizer_has_one_origin, ("data",)),
    (rules_data.validation_has_one_origin, ("data",)),
    (rules_data.decontamination_has_a_validation_set, ("data",)),
    (rules_files.sources_exist, ("data",)),
    (rules_files.converters_exist, ("data", "image", "cluster")),
    (rules_files.tokenizer_exists, ("data",)),
    (rules_files.model_exists, ("model",)),
    (rules_files.block_fits_the_model, ("data", "model")),
    (rules_files.program_exists, ("train", "image")),
)
