"""Weights, gradients, optimizer state: bytes per rank by strategy, on the device and on the host.

N parameters, T of them trained, w ranks; s bytes of a loaded weight (4, or 2 for bf16), e of a
number in the forward pass. AdamW keeps two float32 numbers: 8 T.

    ddp          weights sN, autocast copies of matrices 2N, gradients sT, DDP's buckets sT,
                 optimizer 2sT
    ZeRO-0..3    weights eN (3: eN/w and what persists), master 4T/w, optimizer 8T/w,
                 gradients eT (2, 3: eT/w), buckets e x reduce_bucket_size (twice when overlapping),
                 and for a moment of the step float32 gradients 4T/w (3: of a sub-group)
                 In fp32 the master copy is there too: DeepSpeed clones it.
    fsdp         weights sN/w, gradients sT/w, optimizer 2sT/w, two gathered layers in e
                 (shard gradients: all of them)

    offloaded    the optimizer steps on float32 gradients on the host, 4T/w; stage 3 keeps eT/w
                 beside them, stages 1 and 2 only while they accumulate

So full AdamW in bf16 under ZeRO-3 is 2 + 2 + 4 + 8 = 16 bytes per parameter, over w ranks.
Offloaded, the same bytes lie in the host's memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from clusterlm.plan.linears import layer_linears
from clusterlm.plan.setup import Setup
from clusterlm.plan.shape import ModelShape

# nf4 and fp4: half a byte and a scale, itself quantised, of 64 elements
QUANTIZED_BYTES = {"nf4": 0.516, "fp4": 0.516, "int8": 1.01}


@dataclass
class States:
    """Bytes of one rank.

    Attributes:
        weights: always there; `copies` during a forward and backward pass.
        master: the float32 weights of a mixed precision optimizer.
        gradients: at the end of the backward pass; `held` of them also while the forward runs.
        buckets: communication buffers and gathered layers.
        step: further bytes while the optimizer steps.
        host: the parts that lie in host memory, by name.
    """

    weights: float = 0
    copies: float = 0
    master: float = 0
    optimizer: float = 0
    gradients: float = 0
    held: float = 0
    buckets: float = 0
    step: float = 0
    host: dict[str, float] = field(default_factory=dict)


def states_of(setup: Setup) -> States:
    """By strategy."""
    if setup.zero is None:
        return _fsdp(setup) if setup.fsdp else _ddp(setup)
    states = _zero3(setup) if setup.zero.stage == 3 else _zero12(setup)
    if setup.zero.offload_optimizer:
        _move(states, "master", "optimizer", "gradients", "held", "step")
        states.host["gradients"] = _offloaded_gradients(setup)
    if setup.zero.offload_parameters:
        _move_weights(setup, states)
    return states


def _ddp(setup: Setup) -> States:
    trained = setup.num_trained
    gradients = _trained_size(setup) * trained
    matrices = setup.shape.num_matrices + setup.shape.num_head
    return States(
        weights=_loaded_bytes(setup),
        copies=2 * matrices if setup.autocasts else 0,
        optimizer=setup.state_bytes * trained * _trained_size(setup) / 4,
        gradients=gradients,
        held=gradients if setup.accumulation > 1 else 0,
        buckets=gradients,
    )


def _fsdp(setup: Setup) -> States:
    trained, ranks = setup.num_trained, setup.ranks
    gathered = setup.shape.num_parameters if setup.fsdp == "gradients" else _live(setup, 2)
    gradients = _trained_size(setup) * trained / ranks
    states = States(
        weights=_loaded_bytes(setup) / ranks,
        optimizer=setup.state_bytes * trained * _trained_size(setup) / 4 / ranks,
        gradients=gradients,
        held=gradients if setup.accumulation > 1 else 0,
        buckets=setup.compute_bytes * (gathered + setup.shape.largest_layer),
    )
    if setup.fsdp_offload:
        _move(states, "weights", "optimizer", "gradients", "held")
    return states


def _zero12(setup: Setup) -> States:
    zero, trained, ranks, e = setup.zero, setup.num_trained, setup.ranks, setup.compute_bytes
    assert zero is not None
    if zero.stage == 0:
        # no master partition of its own in fp32; in bf16 plain DDP of bf16 weights
        held = e * trained
        return States(
            weights=e * setup.num_parameters,
            optimizer=2 * e * trained,
            gradients=held,
            held=held,
        )
    whole = e * trained
    gradients = whole / ranks if zero.stage == 2 else whole
    bucket = min(zero.bucket, trained) * e * (2 if zero.overlaps else 1)
    # a parameter larger than a bucket goes on its own
    single = e * max(setup.shape.num_head, 0) if setup.mode == "full" else 0
    return States(
        weights=_loaded_bytes(setup, e),
        master=4 * trained / ranks,
        optimizer=setup.state_bytes * trained / ranks,
        gradients=gradients,
        held=gradients if setup.accumulation > 1 else 0,
        buckets=max(bucket, single),
        step=4 * trained / ranks,
    )


def _zero3(setup: Setup) -> States:
    zero, trained, ranks, e = setup.zero, setup.num_trained, setup.ranks, setup.compute_bytes
    assert zero is not None
    persistent = persistent_elements(setup, zero.persists_below)
    split = max(0, setup.num_parameters - persistent)
    live = min(split, max(zero.live, 2 * setup.shape.largest_layer) + zero.prefetch)
    gradients = e * trained / ranks
    bucket = min(zero.bucket, trained) * e * (2 if zero.overlaps else 1)
    return States(
        weights=e * (split / ranks + persistent),
        master=4 * trained / ranks,
        optimizer=setup.state_bytes * trained / ranks,
        gradients=gradients,
        # the buffer of gradients is made once and stays
        held=gradients,
        buckets=bucket + e * live,
        step=4 * min(zero.sub_group, trained / ranks),
    )


def persistent_elements(setup: Setup, threshold: int) -> int:
    """Elements in parameters of at most `threshold` each, which stage 3 leaves whole on each rank.

    With a threshold of 1e9 that is all of a dense model. transformers 5 keeps the experts of a
    layer in two tensors, which may be larger.
    """
    shape = setup.shape
    small = shape.num_parameters - shape.num_matrices - shape.num_embedding
    table = shape.num_embedding if shape.num_input_embedding <= threshold else 0
    return small + table + sum(n for n in _tensors(shape) if n <= threshold)


def _tensors(shape: ModelShape) -> list[int]:
    """Elements of each matrix in the layers."""
    d, f = shape.hidden, shape.expert_intermediate
    layer = [inputs * outputs for _, inputs, outputs in layer_linears(shape)]
    tensors = layer * shape.layers
    if shape.sparse_layers:
        sparse = [2 * shape.experts * d * f, shape.experts * d * f, shape.experts * d]
        sparse += [d * shape.shared_intermediate] * 3
        tensors += sparse * shape.sparse_layers
        tensors += [d * shape.intermediate] * (3 * shape.dense_layers)
    return tensors


def _live(setup: Setup, layers: int) -> float:
    return layers * setup.shape.largest_layer + setup.shape.num_input_embedding


def _loaded_bytes(setup: Setup, size: int | None = None) -> float:
    """Of all weights, the frozen ones quantised where that is asked for."""
    size = size or setup.weight_bytes
    shape = setup.shape
    beside = _trained_size(setup) * setup.num_trained if setup.mode == "adapter" else 0
    if not setup.quantized:
        return size * shape.num_parameters + beside
    rest = shape.num_parameters - shape.num_matrices
    return QUANTIZED_BYTES[setup.quantized] * shape.num_matrices + size * rest + beside


def _trained_size(setup: Setup) -> int:
    """Bytes of a trained weight: peft keeps adapters in float32 beside a bf16 model."""
    return 4 if setup.mode == "adapter" else setup.weight_bytes


def _offloaded_gradients(setup: Setup) -> float:
    """What DeepSpeed 0.19 makes on the host for gradients.

    Stage 3: `grad_partitions_flat_buffer`, and for each sub-group a float32 `.grad`
    (`initialize_optimizer_states`). Stages 1 and 2: the latter, and `accumulated_grads_in_cpu`.
    """
    assert setup.zero is not None
    of_passes = setup.zero.stage == 3 or setup.accumulation > 1
    size = 4 + (setup.compute_bytes if of_passes else 0)
    return size * setup.num_trained / setup.ranks


def _move(states: States, *names: str) -> None:
    """To the host."""
    for name in names:
        if name not in ("held", "step"):
            states.host[name] = getattr(states, name)
        setattr(states, name, 0.0)


def _move_weights(setup: Setup, states: States) -> None:
    """Offloaded parameters leave; those below the persistence threshold stay."""
    assert setup.zero is not None
    stays = persistent_elements(setup, setup.zero.persists_below) * setup.compute_bytes
    states.host["weights"] = max(0.0, states.weights - stays)
    states.weights = stays
