"""Numbers of a weights file as numpy holds them.

numpy has no bfloat16, so it is made by hand: it is the upper half of a float32, rounded to nearest,
ties to even.

    float32   s eeeeeeee mmmmmmm mmmmmmmmmmmmmmmm
    bfloat16  s eeeeeeee mmmmmmm
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from clusterlm.errors import WeightsError

BF16 = "BF16"

_NUMPY: dict[str, str] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "?",
}
NUM_BYTES: dict[str, int] = {
    **{name: np.dtype(kind).itemsize for name, kind in _NUMPY.items()},
    BF16: 2,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
}
FLOATS = ("F64", "F32", "F16", BF16)


def decode(data: bytes | bytearray | memoryview, dtype: str) -> npt.NDArray[Any]:
    """A flat array; BF16 and F16 become float32, which holds each of their values exactly.

    Raises:
        WeightsError: numpy cannot hold the type.
    """
    if dtype == BF16:
        upper = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        return (upper << 16).view(np.float32)
    if dtype not in _NUMPY:
        raise WeightsError(f"numbers of type {dtype} cannot be read, only copied")
    values = np.frombuffer(data, dtype=_NUMPY[dtype])
    return values.astype(np.float32) if dtype == "F16" else values


def encode(
    values: npt.NDArray[Any] | bytes | bytearray | memoryview,
    dtype: str | None,
    shape: tuple[int, ...] | None,
) -> tuple[bytes | bytearray | memoryview, str, tuple[int, ...]]:
    """What lies on the disk: (bytes, type, shape).

    Raises:
        WeightsError: the type is unknown, or bytes came without type and shape.
    """
    if not isinstance(values, np.ndarray):
        if dtype not in NUM_BYTES or shape is None:
            raise WeightsError(f"bytes need a known type and a shape; found {dtype} and {shape}")
        return values, dtype, shape
    kind = dtype or _name_of(values.dtype)
    if kind == BF16:
        return round_to_bf16(values).tobytes(), kind, values.shape
    if kind not in _NUMPY:
        raise WeightsError(f"numbers cannot be written as {kind}")
    # a value beyond the range of F16 becomes infinite, as torch has it
    with np.errstate(over="ignore"):
        return values.astype(_NUMPY[kind]).tobytes(), kind, values.shape


def round_to_bf16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # half of what is cut off, less one unless the last bit that stays is odd
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # rounding could carry a NaN over into infinity
    quiet = (bits >> 16) | 0x40
    upper: npt.NDArray[np.uint16] = np.where(np.isnan(values), quiet, rounded).astype("<u2")
    return upper


def _name_of(dtype: np.dtype[Any]) -> str:
    for name, kind in _NUMPY.items():
        if np.dtype(kind) == dtype.newbyteorder("<"):
            return name
    raise WeightsError(f"numbers of numpy's {dtype} have no name in a weights file")
