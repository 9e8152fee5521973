"""Rules about values of further keys of `train`; collected in `rules.py`.

transformers finds these in the training, some of them with a KeyError. Names and types of the keys
are checked in `training_arguments.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.wording import did_you_mean, shown

LEVELS = ("debug", "info", "warning", "error", "critical", "passive", "detail")
CHOICES: dict[str, tuple[str, ...]] = {
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "hub_strategy": ("end", "every_save", "checkpoint", "all_checkpoints"),
    "log_level": LEVELS,
    "log_level_replica": LEVELS,
    "debug": ("underflow_overflow", "tpu_metrics_debug"),
    "report_to": (
        *("all", "none", "azure_ml", "comet_ml", "mlflow", "neptune", "tensorboard", "trackio"),
        *("wandb", "codecarbon", "clearml", "dagshub", "flyte", "dvclive", "swanlab", "kubeflow"),
    ),
}
"""Keys whose values are one of few words, or a list of them."""
OF_WORKERS = (
    *("dataloader_persistent_workers", "dataloader_prefetch_factor"),
    "dataloader_multiprocessing_context",
)
"""Keys that say something of processes which read the data: there must be some."""
WATCHES_EVALUATION = ("reduce_lr_on_plateau", "greedy")
"""Schedulers that follow the loss of the evaluation; their arguments are those of torch."""
SCHEDULER_TAKES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "constant": (),
    "constant_with_warmup": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        *("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type"),
        *("min_lr_ratio", "num_cycles"),
    ),
}
"""What lr_scheduler_kwargs may hold."""
ACCELERATOR_KEYS = (
    *("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler"),
    *("non_blocking", "gradient_accumulation_kwargs", "use_configured_state"),
)


def words_are_known(job: Job) -> Iterator[Problem]:
    """A word of a further key is one that transformers knows."""
    for key, accepted in CHOICES.items():
        found = _further(job).get(key)
        for word in found if isinstance(found, list) else [found]:
            if word is not None and word not in accepted:
                guess = did_you_mean(str(word), accepted)
                yield Problem(f"train.{key}", f"{shown(word)} is not known; {guess}")
                break


def workers_are_there(job: Job) -> Iterator[Problem]:
    """What is said of worker processes needs at least one."""
    further = _further(job)
    for key in OF_WORKERS:
        if further.get(key) and not further.get("dataloader_num_workers"):
            message = "needs worker processes; add dataloader_num_workers: 1, or take this out"
            yield Problem(f"train.{key}", message)


def optimizer_arguments_are_pairs(job: Job) -> Iterator[Problem]:
    """The text of optim_args is split at commas, and each part at its `=`."""
    found = _further(job).get("optim_args")
    if isinstance(found, str) and any(part.count("=") != 1 for part in found.split(",")):
        message = f"{shown(found)} is no list of key=value; write momentum=0.9,nesterov=True"
        yield Problem("train.optim_args", message)


def scheduler_arguments_are_known(job: Job) -> Iterator[Problem]:
    """lr_scheduler_kwargs are arguments of the scheduler."""
    found, where = _further(job).get("lr_scheduler_kwargs"), "train.lr_scheduler_kwargs"
    name = job.train.lr_scheduler
    if found is None:
        return
    if not isinstance(found, dict):
        yield Problem(where, f"found {shown(found)}; write a mapping, such as {{num_cycles: 0.5}}")
    elif name in SCHEDULER_TAKES and (unknown := set(found) - set(SCHEDULER_TAKES[name])):
        takes = ", ".join(SCHEDULER_TAKES[name]) or "nothing"
        message = f"{name} has no {', '.join(sorted(map(str, unknown)))}; it takes {takes}"
        yield Problem(where, message)


def accelerator_config_is_known(job: Job) -> Iterator[Problem]:
    """A mapping with keys that accelerate has."""
    found, where = _further(job).get("accelerator_config"), "train.accelerator_config"
    if found is None:
        return
    if not isinstance(found, dict):
        message = f"found {shown(found)}; write a mapping, such as {{non_blocking: true}}"
        yield Problem(where, message)
        return
    for key in set(found) - set(ACCELERATOR_KEYS):
        guess = did_you_mean(str(key), ACCELERATOR_KEYS)
        yield Problem(where, f"{shown(key)} is no key of it; {guess}")


def schedulers_that_watch_have_an_evaluation(job: Job) -> Iterator[Problem]:
    """They follow a loss that is only there with data held back."""
    name = job.train.lr_scheduler
    if job.train.command is not None or job.data is None or name not in WATCHES_EVALUATION:
        return
    if not job.data.holds_back:
        message = f"{name} follows the evaluation; add data.validation: {{fraction: 0.05}}"
        yield Problem("train.lr_scheduler", message)


def _further(job: Job) -> dict[str, Any]:
    return {} if job.train.command is not None else job.train.further_arguments


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (words_are_known, ()),
    (workers_are_there, ()),
    (optimizer_arguments_are_pairs, ()),
    (scheduler_arguments_are_known, ("train",)),
    (accelerator_config_is_known, ()),
    (schedulers_that_watch_have_an_evaluation, ("data", "train")),
)
