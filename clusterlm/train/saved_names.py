"""Checkpoints under the names that the model in memory has for its weights.

transformers 5 saves some models under the names of their first release (GPT-NeoX: `embed_out` for
`lm_head`; experts one by one), and only `from_pretrained` reads these back. Its Trainer resumes by
`load_state_dict`, takes what fits and warns of the rest: such a weight would begin anew, at random.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from clusterlm.errors import TrainError

_OPTION = "save_original_format"


@contextmanager
def own_names(model: Any) -> Iterator[None]:
    """Within it `model.save_pretrained` changes no name; what was there before has no option."""
    save = getattr(model, "save_pretrained", None)
    if save is None or _OPTION not in inspect.signature(save).parameters:
        yield
        return
    model.save_pretrained = partial(save, **{_OPTION: False})
    try:
        yield
    finally:
        del model.save_pretrained


def refuse_partial_load(model: Any, result: Any) -> None:
    """Compare what `load_state_dict` says with what the model has; tied weights are saved once.

    Raises:
        TrainError: a weight of the model is not in the checkpoint, or the reverse.
    """
    missing = _untied(model, set(result.missing_keys))
    problems = [f"{name} is not in it" for name in sorted(missing)]
    problems += [f"the model has no {name}" for name in sorted(result.unexpected_keys)]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TrainError(
            f"the checkpoint is not of this model: {'; '.join(problems[:5])}{more}; resume with "
            "the versions it was written by, or start a new run"
        )


def _untied(model: Any, missing: set[str]) -> set[str]:
    """The missing names whose weight does not stand under another name that was there."""
    there = {
        id(weight)
        for name, weight in model.named_parameters(remove_duplicate=False)
        if name not in missing
    }
    weights = dict(model.named_parameters(remove_duplicate=False))
    ignored = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    return {
        name for name in missing - ignored if name in weights and id(weights[name]) not in there
    }
