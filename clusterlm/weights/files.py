"""The weights of a model's folder, read tensor by tensor, without torch.

    model.safetensors                    all of them, or
    model.safetensors.index.json         which file holds which
    model-00001-of-00003.safetensors     8 bytes length, a JSON header, then the tensors' bytes

The files are mapped: nothing is in memory but what is looked at. `writer.py` writes them.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.errors import WeightsError
from clusterlm.weights.numbers import NUM_BYTES, decode
from clusterlm.weights.writer import WeightsWriter

__all__ = ["Tensor", "Weights", "WeightsWriter", "read_header"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and as what."""

    dtype: str
    """As safetensors writes it: BF16, F16, F32, I64 ..."""
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        return self.end - self.start


class Weights:
    """The tensors of a folder, by name; use it in `with`, or close it."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self._maps: dict[Path, mmap.mmap] = {}

    @classmethod
    def open(cls, folder: Path, stem: str = "model") -> Weights:
        """Read the headers of a model's folder.

        Args:
            folder: with `<stem>.safetensors` or its index; or one .safetensors file.
            stem: "adapter_model" for an adapter.

        Raises:
            WeightsError: there are none, a file is missing or damaged, or they are a pickle.
        """
        if folder.is_file():
            return cls(read_header(folder))
        single, index = (
            folder / f"{stem}.safetensors",
            folder / f"{stem}.safetensors.index.json",
        )
        if single.is_file():
            return cls(read_header(single))
        if not index.is_file():
            raise WeightsError(_absent(folder, stem))
        return cls(_of_index(index))

    @property
    def names(self) -> list[str]:
        """All names, in the order in which they lie on the disk: reading so is fastest."""
        places = {name: (str(one.file), one.start, name) for name, one in self.tensors.items()}
        return sorted(places, key=places.__getitem__)

    @property
    def files(self) -> list[Path]:
        return sorted({tensor.file for tensor in self.tensors.values()})

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())

    def dtype(self, name: str) -> str:
        return self._at(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self._at(name).shape

    def raw(self, name: str) -> memoryview:
        """The bytes of a tensor as they lie on the disk; nothing is copied."""
        tensor = self._at(name)
        if tensor.num_bytes == 0:
            return memoryview(b"")
        if tensor.file not in self._maps:
            with tensor.file.open("rb") as handle:
                self._maps[tensor.file] = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        return memoryview(self._maps[tensor.file])[tensor.start : tensor.end]

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor in memory: BF16 and F16 as float32, every other type as it is.

        Raises:
            WeightsError: there is no such tensor, or numpy cannot hold its type (8-bit floats).
        """
        return decode(self.raw(name), self.dtype(name)).reshape(self.shape(name))

    def read_rows(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Some rows of a table, in the order asked for; only these are read."""
        shape = self.shape(name)
        width = math.prod(shape[1:]) * NUM_BYTES[self.dtype(name)]
        table = np.frombuffer(self.raw(name), dtype=np.uint8).reshape(shape[0], width)
        return decode(table[rows].tobytes(), self.dtype(name)).reshape(-1, *shape[1:])

    def close(self) -> None:
        """Let go of the files."""
        for mapped in self._maps.values():
            # somebody still looks at a tensor: then it goes when he does
            with suppress(BufferError):
                mapped.close()
        self._maps = {}

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def _at(self, name: str) -> Tensor:
        try:
            return self.tensors[name]
        except KeyError:
            raise WeightsError(f"there is no tensor {name} among {len(self.tensors)}") from None


def read_header(path: Path) -> dict[str, Tensor]:
    """What a .safetensors file holds, by name.

    Raises:
        WeightsError: it is not there, or not whole.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise WeightsError(f"{path}: is cut off or no safetensors file ({size} bytes)")
            header = json.loads(handle.read(length))
        found = {
            name: _tensor(path, entry, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{path}: is no safetensors file ({error})") from error
    for name, tensor in found.items():
        expected = math.prod(tensor.shape) * NUM_BYTES.get(tensor.dtype, 0)
        if tensor.end > size or (tensor.dtype in NUM_BYTES and tensor.num_bytes != expected):
            raise WeightsError(f"{path}: {name} is cut off; fetch or copy the file again")
    return found


def _tensor(path: Path, entry: dict[str, Any], base: int) -> Tensor:
    start, end = (base + int(offset) for offset in entry["data_offsets"])
    return Tensor(str(entry["dtype"]), tuple(map(int, entry["shape"])), path, start, end)


def _of_index(index: Path) -> dict[str, Tensor]:
    try:
        places = json.loads(index.read_text("utf-8"))["weight_map"]
        files = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index}: is no index of weights ({error})") from error
    found: dict[str, Tensor] = {}
    for name in files:
        if Path(name).name != name:
            raise WeightsError(f"{index}: names a file elsewhere: {name!r}")
        if not (index.parent / name).is_file():
            raise WeightsError(f"{index.parent}: {name} is missing, which the index names")
        found |= read_header(index.parent / name)
    if missing := sorted(set(places) - set(found)):
        raise WeightsError(f"{index}: {len(missing)} tensors are in no file, first {missing[0]}")
    return found


def _absent(folder: Path, stem: str) -> str:
    if any(folder.glob("pytorch_model*.bin*")):
        return (
            f"{folder}: its weights are pickles (pytorch_model.bin), which are not read; convert"
            " them once:  AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(OTHER)"
            " of transformers, and name OTHER"
        )
    return f"{folder}: there is neither {stem}.safetensors nor {stem}.safetensors.index.json"
