"""Does the merged model say the same? Logits of base + adapter and of the merged files, compared.

The reference is peft's own way of running an adapter, in float32, not merged; the merged model is
read from the files that were written. So an error of this program, of peft's reading, or of the
tying of embeddings shows as a difference. One model is in memory at a time.
"""

# B = 1, T = tokens of a prompt, V = vocabulary

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from clusterlm.errors import WeightsError
from clusterlm.weights.adapted import put_adapter_on
from clusterlm.weights.whole_load import load_whole

PROMPTS = (
    "The lighthouse keeper wrote one line every evening, and",
    "Вечером смотритель маяка записывал одну строку, а утром",
    "灯塔看守人每天晚上写一行字，",
    "Der Leuchtturmwärter schrieb jeden Abend eine Zeile, und",
    "كان حارس المنارة يكتب سطرا كل مساء",
    "def mean(values):\n    return sum(values) /",
    '{"name": "clusterlm", "steps": [1, 2, 3],',
    "12 * 12 = 144; 13 * 13 =",
)
MOST_TOKENS = 256


@dataclass(frozen=True)
class Comparison:
    """How far two models are apart.

    Attributes:
        difference: largest |difference| of two logits.
        largest: largest |logit| of the reference.
        agree: tokens where both have the same first choice.
        tokens: compared.
        bound: what the difference may be.
        is_relative: the bound is a share of `largest`: weights that are stored in 16 bits are
            rounded, by up to 1/256 of each.
    """

    difference: float
    largest: float
    agree: int
    tokens: int
    bound: float
    is_relative: bool

    @property
    def allowed(self) -> float:
        """The bound in units of logits."""
        return self.bound * self.largest if self.is_relative else self.bound

    @property
    def is_within(self) -> bool:
        """False also for NaN."""
        return self.difference <= self.allowed

    def words(self) -> str:
        """For people: `max |difference| 1.9e-06 ...`."""
        kind = f"{self.bound:g} of the largest logit" if self.is_relative else "float32"
        return (
            f"max |difference| of logits {self.difference:.2g} (logits up to {self.largest:.3g}, "
            f"bound {self.allowed:.3g}: {kind}); the first choice agrees at {self.agree:,} of "
            f"{self.tokens:,} tokens"
        )


def reference_logits(
    base: str, adapters: Sequence[Path], prompts: Sequence[Sequence[int]], **how: Any
) -> list[torch.Tensor]:
    """Logits of base + adapters through peft; all but the last adapter are merged by peft.

    Args:
        base: folder of the base.
        adapters: in order.
        prompts: token ids.
        **how: `scale`, `device`, `trust_remote_code`.
    """
    model = _load(base, **how)
    originals = [table.clone() for table in _tables(model)] if len(adapters) > 1 else []
    for number, folder in enumerate(adapters, start=1):
        before = [table.clone() for table in _tables(model)] if number > 1 else []
        model = put_adapter_on(model, folder)
        _put_back(_tables(model), originals, before)
        _scale(model, float(how.get("scale", 1.0)))
        if number < len(adapters):
            _untie_adapted(model)
            model = model.merge_and_unload()
    return _logits(model, prompts)


def merged_logits(folder: Path, prompts: Sequence[Sequence[int]], **how: Any) -> list[torch.Tensor]:
    """Logits of the merged files, in float32."""
    return _logits(_load(str(folder), **how), prompts)


def compare_logits(
    reference: Sequence[torch.Tensor],
    merged: Sequence[torch.Tensor],
    *,
    bound: float,
    is_relative: bool,
) -> Comparison:
    """Compare logits of the same prompts, each of shape (T, V)."""
    if any(one.shape != other.shape for one, other in zip(reference, merged, strict=True)):
        raise WeightsError("the merged model has another number of tokens than base and adapter")
    pairs = list(zip(reference, merged, strict=True))
    return Comparison(
        # `max` of Python passes over NaN
        difference=float(torch.stack([(a - b).abs().max() for a, b in pairs]).max()),
        largest=max(float(a.abs().max()) for a, _ in pairs),
        agree=sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs),
        tokens=sum(len(a) for a, _ in pairs),
        bound=bound,
        is_relative=is_relative,
    )


def encode_prompts(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of the prompts, those without any left out, and one as a conversation."""
    if getattr(tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": PROMPTS[1]}]
        texts = [*texts, tokenizer.apply_chat_template(turn, tokenize=False)]
    ids = [tokenizer(text)["input_ids"][:MOST_TOKENS] for text in texts]
    if not any(ids):
        raise WeightsError("no prompt gives a token: there is nothing to compare")
    return [prompt for prompt in ids if prompt]


def _load(name: str, **how: Any) -> Any:
    from transformers import AutoModelForCausalLM

    trusted = bool(how.get("trust_remote_code"))
    model = load_whole(AutoModelForCausalLM, name, dtype=torch.float32, trust_remote_code=trusted)
    return model.to(how.get("device") or "cpu").eval()


def _ends(model: Any) -> list[Any]:
    return [model.get_input_embeddings(), model.get_output_embeddings()]


def _tables(model: Any) -> list[torch.Tensor]:
    """Weights of input and output of the base, without those of adapters."""
    return [getattr(end, "base_layer", end).weight.data for end in _ends(model) if end is not None]


def _put_back(
    tables: Sequence[torch.Tensor],
    originals: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
) -> None:
    """Undo what peft does with the frozen table beside a LoRA of it.

    It is laid over what the adapters before have made of the table.
    """
    for table, original, changed in zip(tables, originals, before, strict=False):
        if torch.equal(table, original):
            table.copy_(changed)


def _untie_adapted(model: Any) -> None:
    """Give input and output a table each where a LoRA lies over one: peft merges into both."""
    ends = [end for end in _ends(model) if end is not None]
    bases = [getattr(end, "base_layer", end) for end in ends]
    has_lora = any(hasattr(end, "lora_A") for end in ends)
    if has_lora and len(bases) == 2 and bases[0].weight is bases[1].weight:
        bases[1].weight = torch.nn.Parameter(bases[1].weight.detach().clone())
        model.get_base_model().config.tie_word_embeddings = False


def _scale(model: Any, scale: float) -> None:
    if scale == 1.0:
        return
    for module in model.modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, dict):
            for name in scaling:
                scaling[name] *= scale


@torch.no_grad()
def _logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    device = next(model.parameters()).device
    found = []
    for prompt in prompts:
        output = model(input_ids=torch.tensor([list(prompt)], device=device), use_cache=False)
        found.append(output.logits[0].float().cpu())
    del model
    gc.collect()
    return found
