"""A model's folder with as many rows as a tokenizer has entries; everything else byte for byte.

Made on one node before the training, tensor by tensor: under ZeRO-3, where weights are split, a
resize goes wrong (transformers #41959). Embedding and head are treated alike, tied or not. Rows
behind the last entry (`multiple_of`) get the mean, or are drawn with the others.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.node.files import read_json, write_json
from clusterlm.spec.vocabulary import rows_of
from clusterlm.weights.files import Weights, WeightsWriter
from clusterlm.weights.new_rows import Method, Spelling, make_rows
from clusterlm.weights.numbers import NUM_BYTES, encode
from clusterlm.weights.tables import set_rows, tables_of
from clusterlm.weights.writer import MAX_SHARD_BYTES

CONFIG, GENERATION = "config.json", "generation_config.json"
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# weights, in whatever form, and what a resized model has of its own
_NOT_COPIED = (
    *(".safetensors", ".index.json", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"),
    *(".md", ".gitattributes"),
)
LARGEST_COPIED = 64 << 20

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Resize:
    """What is to be made.

    Attributes:
        entries: of the tokenizer.
        num_old: rows whose entry the model was trained with; those behind them are made new.
        method: how new rows begin.
        multiple_of: the rows are rounded up to a multiple of it.
        spelling: of the entries from num_old on; for weighted_mean.
        seed: for random.
    """

    entries: int
    num_old: int
    method: Method
    multiple_of: int = 1
    spelling: Spelling | None = None
    seed: int = 0

    def num_rows(self, rows: int) -> int:
        """Rows of the result: never fewer than there are."""
        return max(rows, math.ceil(self.entries / self.multiple_of) * self.multiple_of)


def resize_model(
    origin: Path,
    tokenizer: Path,
    target: Path,
    wanted: Resize,
    *,
    special_ids: dict[str, int | None] | None = None,
    tell: Tell = lambda line: None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> tuple[int, int]:
    """Write a model with rows for all entries, and its tokenizer, into `target`.

    Args:
        origin: the model.
        tokenizer: folder of the one that it shall go with.
        target: an empty folder.
        wanted: how.
        special_ids: ids of the tokenizer's own bos, eos, pad, as they are called in a config.
        tell: gets lines for people.
        max_shard_bytes: of a file of weights.

    Returns:
        Rows before and after.

    Raises:
        WeightsError: the model's files are not whole, or its tables are not known.
    """
    config = read_json(origin / CONFIG) or {}
    rows = rows_of(config)
    if rows is None:
        raise WeightsError(f"{origin / CONFIG}: says no vocab_size")
    num_rows = wanted.num_rows(rows)
    with Weights.open(origin) as weights:
        tables = tables_of(weights, rows)
        writer = WeightsWriter(target, max_shard_bytes)
        for name in weights.names:
            shape = weights.shape(name)
            data: Any = weights.raw(name)
            if name in tables:
                data, shape = _resized(weights, name, wanted, num_rows), (num_rows, *shape[1:])
            writer.add(name, data, weights.dtype(name), shape)
        writer.finish()
    tell(
        f"model: {rows:,} -> {num_rows:,} rows in {', '.join(tables)};"
        f" {wanted.entries - wanted.num_old:,} entries begin as {wanted.method}"
    )
    _copy_rest(origin, tokenizer, target)
    for name in (CONFIG, GENERATION):
        _write_config(origin / name, target / name, (rows, num_rows), special_ids or {}, tell)
    return rows, num_rows


def _resized(weights: Weights, name: str, wanted: Resize, num_rows: int) -> bytearray:
    dtype, (rows, *rest) = weights.dtype(name), weights.shape(name)
    width = math.prod(rest) * NUM_BYTES[dtype]
    made = make_rows(
        weights,
        name,
        num_old=wanted.num_old,
        num_new=num_rows - wanted.num_old,
        method=wanted.method,
        spelling=wanted.spelling,
        seed=wanted.seed,
    )
    new = memoryview(encode(made, dtype, None)[0])
    table = bytearray(num_rows * width)
    table[: rows * width] = weights.raw(name)
    # entries that the old tokenizer did not have, whether or not a row lay there; rows that have
    # no entry even now stay what they are
    for first, end in ((wanted.num_old, wanted.entries), (max(rows, wanted.entries), num_rows)):
        begin = first - wanted.num_old
        if end > first:
            table[first * width : end * width] = new[begin * width : (end - wanted.num_old) * width]
    return table


def _copy_rest(origin: Path, tokenizer: Path, target: Path) -> None:
    """The model's other files (code of its own, say); then the tokenizer's, which win."""
    for path in sorted(origin.iterdir()):
        is_small = path.is_file() and path.stat().st_size <= LARGEST_COPIED
        is_its_own = path.name.startswith((".", "token", "special_tokens", "added_tokens"))
        others = ("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json")
        if not is_small or is_its_own or path.name in (*others, CONFIG, GENERATION):
            continue
        if not path.name.endswith(_NOT_COPIED):
            shutil.copyfile(path, target / path.name)
    for path in sorted(tokenizer.iterdir()):
        if path.is_file() and path.name not in ("DONE", "facts.json"):
            shutil.copyfile(path, target / path.name)


def _write_config(
    origin: Path,
    target: Path,
    sizes: tuple[int, int],
    special_ids: dict[str, int | None],
    tell: Tell,
) -> None:
    config = read_json(origin)
    if config is None:
        return
    config = set_rows(config, *sizes)
    for key in SPECIAL_IDS:
        wanted, found = special_ids.get(key), config.get(key)
        ids = found if isinstance(found, list) else [found]
        # a list names all that end an answer; a config that says nothing leaves it to others
        if wanted is None or wanted in ids or found is None:
            continue
        tell(f"{target.name}: {key} {found} -> {wanted}, as in the tokenizer of the data")
        config[key] = wanted
    write_json(target, config, mode=0o644)
