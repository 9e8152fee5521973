"""What the device of a rank says of itself: its name, the most memory taken, the power drawn.

Power is the difference of two readings of the GPU's energy meter (NVML, Volta and later), so it is
the true mean of the time between them and costs two calls a log line. Without NVML's Python binding
(`pip install nvidia-ml-py`) or where the driver refuses, it is unknown.
"""

from __future__ import annotations

import importlib
import resource
import time
from collections.abc import Callable
from typing import Any

import torch


def device_name(*, on_gpu: bool) -> str:
    """As its maker calls it."""
    return torch.cuda.get_device_name() if on_gpu else "cpu"


def peak_memory(*, on_gpu: bool) -> tuple[int, int | None]:
    """Bytes at the highest so far: (taken from the device, in use by tensors).

    On the CPU the first is that of the whole process, and the second is unknown.
    """
    if on_gpu:
        return torch.cuda.max_memory_reserved(), torch.cuda.max_memory_allocated()
    # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, None


class PowerMeter:
    """Mean power of this rank's GPU between two looks."""

    def __init__(
        self, energy_mj: Callable[[], int] | None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`energy_mj` reads the GPU's meter, in millijoules; None where there is none."""
        self._energy_mj = energy_mj
        self._now = now
        self._last = self._read()

    @classmethod
    def of_gpu(cls, *, on_gpu: bool) -> PowerMeter:
        """That of the current CUDA device."""
        return cls(_nvml_meter() if on_gpu else None)

    def take(self) -> float | None:
        """Watts since the last call; None when unknown."""
        last, self._last = self._last, self._read()
        if last is None or self._last is None or self._last[1] <= last[1]:
            return None
        joules = (self._last[0] - last[0]) / 1000
        return joules / (self._last[1] - last[1])

    def _read(self) -> tuple[int, float] | None:
        if self._energy_mj is None:
            return None
        try:
            return self._energy_mj(), self._now()
        # NVML's errors have no common base without its binding; a reading is never worth a training
        except Exception:
            self._energy_mj = None
            return None


def _nvml_meter() -> Callable[[], int] | None:
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        # CUDA_VISIBLE_DEVICES renumbers the devices; the UUID stays
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(name)
    # no binding, no driver, an older torch, a card that NVML does not know
    except Exception:
        return None
    return lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
