"""How transformers spells FSDP, read as `strategy: fsdp` and the section `fsdp`.

Version 1 has words in one text or a list, `fsdp: "full_shard auto_wrap offload"`; from 5.20 on it
is `fsdp: true`; `fsdp_config: {transformer_layer_cls_to_wrap: [LlamaDecoderLayer]}` goes with both.
"""

from __future__ import annotations

from typing import Any

from clusterlm.spec.units import flag_of
from clusterlm.spec.wording import shown

SHARDS = {"full_shard": "full", "shard_grad_op": "gradients"}
WORDS = (*SHARDS, "auto_wrap", "offload", "no_shard")
OF_VERSION_1 = (
    *("backward_prefetch", "cpu_ram_efficient_loading", "forward_prefetch", "limit_all_gathers"),
    *("state_dict_type", "sync_module_states", "use_orig_params", "version", "auto_wrap_policy"),
)
"""Keys of fsdp_config that version 2 has no use for, or decides itself."""


def read_fsdp(value: Any, job: dict[str, Any]) -> dict[str, Any] | str | None:
    """`--fsdp`: what it sets, or why it may be left out; None when it is the section already."""
    if isinstance(value, dict):
        return None
    if isinstance(value, bool):
        return {"train.strategy": "fsdp"} if value else "train.strategy decides"
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not words:
        return "train.strategy decides"
    if not isinstance(words, list) or any(word not in WORDS for word in words):
        raise ValueError(f"found {_said(value)}; accepted: {', '.join(WORDS)}")
    if "no_shard" in words:
        return {"train.strategy": "ddp"}
    sets: dict[str, Any] = {"train.strategy": "fsdp"}
    for word in set(words) & set(SHARDS):
        sets["train.fsdp.shard"] = SHARDS[word]
    if "offload" in words:
        sets["train.fsdp.offload"] = True
    return sets


def read_wrapped(value: Any, job: dict[str, Any]) -> dict[str, Any]:
    """`--fsdp_transformer_layer_cls_to_wrap`: one name, several with commas, or a list."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    return {"train.fsdp.wrap": names}


def read_fsdp_config(value: Any, job: dict[str, Any]) -> dict[str, Any] | str:
    """The mapping that transformers and accelerate take; its keys may begin with `fsdp_`."""
    if not isinstance(value, dict):
        raise ValueError(f"found {shown(value)}; write fsdp: {{shard: full, wrap: [...]}}")
    sets: dict[str, Any] = {}
    for key, one in value.items():
        name = str(key).removeprefix("fsdp_")
        if name == "transformer_layer_cls_to_wrap":
            sets |= read_wrapped(one, job)
        elif name == "reshard_after_forward":
            sets["train.fsdp.shard"] = "full" if flag_of(one) else "gradients"
        elif name == "offload_params":
            sets["train.fsdp.offload"] = flag_of(one)
        elif name == "activation_checkpointing":
            sets["train.activation_checkpointing"] = flag_of(one)
        elif name not in OF_VERSION_1 and one:
            raise ValueError(f"{shown(name)} is not accepted; write fsdp: {{shard, wrap, offload}}")
    return sets or "it says nothing that train.fsdp does not"


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else shown(value)
