"""Whether documents that share a block see each other, tried on a small copy of the model.

The copy has the class and the config of the model with its sizes cut down, and strong random
weights, so that a document that sees its neighbour differs by tenths and not by millionths. It
reads two rows of two documents, once packed and once each document alone: the logits must be the
same. That takes a fraction of a second and none of the real weights, so every rank comes to the
same answer, also where weights are split over the ranks.
"""

# B = rows, T = tokens of a row, V = vocabulary

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from clusterlm.spec.wording import one_line
from clusterlm.train.flat_rows import lay_rows_flat

DOCUMENTS = (9, 7)
"""Lengths of the documents of a row."""
VOCAB = 64
FAR = 0.05
"""Share of the largest logit by which they may differ: bf16 is off by 0.01, a neighbour by 0.3."""

SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 4),
}
"""Widths of the copy, by the names that configs have for them."""
# in some models head_dim follows from these, or from widths of other names, or cannot be set
WIDTHS: tuple[dict[str, int], ...] = (SMALL | {"head_dim": 16}, SMALL, {})
"""What is tried, in turn."""
FEWER: dict[str, int] = {
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    # layers that take their keys from layers which are not there
    "num_kv_shared_layers": 0,
    "rotary_dim": 8,
    "vocab_size_per_layer_input": VOCAB,
    # windows must be reached by documents that short
    "sliding_window": 4,
}
"""Numbers that are lowered to this, or stay where they are below."""


class NotIsolated(Exception):
    """Documents see each other, or the model cannot be run so; says which."""


def find_class(model_class: type | str | None, config: Any) -> Any:
    """The class itself: given, by its name in transformers, or that of AutoModelForCausalLM."""
    if isinstance(model_class, str):
        return getattr(transformers, model_class)
    if model_class is not None:
        return model_class
    auto = transformers.AutoModelForCausalLM
    if type(config) in auto._model_mapping:
        return auto._model_mapping[type(config)]
    # the model's own code; its config is only there because that was allowed
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return get_class_from_dynamic_module(config.auto_map[auto.__name__], config._name_or_path)


def try_isolation(model_class: Any, config: Any, name: str, *, on_cpu: bool) -> None:
    """Compare packed documents with each alone, under the attention `name`.

    Raises:
        NotIsolated: they differ, or nothing can be computed so.
    """
    # flex_attention has its mask from the same functions as sdpa, and compiles for half a minute
    tried = "sdpa" if name == "flex_attention" else name
    first: Exception | None = None
    # what is drawn here must not change what the training draws
    with torch.random.fork_rng(devices=[] if on_cpu else [torch.cuda.current_device()]):
        for widths in WIDTHS:
            try:
                far = _difference(model_class, shrink(config, widths, tried))
            # any config of anybody may be what is tried here; some widths depend on each other
            except Exception as error:
                first = first or error
            else:
                if not far < FAR:
                    raise NotIsolated("documents that share a block see each other")
                return
    assert first is not None
    raise NotIsolated(f"a small copy of it could not be tried: {one_line(first, 200)}") from first


def refuse_unsupported(model_class: Any, config: Any, name: str) -> None:
    """Build the model without memory for weights, only to see whether it takes `name`.

    Raises:
        NotIsolated: transformers says that it does not.
    """
    asked = copy.deepcopy(config)
    asked._attn_implementation = name
    try:
        with torch.device("meta"):
            model_class(asked)
    except (ValueError, ImportError) as error:
        raise NotIsolated(one_line(error, 200)) from error


def shrink(config: Any, widths: dict[str, int], name: str) -> Any:
    """A copy of the config with few layers and small sizes; nested ones (of text, images) too."""
    small = copy.deepcopy(config)
    for part in _parts(small):
        _cut_layers(part)
        for key, most in FEWER.items():
            if isinstance(found := getattr(part, key, None), int) and found > most:
                setattr(part, key, most)
        if "num_attention_heads" in widths and hasattr(part, "num_key_value_heads"):
            # fewer only where they are: in others keys and queries must be as many
            shared = part.num_key_value_heads != getattr(part, "num_attention_heads", None)
            part.num_key_value_heads = 2 if shared else widths["num_attention_heads"]
        for key, value in widths.items():
            if isinstance(getattr(part, key, None), int):
                setattr(part, key, value)
        for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(part, key, None) is not None:
                setattr(part, key, 0)
        if hasattr(part, "vocab_size"):
            part.vocab_size = VOCAB
    if hasattr(small, "use_cache"):
        # as the trainer has it; where it is kept, positions tell nothing
        small.use_cache = False
    small._attn_implementation = name
    return small


def _parts(config: Any) -> list[Any]:
    """The config and those inside it."""
    nested = [getattr(config, key, None) for key in getattr(config, "sub_configs", {})]
    return [config, *(part for part in nested if part is not None)]


def _cut_layers(config: Any) -> None:
    count = getattr(config, "num_hidden_layers", None)
    if not isinstance(count, int) or count <= 2:
        return
    kinds = getattr(config, "layer_types", None)
    if isinstance(kinds, list) and len(kinds) == count:
        # [sliding, sliding, full, sliding, ...] -> layers 0 and 2
        kept = sorted(kinds.index(kind) for kind in set(kinds))
        kept = kept if len(kept) > 1 else [0, 1]
    else:
        kept = [0, 1]
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[layer] for layer in kept])
    config.num_hidden_layers = len(kept)


@torch.no_grad()
def _difference(model_class: Any, config: Any) -> float:
    """Between the logits of packed documents and those of each alone; the largest is 1."""
    flat = config._attn_implementation.startswith("flash")
    device, dtype = ("cuda", torch.bfloat16) if flat else ("cpu", torch.float32)
    torch.manual_seed(0)
    # directly: under ZeRO-3 every other door would split the copy, too
    model = model_class(config).to(device, dtype).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.normal_(std=weight.shape[-1] ** -0.5)
    ids_BT = torch.randint(1, VOCAB, (2, sum(DOCUMENTS)), device=device)
    packed_BTV = _logits(model, ids_BT, DOCUMENTS, flat=flat)
    alone = [
        _logits(model, document_BT, (document_BT.shape[1],), flat=flat)
        for document_BT in torch.split(ids_BT, list(DOCUMENTS), dim=1)
    ]
    return float((packed_BTV - torch.cat(alone, dim=1)).abs().max() / packed_BTV.abs().max())


def _logits(
    model: Any, ids_BT: torch.Tensor, lengths: tuple[int, ...], *, flat: bool
) -> torch.Tensor:
    """The logits in float32, of shape (B, T, V)."""
    positions = torch.cat([torch.arange(length) for length in lengths]).to(ids_BT.device)
    batch = {"input_ids": ids_BT, "position_ids": positions.expand_as(ids_BT)}
    logits: torch.Tensor = model(**lay_rows_flat(batch) if flat else batch)["logits"]
    return logits.float().reshape(*ids_BT.shape, -1)
