"""What memory and time depend on, gathered from a job: one flat value, easy to vary.

The verdict looks for a setting that fits by changing single fields of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from clusterlm.plan.linears import HEADS, INPUT_EMBEDDINGS, chosen_linears, layer_linears
from clusterlm.plan.shape import ModelShape
from clusterlm.plan.zero import Zero, zero_of
from clusterlm.spec.job import Job
from clusterlm.spec.model import Adapter
from clusterlm.spec.train import Checkpointing

# bytes of optimizer state per trained element of float32; optim of TrainingArguments
STATE_BYTES = {"adamw": 8.0, "sgd": 0.0, "adafactor": 0.1, "lion": 4.0, "adagrad": 4.0, "rms": 4.0}


@dataclass(frozen=True)
class Setup:
    """One rank's share of the work, and how it is done.

    Attributes:
        shape: of the model.
        nodes: that train; `ranks_per_node` processes on each.
        on_cpu: no GPU is asked for.
        zero: what DeepSpeed splits; None with another strategy.
        fsdp: full or gradients with FSDP, empty otherwise; `fsdp_offload` keeps it on the host.
        precision: of the arithmetic.
        weight_bytes: of a weight as the trainer loads it.
        mode: train.mode.
        num_trained: elements that get a gradient.
        adapter_linears: linear layers with an adapter in each layer, of `adapter_outputs` numbers a
            token together; `rank` is the adapter's.
        is_dora: the adapter also learns lengths.
        quantized: nf4, fp4, int8 or empty.
        micro_batch: blocks per forward pass; `accumulation` passes to a step.
        batch_is_given: the job names the blocks of a step.
        block_size: tokens of a block.
        recompute_every: one layer of so many is recomputed, 0 none; `offload_activations` keeps
            the others on the host.
        attention: `linear` keeps nothing of the square, `mask` a mask, `square` all scores.
        liger: fused kernels for norms, feed-forward part and loss.
        state_bytes: of the optimizer per trained element of float32.
    """

    shape: ModelShape
    nodes: int
    ranks_per_node: int
    on_cpu: bool
    zero: Zero | None
    fsdp: str
    fsdp_offload: bool
    precision: str
    weight_bytes: int
    mode: str
    num_trained: int
    adapter_linears: int
    adapter_outputs: int
    rank: int
    is_dora: bool
    quantized: str
    micro_batch: int
    accumulation: int
    batch_is_given: bool
    block_size: int
    recompute_every: int
    offload_activations: bool
    attention: str
    liger: bool
    state_bytes: float

    @property
    def ranks(self) -> int:
        """Processes that train."""
        return self.nodes * self.ranks_per_node

    @property
    def batch(self) -> int:
        """Blocks of an optimizer step, over all ranks."""
        return self.micro_batch * self.accumulation * self.ranks

    @property
    def tokens(self) -> int:
        """In one forward pass of a rank."""
        return self.micro_batch * self.block_size

    @property
    def compute_bytes(self) -> int:
        """Of a number in the forward pass."""
        return 4 if self.precision == "fp32" else 2

    @property
    def autocasts(self) -> bool:
        """Float32 weights are copied to 2 bytes for each pass; DeepSpeed converts the model."""
        return self.weight_bytes > self.compute_bytes and self.zero is None

    @property
    def recomputed(self) -> float:
        """Share of the layers whose forward pass is done twice."""
        return 1 / self.recompute_every if self.recompute_every else 0.0

    @property
    def num_parameters(self) -> int:
        """Of the model, with an adapter's beside them."""
        beside = self.num_trained if self.mode == "adapter" else 0
        return self.shape.num_parameters + beside

    @property
    def strategy(self) -> str:
        """For people."""
        if self.zero is not None:
            return self.zero.words
        if self.fsdp:
            return f"fsdp, {self.fsdp}{', offloaded' if self.fsdp_offload else ''}"
        return "ddp"


def setup_of(job: Job, shape: ModelShape, *, block_size: int, liger: bool = False) -> Setup:
    """Gather it; a step that never accumulates has `accumulation` 1."""
    train, model = job.train, job.model
    adapter = model.adapter if model and train.mode == "adapter" else None
    in_bf16 = adapter is not None and train.precision == "bf16"
    dtype = (model.dtype if model else None) or ("bfloat16" if in_bf16 else "float32")
    fsdp = train.fsdp
    return Setup(
        shape=shape,
        nodes=job.resources.nodes,
        ranks_per_node=job.resources.ranks_per_node,
        on_cpu=not job.resources.gpus_per_node,
        zero=zero_of(train, hidden=shape.hidden) if train.strategy == "deepspeed" else None,
        fsdp=(fsdp.shard if fsdp else "full") if train.strategy == "fsdp" else "",
        fsdp_offload=bool(fsdp and fsdp.offload and train.strategy == "fsdp"),
        precision=train.precision,
        weight_bytes=4 if dtype == "float32" else 2,
        mode=train.mode,
        num_trained=num_trained(shape, train.mode, adapter, train.trainable),
        adapter_linears=len(_targets(shape, adapter)) if adapter else 0,
        adapter_outputs=_outputs(shape, adapter) if adapter else 0,
        rank=adapter.r if adapter else 0,
        is_dora=bool(adapter and adapter.method == "dora"),
        quantized=(model.quantization if model else None) or "",
        micro_batch=train.micro_batch_size,
        accumulation=job.gradient_accumulation,
        batch_is_given=train.global_batch_size is not None,
        block_size=block_size,
        **_checkpointing(train.activation_checkpointing),
        attention=_attention(job),
        liger=liger,
        state_bytes=_state_bytes(str(train.further_arguments.get("optim", "adamw"))),
    )


def with_adapter(setup: Setup, rank: int) -> Setup:
    """The same training with LoRA on every linear layer, in bf16 where that is computed in."""
    adapter = Adapter(r=rank)
    return replace(
        setup,
        mode="adapter",
        weight_bytes=2 if setup.precision == "bf16" else 4,
        num_trained=num_trained(setup.shape, "adapter", adapter, []),
        adapter_linears=len(_targets(setup.shape, adapter)),
        adapter_outputs=_outputs(setup.shape, adapter),
        rank=rank,
    )


def num_trained(shape: ModelShape, mode: str, adapter: Adapter | None, patterns: list[str]) -> int:
    """Elements that get a gradient."""
    if mode == "adapter" and adapter is not None:
        return _adapter_size(shape, adapter)
    if mode == "embeddings":
        return shape.num_embedding
    if mode == "partial":
        return _matched(shape, patterns)
    return shape.num_parameters


def _targets(shape: ModelShape, adapter: Adapter) -> list[tuple[str, int, int]]:
    return chosen_linears(shape, adapter.target_modules, adapter.exclude_modules)


def _outputs(shape: ModelShape, adapter: Adapter) -> int:
    return sum(outputs for _, _, outputs in _targets(shape, adapter))


def _adapter_size(shape: ModelShape, adapter: Adapter) -> int:
    ranks = adapter.rank_pattern if isinstance(adapter.rank_pattern, dict) else {}
    size = 0
    for name, inputs, outputs in _targets(shape, adapter):
        lengths = outputs if adapter.method == "dora" else 0
        size += ranks.get(name, adapter.r) * (inputs + outputs) + lengths
    size *= shape.layers
    for name in adapter.modules_to_save:
        leaf = name.rpartition(".")[2]
        size += shape.num_input_embedding * (leaf in INPUT_EMBEDDINGS)
        size += shape.num_head * (leaf in HEADS)
    if isinstance(adapter.trainable_tokens, list):
        size += len(adapter.trainable_tokens) * shape.hidden
    return size


def _matched(shape: ModelShape, patterns: list[str]) -> int:
    """Elements whose names match, by Llama's names for what lies around the matrices."""
    sizes = {"model.embed_tokens.weight": shape.num_input_embedding}
    if not shape.tied:
        sizes["lm_head.weight"] = shape.num_head
    for layer in range(shape.layers):
        for name, inputs, outputs in layer_linears(shape):
            part = "self_attn" if name.endswith(("q_proj", "k_proj", "v_proj", "o_proj")) else "mlp"
            sizes[f"model.layers.{layer}.{part}.{name}.weight"] = inputs * outputs
    return sum(n for name, n in sizes.items() if any(fnmatchcase(name, p) for p in patterns))


def _checkpointing(asked: bool | Checkpointing) -> dict[str, Any]:
    if isinstance(asked, Checkpointing):
        every, offload = asked.every_n_layers, asked.offload
        return {"recompute_every": every, "offload_activations": offload}
    return {"recompute_every": int(asked), "offload_activations": False}


def _attention(job: Job) -> str:
    asked = job.model.attention if job.model else "auto"
    if asked == "eager":
        return "square"
    isolated = job.data is None or job.data.isolate_documents
    return "mask" if asked in {"auto", "sdpa"} and isolated else "linear"


def _state_bytes(optim: str) -> float:
    if "8bit" in optim:
        return 2.0
    if "4bit" in optim:
        return 1.0
    return next((n for word, n in STATE_BYTES.items() if optim.startswith(word)), 8.0)
