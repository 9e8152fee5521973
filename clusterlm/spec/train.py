"""How the model is trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from clusterlm.spec.base import CLASS_PATH, Argument, Line, Spec
from clusterlm.spec.units import Count, Flag

ClassName = Annotated[str, Field(pattern=CLASS_PATH)]


class DeepSpeed(Spec):
    """ZeRO (https://arxiv.org/abs/1910.02054): what is split over the ranks."""

    stage: Literal[0, 1, 2, 3, "auto"] = "auto"
    """0 nothing, 1 optimizer state, 2 and gradients, 3 and weights; auto: the lowest that fits
    into the GPU's memory by `clusterlm plan`, 2 where that cannot be known."""
    offload_optimizer: Flag = False
    """Keep the optimizer state in host memory."""
    offload_parameters: Flag = False
    """Keep the weights in host memory (stage 3)."""


class Fsdp(Spec):
    """Fully sharded data parallel, version 2 (torch.distributed.fsdp.fully_shard)."""

    shard: Literal["full", "gradients"] = "full"
    """full: weights, gradients and optimizer state are split; gradients: weights stay gathered
    between forward and backward pass."""
    wrap: list[ClassName] = []
    """Classes of the layers that are split one by one; default: those the model names."""
    offload: Flag = False
    """Keep weights, gradients and optimizer state in host memory."""


class Checkpointing(Spec):
    """Which activations are recomputed in the backward pass."""

    every_n_layers: int = Field(1, ge=1)
    """Recompute one layer of so many."""
    offload: Flag = False
    """Keep the activations that remain in host memory."""


class Train(Spec):
    """The trainer's settings; any further key is a transformers.TrainingArguments key."""

    # further keys are checked by name and type in spec/training_arguments.py
    model_config = ConfigDict(extra="allow")

    mode: Literal["full", "adapter", "embeddings", "partial"] = "full"
    """What is trained: every weight; an adapter beside frozen ones; the input embedding and what
    turns the last layer into logits; or what `trainable` names."""
    trainable: list[Line] = []
    """With mode partial: names of parameters with *, such as "*.layers.3.*" or "lm_head.*"."""
    strategy: Literal["ddp", "fsdp", "deepspeed"] = "ddp"
    """How ranks share the work."""
    fsdp: Fsdp | None = None
    """With strategy: fsdp."""
    deepspeed: DeepSpeed | Line | None = None
    """{stage: 2}, or the path of a DeepSpeed JSON, used as it is; default: stage auto."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Arithmetic of the forward and backward pass; fp16 needs a GPU and scales the loss."""
    epochs: float = Field(1.0, gt=0, le=1_000_000)
    """Passes over the data, unless max_steps is given."""
    max_steps: Count | None = Field(None, ge=1, le=10**12)
    """Optimizer steps; goes before epochs."""
    micro_batch_size: int = Field(1, ge=1)
    """Blocks per rank and forward pass."""
    gradient_accumulation: int | None = Field(None, ge=1)
    """Forward passes per optimizer step; default: what global_batch_size asks for, else 1."""
    global_batch_size: int | None = Field(None, ge=1)
    """Blocks per optimizer step over all ranks = micro_batch_size x gradient_accumulation x ranks.
    """
    learning_rate: float = Field(2e-5, gt=0)
    """Highest learning rate."""
    lr_scheduler: Line = "cosine"
    """Name of a transformers scheduler: cosine, linear, constant_with_warmup, ..."""
    warmup: float = Field(0.0, ge=0, le=10**12)
    """Steps of warm-up; below 1: share of all steps."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay."""
    max_grad_norm: float = Field(1.0, ge=0)
    """Clip gradients to this norm; 0 switches it off."""
    activation_checkpointing: Flag | Checkpointing = False
    """Recompute activations in the backward pass to save memory; true, or which."""
    liger: Flag | Literal["auto"] = "auto"
    """Liger kernels (https://arxiv.org/abs/2410.10989); auto: on a GPU, where they are installed
    and know the model."""
    compile: Flag = False
    """torch.compile of the model."""
    sparse_logits: Flag = True
    """Compute logits only where there is a label; the same loss, less work and memory."""
    logging_steps: int = Field(10, ge=1)
    """Optimizer steps between two lines of metrics.jsonl."""
    save_steps: int = Field(500, ge=1)
    """Optimizer steps between two checkpoints."""
    eval_steps: int | None = Field(None, ge=1)
    """Optimizer steps between two evaluations; default: save_steps when there is validation data.
    """
    eval_on_start: Flag = True
    """Evaluate before the first step too, when there is validation data."""
    save_in_background: Flag = False
    """Hash and seal a checkpoint while the training goes on."""
    keep_checkpoints: int = Field(2, ge=2)
    """Verified checkpoints kept; two at least, so that one survives a bad write."""
    seed: int = Field(42, ge=0, lt=2**32)
    """Seed of initial weights, dropout and block order."""
    command: list[Argument] | None = Field(None, min_length=1)
    """The user's own script instead of the built-in trainer: [my_train.py, --flag]. Launch, logs,
    watch, stop and resume stay the same; docs/own-script.md lists the environment it gets."""

    @property
    def further_arguments(self) -> dict[str, Any]:
        """Keys that go to transformers.TrainingArguments as they are."""
        return dict(self.model_extra or {})
