"""Options whose meaning depends on their value, or on what else is there. One function each."""

from __future__ import annotations

from collections.abc import Callable

from clusterlm.importing.arguments import scalar
from clusterlm.importing.draft import Draft, run_name
from clusterlm.importing.shell import readable, unset_in
from clusterlm.spec.old_names import DTYPES

Given = dict[str, tuple[list[str], str]]
"""Options by name: their values, and how they were written."""


def read_special(name: str, values: list[str], written: str, draft: Draft) -> None:
    """Put one option into the draft."""
    READERS[name](values[0] if values else "True", written, draft)


def _seed(value: str, written: str, draft: Draft) -> None:
    if value.isdigit():
        draft.put("train.seed", int(value), written)
    else:
        draft.add("train.seed", 42, f"{written}; a seed that is written down can be used again")


def _torch_dtype(value: str, written: str, draft: Draft) -> None:
    word = value.removeprefix("torch.")
    word = DTYPES.get(word, word)
    if word in ("bfloat16", "float32"):
        draft.put("model.dtype", word, written)
    elif word == "float16":
        why = "weights in float16 cannot be trained; frozen ones are kept in bfloat16"
        draft.drop(written, why)
    else:
        draft.drop(written, "model.dtype decides: float32, or bfloat16 under an adapter")


def _peft(value: str, written: str, draft: Draft) -> None:
    if unset_in(value):
        why = f"{readable(value)} is not set; true was adapter, false embeddings"
        draft.ask("train.mode", "adapter", why)
    elif scalar(value) is True:
        draft.put("train.mode", "adapter", written)
    else:
        # the script then freezes all but the input embedding and lm_head
        draft.put("train.mode", "embeddings", written)


def _run_name(value: str, written: str, draft: Draft) -> None:
    if unset_in(value):
        draft.drop(written, f"{readable(value)} is not set; name is the run's")
    else:
        draft.put("name", run_name(value), written)


def _token(value: str, written: str, draft: Draft) -> None:
    # the value may be the secret itself: it is never written
    if scalar(value) is not False:
        draft.extend("secrets", "HF_TOKEN", written.replace("=", " ").split()[0])


def _wsd(value: str, written: str, draft: Draft) -> None:
    why = "with lr_scheduler: warmup_stable_decay write lr_scheduler_kwargs: {num_decay_steps: ...}"
    draft.note(written, f"share of all steps at the full rate; {why}")


def _config(value: str, written: str, draft: Draft) -> None:
    draft.note(written, "is a file of its own; give it to `clusterlm import` by itself")


def _deepspeed(value: str, written: str, draft: Draft) -> None:
    draft.put("train.strategy", "deepspeed", written)
    if scalar(value) is True:
        return
    if unset_in(value):
        draft.ask("train.deepspeed.stage", 2, f"{readable(value)} is not set; the JSON's stage")
    else:
        draft.put("train.deepspeed", value, written)


READERS: dict[str, Callable[[str, str, Draft], None]] = {
    "config": _config,
    "deepspeed": _deepspeed,
    "deepspeed_config": _deepspeed,
    "hub_token": _token,
    "peft": _peft,
    "run_name": _run_name,
    "seed": _seed,
    "token": _token,
    "torch_dtype": _torch_dtype,
    "use_auth_token": _token,
    "wsd_constant_part": _wsd,
}
