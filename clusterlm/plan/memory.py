"""Memory of one rank and one node at the worst moment of a step.

Four moments are looked at, and the largest counts:

    loss      end of the forward pass: activations of all layers, logits, copies of weights
    backward  its first layers, where the logits are gone and a layer is computed again
    last      end of the backward pass: all gradients, no activations but one layer's
    step      the optimizer: gradients, states, its temporary copies

On a GPU come its context (0.5 GiB, with NCCL 1 GiB) and fragmentation (5 % of what comes and goes,
measured by nobody in general: a margin). On the CPU there is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from clusterlm.plan.activations import backward_bytes, kept_bytes, logits_bytes, mask_bytes
from clusterlm.plan.gpus import GIB
from clusterlm.plan.setup import Setup, setup_of
from clusterlm.plan.shape import shape_of
from clusterlm.plan.states import States, states_of
from clusterlm.plan.zero import zero_stage
from clusterlm.spec.job import Job

CONTEXT = 0.5 * GIB
NCCL = 0.5 * GIB
FRAGMENTATION = 0.05
# resident after importing torch, transformers, DeepSpeed; with CUDA's libraries more
PROCESS_CPU, PROCESS_GPU = 0.7 * GIB, 3.0 * GIB
MARGIN = 0.15
"""How far a figure may be off: above it a verdict is certain, below it only likely."""


@dataclass(frozen=True)
class Memory:
    """Bytes at the worst moment.

    Attributes:
        device: of one rank by component, on its GPU (on the CPU: of the process).
        moment: which one that is.
        totals: of each moment.
        host: of one node by component; of the CPU only what comes beside `device`.
        loading: of one node while the model is loaded.
        standing: of one rank, what is there all the time: weights, master, optimizer.
    """

    device: Mapping[str, float]
    moment: str
    totals: Mapping[str, float]
    host: Mapping[str, float]
    loading: float
    standing: float

    @property
    def peak(self) -> float:
        """Bytes of one rank on its device."""
        return sum(self.device.values())

    @property
    def host_peak(self) -> float:
        """Bytes of one node."""
        return max(sum(self.host.values()), self.loading)


def memory_per_rank(setup: Setup) -> Memory:
    """Predict it."""
    states = states_of(setup)
    moments = _moments(setup, states)
    totals = {name: sum(parts.values()) for name, parts in moments.items()}
    worst = max(totals, key=lambda name: totals[name])
    device = {name: size for name, size in moments[worst].items() if size}
    if not setup.on_cpu:
        device["GPU context"] = CONTEXT + (NCCL if setup.ranks > 1 else 0)
        moving = ("activations", "logits", "gradients", "temporary", "autocast copies")
        device["fragmentation"] = FRAGMENTATION * sum(device.get(name, 0) for name in moving)
    return Memory(
        device=device,
        moment=worst,
        totals=totals,
        host=_host(setup, states, sum(device.values())),
        loading=_loading(setup),
        standing=states.weights + states.master + states.optimizer,
    )


def taken_bytes(setup: Setup, memory: Memory) -> float:
    """What the trainer measures: on a GPU without its context, on the CPU of the whole process."""
    if setup.on_cpu:
        return memory.peak + PROCESS_CPU
    return memory.peak - memory.device["GPU context"]


def lowest_stage(
    job: Job, config: Mapping[str, Any], gpu_bytes: float, num_ranks: int, *, block_size: int = 0
) -> int | None:
    """The first ZeRO stage, of 1 to 3, with which a rank fits into its GPU.

    Stage 0 splits nothing: that is `strategy: ddp`, and never chosen here.

    Args:
        job: of which the DeepSpeed section is looked at for offloading.
        config: of the model, as in config.json.
        gpu_bytes: memory of one GPU.
        num_ranks: processes that train.
        block_size: of the data, where the job does not say it.

    Returns:
        1, 2 or 3; None when none fits or the model is of a type that is not known here.
    """
    shape = shape_of(dict(config))
    size = job.data.block_size if job.data else block_size
    if shape is None or not size:
        return None
    setup = replace(setup_of(job, shape, block_size=size), nodes=1, ranks_per_node=num_ranks)
    section = job.train.deepspeed
    offloads = bool(section and not isinstance(section, str) and section.offload_parameters)
    return lowest_stage_of(replace(setup, on_cpu=False), gpu_bytes, parameters=offloads)


def lowest_stage_of(setup: Setup, gpu_bytes: float, *, parameters: bool) -> int | None:
    """The same of a setup; `parameters` asks for their offloading, which is stage 3."""
    offloads = bool(setup.zero and setup.zero.offload_optimizer)
    for stage in (3,) if parameters else (1, 2, 3):
        zero = zero_stage(
            stage,
            hidden=setup.shape.hidden,
            offload_optimizer=offloads,
            offload_parameters=parameters,
        )
        if memory_per_rank(replace(setup, zero=zero)).peak <= gpu_bytes:
            return stage
    return None


def _moments(setup: Setup, states: States) -> dict[str, dict[str, float]]:
    always = {
        "weights": states.weights,
        "master weights": states.master,
        "optimizer": states.optimizer,
        "communication": states.buckets,
    }
    kept, mask = kept_bytes(setup), mask_bytes(setup)
    forward = always | {"autocast copies": states.copies, "gradients": states.held}
    working = backward_bytes(setup)
    head = setup.shape.num_head * setup.compute_bytes if setup.mode != "adapter" else 0
    begins = forward | {"gradients": max(states.held, min(states.gradients, head))}
    return {
        "loss": forward | {"activations": kept + mask, "logits": logits_bytes(setup)},
        "backward": begins | {"activations": kept + mask, "temporary": working},
        "last": always | {"gradients": states.gradients, "temporary": working + mask},
        "step": always | {"gradients": states.gradients, "temporary": states.step},
    }


def _host(setup: Setup, states: States, device: float) -> dict[str, float]:
    """Of a node: every rank's process, and what is offloaded."""
    ranks = setup.ranks_per_node
    process = PROCESS_CPU if setup.on_cpu else PROCESS_GPU
    host = {"processes": process * ranks}
    if setup.on_cpu:
        host["training"] = device * ranks
    host |= {f"offloaded {name}": size * ranks for name, size in states.host.items()}
    if setup.offload_activations:
        whole = replace(setup, offload_activations=False)
        host["offloaded activations"] = (kept_bytes(whole) - kept_bytes(setup)) * ranks
    return {name: size for name, size in host.items() if size}


def _loading(setup: Setup) -> float:
    """Each rank reads the whole model on the host before it goes to the device.

    Under stage 3 it is split while it is read (a file of 5 GiB at a time); with FSDP one rank of a
    node has the whole.
    """
    whole = setup.shape.num_parameters * setup.weight_bytes
    ranks = setup.ranks_per_node
    process = (PROCESS_CPU if setup.on_cpu else PROCESS_GPU) * ranks
    if setup.quantized:
        return process + min(whole, 5 * GIB) * ranks
    if setup.zero is not None and setup.zero.stage == 3:
        return process + min(whole, 5 * GIB) * ranks
    return process + whole * (1 if setup.fsdp else ranks)
