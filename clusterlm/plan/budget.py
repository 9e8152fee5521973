"""Time, GPU-hours and disk for the tokens of a job.

The speed is measured (given, or read off a finished run) or assumed: a share of the GPU's peak that
others published for this kind of training, counted as in `flops.py`. Such a figure is good to
perhaps a third, and is called assumed wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from clusterlm.plan.flops import model_flops_per_token
from clusterlm.plan.gpus import Gpu, peak_flops
from clusterlm.plan.setup import Setup
from clusterlm.spec.units import counted

# share of the dense peak, causal attention counted once: where it was published
HOPPER_FULL = (0.35, "torchtitan, Llama 3 8B on 8 H100: 32 %, compiled 37 %")
AMPERE_FULL = (0.45, "HF Trainer with DeepSpeed, 14B packed on 8 A800: 50 %")
ADAPTER = (0.35, "NeMo AutoModel, Llama 3 8B LoRA on an H100: 40 %")
# an offloaded step waits for the host; nobody published a figure worth quoting
OFFLOADED = 0.4
BETWEEN_NODES = 0.9
# published are models of 7B and more; small ones leave a GPU waiting, by how much nobody says
SMALL, TOO_SMALL = 10**9, 10**8


@dataclass(frozen=True)
class Speed:
    """Tokens per second of all ranks, and where the figure is from."""

    tokens_per_s: float
    origin: str
    is_measured: bool


@dataclass(frozen=True)
class Budget:
    """What a training takes.

    Attributes:
        tokens: in all passes, None when unknown; `origin` says from where.
        steps: optimizer steps.
        no_speed: why none is known.
        seconds: of training; `jobs` of the time limit.
    """

    tokens: float | None
    origin: str
    steps: int | None
    speed: Speed | None
    seconds: float | None
    gpu_hours: float | None
    jobs: int | None
    no_speed: str = ""


def assumed_speed(setup: Setup, gpu: Gpu | None, gpu_name: str | None) -> Speed | None:
    """From a published share of the peak; None where `why_no_speed` says why not."""
    peak = _peak(setup, gpu, gpu_name)
    if peak is None or why_no_speed(setup, gpu, gpu_name):
        return None
    share, source = _share(setup, peak)
    if setup.zero and setup.zero.offload_optimizer:
        share, source = share * OFFLOADED, f"{source}; offloading taken as x {OFFLOADED}, a guess"
    if setup.nodes > 1:
        share *= BETWEEN_NODES
    flops = model_flops_per_token(setup.shape, block_size=setup.block_size, mode=setup.mode)
    slower = 1 / (1 + setup.recomputed / 3)
    rate = share * slower * peak * setup.ranks / flops
    words = f"assumed: {share:.0%} of {peak / 1e12:.0f} TFLOP/s ({source})"
    if setup.shape.num_parameters < SMALL:
        words += "; a model below 1B reaches less"
    return Speed(rate, words, is_measured=False)


def why_no_speed(setup: Setup, gpu: Gpu | None, gpu_name: str | None) -> str:
    """Why no speed is assumed, empty when one is."""
    if setup.on_cpu:
        return "no speed of a CPU is assumed"
    if _peak(setup, gpu, gpu_name) is None:
        named = gpu.name if gpu else gpu_name
        return f"no peak of {named or 'a GPU without a name'} in {setup.precision} is known here"
    if setup.shape.num_parameters < TOO_SMALL:
        size = counted(setup.shape.num_parameters)
        return f"nobody has published a speed of a model as small as {size}, so none is assumed"
    return ""


def budget_of(
    setup: Setup,
    *,
    tokens: float | None,
    origin: str,
    epochs: float,
    max_steps: int | None,
    speed: Speed | None,
    limit_s: int,
    no_speed: str = "",
) -> Budget:
    """Put together.

    Args:
        setup: of the training.
        tokens: of one pass over the data.
        origin: where that number is from.
        epochs: passes over it.
        max_steps: goes before epochs.
        speed: of all ranks.
        limit_s: time limit of one job.
        no_speed: why there is none.
    """
    per_step = setup.tokens * setup.accumulation * setup.ranks
    if max_steps is not None:
        total: float | None = float(max_steps * per_step)
        origin = f"max_steps {max_steps:,} x {per_step:,} tokens"
    else:
        total = None if tokens is None else tokens * epochs
    steps = None if total is None else max(1, -(-int(total) // per_step))
    seconds = total / speed.tokens_per_s if total is not None and speed else None
    ranks = 0 if setup.on_cpu else setup.ranks
    return Budget(
        tokens=total,
        origin=origin,
        steps=steps,
        speed=speed,
        seconds=seconds,
        gpu_hours=seconds * ranks / 3600 if seconds is not None and ranks else None,
        jobs=None if seconds is None else max(1, -(-int(seconds) // limit_s)),
        no_speed=no_speed,
    )


@dataclass(frozen=True)
class Disk:
    """Bytes in the folder of the run."""

    checkpoint: float
    num_kept: int
    model: float

    @property
    def most(self) -> float:
        """While a checkpoint is written beside those that are kept, or the model at the end."""
        return self.num_kept * self.checkpoint + max(self.checkpoint, self.model)


def disk_of(setup: Setup, keep: int) -> Disk:
    """Checkpoints and the trained model.

    ddp and fsdp write the weights as they are kept (sN) and the optimizer (2sT); DeepSpeed the
    weights twice (once as a model, once as its own state, 2eN) and 12T of float32. With an adapter
    nothing of the frozen weights is written.
    """
    trained = setup.num_trained
    written = trained if setup.mode == "adapter" else setup.shape.num_parameters
    size = setup.compute_bytes if setup.zero else setup.weight_bytes
    if setup.mode == "adapter":
        size = max(size, 4)
    model = size * written
    if setup.zero and setup.zero.stage:
        states = (4 + setup.state_bytes) * trained + setup.compute_bytes * written
    else:
        states = setup.state_bytes * trained * size / 4
    return Disk(checkpoint=model + states, num_kept=keep, model=model)


def _peak(setup: Setup, gpu: Gpu | None, gpu_name: str | None) -> float | None:
    return peak_flops(gpu.name if gpu else gpu_name or "", setup.precision)


def _share(setup: Setup, peak: float) -> tuple[float, str]:
    if setup.mode == "adapter":
        return ADAPTER
    return HOPPER_FULL if peak > 400e12 else AMPERE_FULL
