"""Which weights a model's folder holds, by the headers of its safetensors, without torch.

    8 bytes length | JSON: {name: {dtype, shape, data_offsets}} | the numbers

A job names layers: what an adapter goes beside, what is trained. Whether they are there is read
here, before the job waits in a queue. A model in memory has other names than its files in some
families (experts that are put together, old names), so only known families are asked.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import os
from typing import Any

from clusterlm.spec.json_files import NoJsonError, read_json_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000
SAME_NAMES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3"),
    *("gpt2", "opt", "olmo2", "granite", "starcoder2", "stablelm"),
)
"""Types of models whose files name the weights as the model in memory does."""
PREFIXES = ("model.", "transformer.")
"""What files of the base alone leave out."""
HEAD = "lm_head"
"""Of a tied model it is in no file, and still a layer."""

Shapes = dict[str, tuple[int, ...]]


class DamagedError(Exception):
    """A file is not there, or not whole; the text says which."""


def has_same_names(folder: str) -> bool:
    """Whether the names in the files are those of the model in memory."""
    try:
        config = read_json_file(os.path.join(folder, "config.json"))
    except NoJsonError:
        return False
    return isinstance(config, dict) and config.get("model_type") in SAME_NAMES


def read_weight_names(folder: str) -> Shapes | None:
    """Name and shape of every weight; None where there are no safetensors.

    Raises:
        DamagedError: a file that must be there is missing, or is cut off.
    """
    single, index = os.path.join(folder, SINGLE), os.path.join(folder, INDEX)
    if os.path.isfile(single):
        return read_shapes(single)
    if not os.path.isfile(index):
        return None
    found: Shapes = {}
    for name in _files_of(index):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise DamagedError(f"{name} is missing, which {INDEX} names")
        found |= read_shapes(path)
    return found


def read_shapes(path: str) -> Shapes:
    """Of one file; its end must be where the header says.

    Raises:
        DamagedError: it is cut off, or no safetensors file.
    """
    import json  # few jobs have such a file

    name = os.path.basename(path)
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise DamagedError(f"{name} is cut off, or no safetensors file ({size} bytes)")
            header = json.loads(file.read(length))
        entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for entry in entries.values()]
        shapes = {key: tuple(map(int, entry["shape"])) for key, entry in entries.items()}
    except OSError as error:
        raise DamagedError(f"{name} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise DamagedError(f"{name} is no safetensors file: its header cannot be read") from None
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise DamagedError(f"{name} has {size} bytes instead of {whole}; fetch or copy it again")
    return shapes


def _files_of(index: str) -> list[str]:
    try:
        content: Any = read_json_file(index, MAX_HEADER_BYTES)
        names = sorted({str(name) for name in content["weight_map"].values()})
    except (NoJsonError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{INDEX} is no index of weights") from None
    if elsewhere := [name for name in names if os.path.basename(name) != name]:
        raise DamagedError(f"{INDEX} names a file elsewhere: {elsewhere[0]}")
    return names
