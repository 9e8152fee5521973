"""Rules about kernels, attention and checkpointing of activations; collected in `rules.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clusterlm.errors import Problem
from clusterlm.spec.job import Job
from clusterlm.spec.train import Checkpointing

GPU_OPTIMIZERS = ("8bit", "4bit", "paged_", "_bnb", "apex")
"""Parts of the names of optimizers that are made of CUDA kernels."""


def kernels_have_a_gpu(job: Job) -> Iterator[Problem]:
    """Liger, FlashAttention, FlexAttention's backward pass and 8-bit optimizers run on GPUs."""
    if job.resources.gpus_per_node > 0 or job.train.command is not None:
        return
    why = "needs a GPU, and resources.gpus_per_node is 0"
    if job.train.liger is True:
        yield Problem("train.liger", f"{why}; write auto, which is off then, or false")
    attention = job.model.attention if job.model else "auto"
    if attention.startswith("fl"):
        yield Problem("model.attention", f"{attention} {why}; write auto or sdpa")
    optimizer = job.train.further_arguments.get("optim")
    if isinstance(optimizer, str) and any(part in optimizer for part in GPU_OPTIMIZERS):
        yield Problem("train.optim", f"{optimizer} {why}; write adamw_torch_fused")


def flash_attention_has_its_types(job: Job) -> Iterator[Problem]:
    """FlashAttention has no arithmetic in 32 bits."""
    attention = job.model.attention if job.model else "auto"
    if attention.startswith("flash") and job.train.precision == "fp32":
        message = f"{attention} computes in bf16 or fp16, and train.precision is fp32; write sdpa"
        yield Problem("model.attention", message)


def compiled_models_are_whole(job: Job) -> Iterator[Problem]:
    """DeepSpeed wraps the model in hooks that torch.compile breaks at, or fails on."""
    if job.train.compile and job.train.strategy == "deepspeed":
        message = "does not go with DeepSpeed; write strategy: ddp or fsdp, or compile: false"
        yield Problem("train.compile", message)


def checkpointing_is_said_once(job: Job) -> Iterator[Problem]:
    """The section and the arguments of transformers would overrule each other."""
    asked, key = job.train.activation_checkpointing, "activation_checkpointing_kwargs"
    if key not in job.train.further_arguments:
        return
    if asked is False:
        message = "would not be used: activation_checkpointing is false"
        yield Problem(f"train.{key}", message)
    elif isinstance(asked, Checkpointing):
        message = "and the section activation_checkpointing say the same; keep the section"
        yield Problem(f"train.{key}", message)


def checkpointing_leaves_something(job: Job) -> Iterator[Problem]:
    """One layer of more than there are is only the first; on the CPU nothing can be offloaded."""
    asked, where = job.train.activation_checkpointing, "train.activation_checkpointing"
    if not isinstance(asked, Checkpointing):
        return
    new = job.model.from_scratch if job.model else None
    layers = (new.config if new else {}).get("num_hidden_layers")
    if type(layers) is int and asked.every_n_layers > layers:
        message = f"{asked.every_n_layers} is more than the {layers} layers of the model"
        yield Problem(f"{where}.every_n_layers", message)
    if asked.offload and job.resources.gpus_per_node == 0:
        message = "activations are in host memory already: resources.gpus_per_node is 0"
        yield Problem(f"{where}.offload", message)


RULES: tuple[tuple[Callable[[Job], Iterator[Problem]], tuple[str, ...]], ...] = (
    (kernels_have_a_gpu, ("model", "resources", "train")),
    (flash_attention_has_its_types, ("model", "train")),
    (compiled_models_are_whole, ("train",)),
    (checkpointing_is_said_once, ("train",)),
    (checkpointing_leaves_something, ("model", "resources", "train")),
)
