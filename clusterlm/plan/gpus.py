"""What GPUs can do: memory, and dense peak FLOP/s by precision, from their makers' data sheets.

Found by words in a name, as `nvidia-smi` (`NVIDIA A100-SXM4-80GB`) or a site's gres (`a100-80`)
writes it. Sparse peaks, twice as high in the sheets, are of no use to a training.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A model of GPU.

    Attributes:
        name: for people.
        words: all of them stand in a name of it.
        memory_gib: what nvidia-smi counts as total, some 1 to 2 % below the name's number.
        half: dense FLOP/s with bf16 or fp16 inputs and float32 sums.
        single: FLOP/s in float32 proper (no TF32, which torch leaves off).
        has_bf16: it computes in bf16.
    """

    name: str
    words: tuple[str, ...]
    memory_gib: float
    half: float
    single: float
    has_bf16: bool = True


# the first whose words are all there: the special ones stand before the plain one
GPUS: tuple[Gpu, ...] = (
    Gpu("GB200", ("gb200",), 184.0, 2500e12, 80e12),
    Gpu("B300", ("b300",), 268.0, 2250e12, 77e12),
    Gpu("B200", ("b200",), 178.0, 2250e12, 75e12),
    Gpu("GH200", ("gh200",), 94.5, 989e12, 67e12),
    Gpu("H200", ("h200",), 139.8, 989e12, 67e12),
    Gpu("H100 PCIe", ("h100", "pcie"), 79.6, 756e12, 51e12),
    Gpu("H100 NVL", ("h100", "nvl"), 93.6, 835e12, 60e12),
    Gpu("H100", ("h100",), 79.6, 989e12, 67e12),
    Gpu("H800", ("h800",), 79.6, 989e12, 67e12),
    Gpu("H20", ("h20",), 95.6, 148e12, 44e12),
    Gpu("A100 40 GB", ("a100", "40"), 39.5, 312e12, 19.5e12),
    Gpu("A100 80 GB", ("a100", "80"), 79.3, 312e12, 19.5e12),
    Gpu("A800 80 GB", ("a800",), 79.3, 312e12, 19.5e12),
    Gpu("V100 32 GB", ("v100", "32"), 31.7, 125e12, 15.7e12, has_bf16=False),
    Gpu("V100 16 GB", ("v100", "16"), 15.8, 125e12, 15.7e12, has_bf16=False),
    Gpu("L40S", ("l40s",), 44.5, 362e12, 91.6e12),
    Gpu("L40", ("l40",), 44.5, 181e12, 90.5e12),
    Gpu("L4", ("l4",), 22.5, 121e12, 30.3e12),
    Gpu("RTX 6000 Ada", ("6000", "ada"), 47.5, 364e12, 91.1e12),
    Gpu("RTX A6000", ("a6000",), 47.5, 155e12, 38.7e12),
    Gpu("A40", ("a40",), 44.5, 150e12, 37.4e12),
    Gpu("A30", ("a30",), 23.6, 165e12, 10.3e12),
    Gpu("A10G", ("a10g",), 22.1, 70e12, 31.5e12),
    Gpu("A10", ("a10",), 22.1, 125e12, 31.2e12),
    Gpu("RTX 5090", ("5090",), 31.8, 209e12, 105e12),
    Gpu("RTX 4090", ("4090",), 23.6, 165e12, 82.6e12),
    Gpu("RTX 3090", ("3090",), 23.6, 71e12, 35.6e12),
    Gpu("T4", ("t4",), 14.6, 65e12, 8.1e12, has_bf16=False),
)


def find_gpu(name: str | None) -> Gpu | None:
    """The GPU that a name means; None when it names none, or one of several sizes."""
    text = (name or "").lower()
    return next((gpu for gpu in GPUS if all(_has(text, word) for word in gpu.words)), None)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Dense FLOP/s of one GPU.

    Args:
        device_name: as torch.cuda.get_device_name or a site writes it.
        precision: bf16, fp16 or fp32.

    Returns:
        None for a device that is not known or does not compute in this precision.
    """
    gpu = find_gpu(device_name) or _any_size(device_name)
    if gpu is None or (precision == "bf16" and not gpu.has_bf16):
        return None
    return gpu.single if precision == "fp32" else gpu.half


def _any_size(name: str) -> Gpu | None:
    # "Tesla V100-SXM2" and "a100" leave the memory open, but not the speed
    text = name.lower()
    return next((gpu for gpu in GPUS if _has(text, gpu.words[0])), None)


def _has(text: str, word: str) -> bool:
    # L4 is no L40, A10 no A100; but "80" stands in "80GB" and "a100-sxm-80gb"
    return bool(re.search(rf"(?<![a-z0-9]){word}(?![0-9a-fh-z])", text)) or (
        word.isdigit() and bool(re.search(rf"(?<![0-9]){word}(?![0-9])", text))
    )
