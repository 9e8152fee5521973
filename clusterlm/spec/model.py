"""Which model is trained, and which part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from clusterlm.spec.base import CLASS_PATH, LEFT_OUT, MODULE_NAME, Line, Revision, Spec
from clusterlm.spec.units import Flag

ModuleName = Annotated[str, Field(pattern=MODULE_NAME)]
Attention = Literal[
    "auto", "flash_attention_2", "flash_attention_3", "flex_attention", "sdpa", "eager"
]


TokenId = Annotated[int, Field(ge=0)]


class FromScratch(Spec):
    """A new model with random weights."""

    class_: str = Field(alias="class", pattern=CLASS_PATH)
    """A class of transformers such as LlamaForCausalLM, package.module.Class, or my_model.py:Class
    beside the YAML; it brings a config_class."""
    config: dict[str, Any]
    """Arguments of its config class (AutoModelForCausalLM takes model_type too); vocab_size and the
    special token ids come from the tokenizer."""


class Vocab(Spec):
    """Rows of the model's embedding against the entries of the tokenizer."""

    mode: Literal["keep", "resize", "strict"] = "keep"
    """keep: no more entries than rows; resize: as many rows as entries, made once on one node
    before the training; strict: exactly as many rows as entries."""
    expect: list[int] | None = Field(None, min_length=2, max_length=2)
    """[rows of the model, entries of the tokenizer]; any other pair is refused."""
    new_rows: Literal["weighted_mean", "mean", "random"] = "weighted_mean"
    """How a new row begins: mean of the rows of the old pieces that spell it, weighted by their
    length; mean of all old rows; or random with their spread."""
    multiple_of: int = Field(1, ge=1, le=4096)
    """Round the rows up to a multiple of this when they are resized; 64 suits GPUs."""


def _section(value: object) -> object:
    # `vocab: resize` is the section with that mode
    return {"mode": value} if isinstance(value, str) else value


VocabSection = Annotated[Vocab, BeforeValidator(_section)]


class Adapter(Spec):
    """LoRA (https://arxiv.org/abs/2106.09685): small matrices beside frozen weights."""

    method: Literal["lora", "dora"] = "lora"
    """Which adapter; DoRA (https://arxiv.org/abs/2402.09353) learns lengths and directions apart.
    QLoRA is one over model.quantization."""
    r: int = Field(16, ge=1, le=4096)
    """Rank."""
    alpha: float = Field(32, gt=0)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    rslora: Flag = False
    """Multiply by alpha / sqrt(r) instead (https://arxiv.org/abs/2312.03732)."""
    init: Literal[
        "default", "gaussian", "pissa", "pissa_niter_16", "olora", "orthogonal", "eva"
    ] = "default"
    """How it begins: pissa takes the largest singular values of the weights and olora their first
    directions, out of the base, and what is saved is for the base as it was; eva takes those of
    the activations on the training data."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which bias terms are trained."""
    target_modules: list[ModuleName] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one."""
    exclude_modules: list[ModuleName] = []
    """Names of layers that get none."""
    rank_pattern: dict[str, int] | Line = {}
    """Rank of single layers, by name or regular expression; or the path of a JSON with them."""
    alpha_pattern: dict[str, float] | Line = {}
    """Alpha of single layers, likewise."""
    modules_to_save: list[ModuleName] = []
    """Layers trained whole beside the adapter, such as lm_head."""
    trainable_tokens: list[TokenId] | Literal["new"] | None = None
    """Rows of the embedding that are trained, and of the output head where that is a matrix of its
    own: token ids, or new for those that data.tokenizer.extend or model.vocab added. Far cheaper
    than modules_to_save."""
    continue_from: Line | None = None
    """Folder of an adapter to go on with; it brings its own settings."""


class Model(Spec):
    """An existing model, or one from scratch. Exactly one of `name` and `from_scratch`."""

    name: Line | None = None
    """Folder (relative to the YAML) or hub id."""
    revision: Revision | None = None
    """Commit or tag on the hub."""
    class_: str | None = Field(None, alias="class", pattern=CLASS_PATH)
    """Load `name` with this class instead of AutoModelForCausalLM; written as in from_scratch."""
    trust_remote_code: Flag = False
    """Run Python code that the model brings."""
    from_scratch: FromScratch | None = None
    """A new model."""
    vocab: VocabSection = LEFT_OUT
    """keep, resize or strict; or a section."""
    adapter: Adapter | None = None
    """With train.mode: adapter."""
    quantization: Literal["nf4", "fp4", "int8"] | None = None
    """Keep frozen weights in 4 or 8 bits (bitsandbytes, on a GPU), under an adapter."""
    attention: Attention = "auto"
    """Implementation of attention; auto takes the fastest that keeps documents apart here."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Type the weights are kept in; default: float32, or bfloat16 for frozen weights under an
    adapter in bf16."""
