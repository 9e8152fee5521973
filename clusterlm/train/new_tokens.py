"""Which rows of the embedding are trained beside an adapter: model.adapter.trainable_tokens.

`new` are the entries of the data's tokenizer that the model did not know. That is seen from the
model's own tokenizer: its entries must have the same ids in the data's, and what comes behind them
is new. A model that was resized to the tokenizer (`model.vocab: resize`) says where the new rows
begin. A model without a tokenizer tells by its rows, where the data's has more entries. Everything
else would be a guess, and a guess would train nothing, or the wrong rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from clusterlm.errors import TrainError
from clusterlm.node.files import read_json
from clusterlm.spec.model import Model

PLACE = "model.adapter.trainable_tokens"
WAY_OUT = "list the ids instead: trainable_tokens: [32000, 32001]"


def choose_tokens(asked: Model, model: Any, tokenizer: Any) -> list[int]:
    """Ids of the rows to train; none when they are not asked for.

    Args:
        asked: the model's section of the spec.
        model: loaded, perhaps resized to the tokenizer.
        tokenizer: of the prepared data.
    """
    wanted = asked.adapter.trainable_tokens if asked.adapter else None
    if wanted is None:
        return []
    ids = _new(asked, tokenizer) if wanted == "new" else sorted(set(wanted))
    rows = num_rows(model)
    if outside := [number for number in ids if not 0 <= number < rows]:
        raise TrainError(f"{PLACE}: {outside[0]} is no row of the embedding, which has {rows}")
    return list(ids)


def num_rows(model: Any) -> int:
    """Rows of the input embedding, also of one that is split over the ranks."""
    weight = model.get_input_embeddings().weight
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def _new(asked: Model, tokenizer: Any) -> range:
    # what the data phase left beside a model that it resized
    resized = (read_json(Path(asked.name or "") / "DONE") or {}).get("num_old")
    if isinstance(resized, int) and resized < len(tokenizer):
        return range(resized, len(tokenizer))
    own = _own_vocabulary(asked)
    if own is None:
        first = _own_rows(asked)
        if first is None or first >= len(tokenizer):
            raise TrainError(
                f"{PLACE}: new: which entries are new cannot be known: {asked.name} has no "
                f"tokenizer of its own, and no fewer rows than the tokenizer's {len(tokenizer)} "
                f"entries; {WAY_OUT}"
            )
        return range(first, len(tokenizer))
    there = tokenizer.get_vocab()
    moved = [text for text, number in own.items() if there.get(text) != number]
    if moved:
        raise TrainError(
            f"{PLACE}: new: the tokenizer of the data is not the model's with entries added: "
            f"{moved[0]!r} has another id there, or none; {WAY_OUT}"
        )
    first = max(own.values()) + 1
    if first >= len(tokenizer):
        raise TrainError(
            f"{PLACE}: new: the tokenizer of the data has no entry that the model's own has not; "
            f"add some with data.tokenizer.extend, or {WAY_OUT}"
        )
    return range(first, len(tokenizer))


def _own_vocabulary(asked: Model) -> dict[str, int] | None:
    origin = {"revision": asked.revision, "trust_remote_code": asked.trust_remote_code}
    try:
        vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(asked.name, **origin).get_vocab()
    except (OSError, ValueError):
        return None
    return vocabulary or None


def _own_rows(asked: Model) -> int | None:
    origin = {"revision": asked.revision, "trust_remote_code": asked.trust_remote_code}
    config = AutoConfig.from_pretrained(asked.name, **origin).get_text_config()
    rows = getattr(config, "vocab_size", None)
    return rows if isinstance(rows, int) else None
