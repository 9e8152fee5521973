"""Which model is trained, and which part of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from clusterlm.spec.base import CLASS_NAME, MODULE_NAME, Line, Revision, Spec

ModuleName = Annotated[str, Field(pattern=MODULE_NAME)]


class FromScratch(Spec):
    """A new model with random weights."""

    class_: str = Field(alias="class", pattern=CLASS_NAME)
    """transformers class, such as LlamaForCausalLM."""
    config: dict[str, Any]
    """Arguments of its config class; vocab_size and the special token ids come from the tokenizer.
    """


class Adapter(Spec):
    """LoRA (https://arxiv.org/abs/2106.09685): small matrices beside frozen weights."""

    method: Literal["lora"] = "lora"
    """Which adapter."""
    r: int = Field(16, ge=1, le=4096)
    """Rank."""
    alpha: float = Field(32, gt=0)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapter."""
    target_modules: list[ModuleName] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get one."""
    modules_to_save: list[ModuleName] = []
    """Layers trained whole beside the adapter, such as lm_head."""


class Model(Spec):
    """An existing model, or one from scratch. Exactly one of `name` and `from_scratch`."""

    name: Line | None = None
    """Folder (relative to the YAML) or hub id."""
    revision: Revision | None = None
    """Commit or tag on the hub."""
    from_scratch: FromScratch | None = None
    """A new model."""
    adapter: Adapter | None = None
    """With train.mode: adapter."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Type the weights are kept in; default: float32, or bfloat16 for frozen weights under an
    adapter in bf16."""
