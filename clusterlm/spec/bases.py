"""What each known base image brings, and what can be installed on it. The base decides.

The rows are nvcr.io/nvidia/pytorch:YY.MM-py3. NVIDIA's own pages (release notes of containers of
24.05, 24.08, 24.10, 25.12 and 26.03, its table of torch by month for Jetson, the image histories of
25.10 and 26.07, Triton's compatibility table) gave what they could; the rest is what people printed
where that month's torch runs, often in an image made from this one (`torch.__version__`,
`torch.version.cuda`). Ubuntu goes by the Python, 22.04 has 3.10 and 24.04 has 3.12. A month that
was not found is left out: it is built as well, and the build tells. NCCL is None where no source
named it. No rule reads CUDA, NCCL or Ubuntu.

NVIDIA's torch is a build from before its release: 2.5.0a0 counts as older than 2.5, for pip as for
transformers, which without a word to pip refuses to use a torch that is too old for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_BASE = "nvcr.io/nvidia/pytorch:24.08-py3"

# a mirror of NVIDIA's registry keeps the end of the name
_KNOWN = re.compile(r"(?:.*/)?nvidia/pytorch:(\d\d\.\d\d)-py3(?:-igpu)?(?:@sha256:[0-9a-f]{64})?")
_RELEASE = re.compile(r"(?:\d+!)?(\d+(?:\.\d+)*)")
# what an exact or lowest version may be written with; `<` and `!=` leave older ones to choose from
_LOWER_BOUND = re.compile(r"(===|==|~=|>=|>)([0-9][0-9A-Za-z.!]*)")

Version = tuple[int, ...]


@dataclass(frozen=True)
class Base:
    """One known image.

    Attributes:
        python: as in `3.10`.
        torch: its whole version, without the trailing `.nv24.08`.
        cuda: as torch tells it.
        nccl: None when not known.
        ubuntu: as in `22.04`.
    """

    python: str
    torch: str
    cuda: str
    nccl: str | None
    ubuntu: str


BASES: dict[str, Base] = {
    "24.01": Base("3.10", "2.2.0a0+81ea7a4", "12.3", None, "22.04"),
    "24.02": Base("3.10", "2.3.0a0+ebedce2", "12.3", None, "22.04"),
    "24.03": Base("3.10", "2.3.0a0+40ec155e58", "12.4", "2.20.5", "22.04"),
    "24.04": Base("3.10", "2.3.0a0+6ddf5cf85e", "12.4", "2.21.5", "22.04"),
    "24.05": Base("3.10", "2.4.0a0+07cecf4168", "12.4", "2.21.5", "22.04"),
    "24.07": Base("3.10", "2.4.0a0+3bcc3cddb5", "12.5", "2.22.3", "22.04"),
    "24.08": Base("3.10", "2.5.0a0+872d972e41", "12.6", "2.22.3", "22.04"),
    "24.09": Base("3.10", "2.5.0a0+b465a5843b", "12.6", None, "22.04"),
    "24.10": Base("3.10", "2.5.0a0+e000cf0ad9", "12.6", "2.22.3", "22.04"),
    "24.11": Base("3.12", "2.6.0a0+df5bbc09d1", "12.6", None, "24.04"),
    "24.12": Base("3.12", "2.6.0a0+df5bbc09d1", "12.6", None, "24.04"),
    "25.01": Base("3.12", "2.6.0a0+ecf3bae40a", "12.8", "2.25.1", "24.04"),
    "25.02": Base("3.12", "2.7.0a0+6c54963f75", "12.8", None, "24.04"),
    "25.03": Base("3.12", "2.7.0a0+7c8ec84dab", "12.8", None, "24.04"),
    "25.04": Base("3.12", "2.7.0a0+79aa17489c", "12.9", None, "24.04"),
    "25.05": Base("3.12", "2.8.0a0+5228986c39", "12.9", None, "24.04"),
    "25.06": Base("3.12", "2.8.0a0+5228986c39", "12.9", None, "24.04"),
    "25.08": Base("3.12", "2.8.0a0+34c6371d24", "13.0", "2.27.7", "24.04"),
    "25.09": Base("3.12", "2.9.0a0+50eac811a6", "13.0", "2.27.7", "24.04"),
    "25.10": Base("3.12", "2.9.0a0+145a3a7bda", "13.0", "2.27.7", "24.04"),
    "25.11": Base("3.12", "2.10.0a0+b558c986e8", "13.0", None, "24.04"),
    "25.12": Base("3.12", "2.10.0a0+b4e4ee81d3", "13.1", "2.28.9", "24.04"),
    "26.01": Base("3.12", "2.10.0a0+a36e1d39eb", "13.1", None, "24.04"),
    "26.02": Base("3.12", "2.11.0a0+eb65b36914", "13.1", "2.29.2", "24.04"),
    "26.03": Base("3.12", "2.11.0a0+a6c236b9fd", "13.2", "2.29.7", "24.04"),
    "26.04": Base("3.12", "2.12.0a0+0291f960b6", "13.2", None, "24.04"),
    "26.05": Base("3.12", "2.12.0a0+5aff3928d8", "13.2", "2.30.4", "24.04"),
    "26.06": Base("3.12", "2.13.0a0+8145d630e8", "13.3", None, "24.04"),
    "26.07": Base("3.12", "2.13.0a0+9186a08b2c", "13.3", "2.30.7", "24.04"),
    "26.08": Base("3.12", "2.14.0a0+4fdf77b940", "13.4", "2.30.7", "24.04"),
    "26.09": Base("3.12", "2.14.0a0+b2c75dd062", "13.4", "2.31.2", "24.04"),
}
"""By tag, oldest first."""


@dataclass(frozen=True)
class Need:
    """From one version of a package on: what it needs, and the last one that does not."""

    since: str
    before: str
    python: str
    torch: str | None = None


NEEDS: dict[str, tuple[Need, ...]] = {
    "transformers": (
        Need("5.1.0", "5.0.0", python="3.10", torch="2.4"),
        Need("5.15.0", "5.14.1", python="3.10", torch="2.5"),
        Need("5.20.0", "5.19.0", python="3.10", torch="2.6"),
        Need("5.21.0", "5.20.2", python="3.11", torch="2.6"),
    ),
    "numpy": (
        Need("2.3.0", "2.2.6", python="3.11"),
        Need("2.5.0", "2.4.6", python="3.12"),
    ),
}
"""Oldest first, from the METADATA of the packages (Requires-Python) and, for torch, from the check
in transformers/utils/import_utils.py. Not here, because every version up to these goes with Python
3.10 and torch 2.2: peft 0.21.2, deepspeed 0.19.8, datasets 5.2.0, accelerate 1.15.0, tokenizers
0.23.3, huggingface_hub 2.4.0, fastokens 0.3.5, gigatoken 0.10.0 and its awkward 2.14.0."""


def known_base(image: str) -> Base | None:
    """What the image of this name brings; None when it is not in the table."""
    found = _KNOWN.fullmatch(image)
    return BASES.get(found[1]) if found else None


def limits_of(image: str) -> dict[str, str]:
    """The first version of a package that this base cannot hold, by package.

    pip looks at Python alone: left to itself it takes, on 24.08, a transformers that then finds
    torch too old. So `transformers<5.15.0` belongs into what pip gets.
    """
    base = known_base(image)
    if base is None:
        return {}
    first = {name: _first_unmet(base, needs) for name, needs in NEEDS.items()}
    return {name: need.since for name, need in first.items() if need}


def nearest(image: str, name: str, specifiers: str) -> str | None:
    """Why a wish cannot be fulfilled on a base, and what can; None when it can, or nobody knows.

    Args:
        image: name of the base.
        name: of the package, in lower case with hyphens.
        specifiers: as in `>=5.21,<6`; empty takes what fits.
    """
    base, lowest = known_base(image), _lowest(specifiers)
    if base is None or name not in NEEDS or lowest is None:
        return None
    broken = [n for n in NEEDS[name] if _release(n.since) <= lowest and not _meets(base, n)]
    if not broken:
        return None
    need, first = broken[-1], _first_unmet(base, NEEDS[name])
    assert first is not None, "a broken need is an unmet one"
    tag = next((tag for tag, other in BASES.items() if _meets(other, need)), None)
    other = f", or base: nvcr.io/nvidia/pytorch:{tag}-py3" if tag else ""
    return (
        f"{name}{specifiers} needs {_spoken(need)}; {image} has {_has(base, need)}; "
        f"write {name}=={first.before}{other}"
    )


def _first_unmet(base: Base, needs: tuple[Need, ...]) -> Need | None:
    return next((need for need in needs if not _meets(base, need)), None)


def _meets(base: Base, need: Need) -> bool:
    if _release(base.python) < _release(need.python):
        return False
    return need.torch is None or _is_torch_at_least(base, need.torch)


def _is_torch_at_least(base: Base, wanted: str) -> bool:
    # 2.5.0a0 -> (2, 5): newer than 2.4, older than 2.5
    has, want = _release(base.torch)[:2], _release(wanted)
    return has > want if "a" in base.torch.partition("+")[0] else has >= want


def _spoken(need: Need) -> str:
    return f"Python {need.python}" + (f" and torch {need.torch}" if need.torch else "")


def _has(base: Base, need: Need) -> str:
    if need.torch is None:
        return f"Python {base.python}"
    torch = base.torch.partition("+")[0]
    is_early = _release(base.torch)[:2] == _release(need.torch)
    age = f", which counts as older than {need.torch}" if is_early else ""
    return f"Python {base.python} and torch {torch}{age}"


def _lowest(specifiers: str) -> Version | None:
    """The lowest version that may be meant; None when there is no bound from below."""
    bounds = [_release(version) for _, version in _LOWER_BOUND.findall(specifiers)]
    return max(bounds, default=None)


def _release(version: str) -> Version:
    found = _RELEASE.match(version)
    assert found, f"{version} is no version"
    # 5.15 and 5.15.0 are the same
    return tuple(int(part) for part in re.sub(r"(\.0+)+$", "", found[1]).split("."))
