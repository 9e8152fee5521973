"""At the start of a job, inside its image: is it the one the run was made for, are the GPUs there?

    python -m clusterlm.node.image_check --version V --code-digest D --recipe R --gpus 8 [--light]

One line to stdout when all is well. Else one line to stderr, exit code EXIT_IMAGE, and nothing is
trained: a mismatch found after hours costs those hours. It costs one import of torch: seconds, but
they warm the node's cache for the ranks. `--light`, for the data phase, goes without.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterlm.node import image_build
from clusterlm.node.codes import EXIT_IMAGE

RECIPE_LENGTH = 64
"""Of a digest; a given file has no recipe, or another name."""


class WrongImage(Exception):
    """What is wrong, and what to do, in one line."""


@dataclass(frozen=True)
class Seen:
    """What there is in the image and on the node."""

    version: str
    code_digest: str
    torch: str | None = None
    """None: not imported, or not there."""
    torch_file: str = ""
    cuda: str | None = None
    nccl: str | None = None
    num_gpus: int = 0
    gpu_error: str = ""
    fault: str = ""
    """Why torch was imported and could not be looked at."""


def main(argv: Sequence[str]) -> int:
    """Check, and print one line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m clusterlm.node.image_check")
    parser.add_argument("--version", required=True, help="clusterlm that submitted the run")
    parser.add_argument("--code-digest", required=True, help="digest of its package")
    parser.add_argument("--recipe", required=True, help="of the image; empty for a given file")
    parser.add_argument("--gpus", type=int, required=True, help="expected on this node")
    parser.add_argument("--light", action="store_true", help="without torch")
    asked = parser.parse_args(argv)
    try:
        record = _read_record()
        seen = look(with_torch=not asked.light and record.get("torch") is not None)
        refuse_wrong_image(asked, record, seen)
        line = describe(record, seen)
    except WrongImage as wrong:
        return _refuse(str(wrong))
    # a broken image may raise anything, SystemExit as well
    except (Exception, SystemExit) as error:
        return _refuse(f"looking at it failed: {_in_one_line(error)}; {_mend()}")
    print(line, flush=True)
    return 0


def _refuse(reason: str) -> int:
    print(f"{image_build.MARKER}{reason}", file=sys.stderr, flush=True)
    return EXIT_IMAGE


def refuse_wrong_image(asked: argparse.Namespace, record: dict[str, Any], seen: Seen) -> None:
    """Raise when this is not the image, or not the node, that the run was made for. Pure.

    Raises:
        WrongImage: what differs, and the command that mends it.
    """
    if (seen.version, seen.code_digest) != (asked.version, asked.code_digest):
        raise WrongImage(
            f"it holds clusterlm {seen.version} ({seen.code_digest[:12]}), the run was submitted "
            f"by {asked.version} ({asked.code_digest[:12]}); {_mend()}"
        )
    made_of = str(record.get("recipe") or "")
    if len(asked.recipe) == len(made_of) == RECIPE_LENGTH and made_of != asked.recipe:
        raise WrongImage(
            f"it was made from recipe {made_of[:16]}, the run asks for {asked.recipe[:16]}; "
            + _mend()
        )
    if seen.torch is None:
        return
    _refuse_other_torch(record, seen)
    if seen.num_gpus < asked.gpus:
        raise WrongImage(
            f"{seen.num_gpus} of {asked.gpus} GPUs are seen on {os.uname().nodename}"
            + (f" ({seen.gpu_error})" if seen.gpu_error else "")
            + "; look at nvidia-smi there, and at what gives the container its GPUs (docker: the "
            "NVIDIA toolkit; pyxis and enroot: libnvidia-container; apptainer: --nv)"
        )


def _refuse_other_torch(record: dict[str, Any], seen: Seen) -> None:
    before = f"something puts another torch before it: PYTHONPATH, a .pth file; else {_mend()}"
    there = record.get("torch_file")
    if there and not _is_same_file(seen.torch_file, str(there)):
        found = seen.torch_file or "a folder without code"
        raise WrongImage(f"torch is {found}, the base's is {there}: {before}")
    if seen.torch != record["torch"]:
        raise WrongImage(f"torch is {seen.torch}, the base brought {record['torch']}: {before}")
    if seen.fault:
        raise WrongImage(f"torch cannot be looked at: {seen.fault}; {_mend()}")


def _is_same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _mend() -> str:
    run = os.environ.get("CLUSTERLM_RUN", "RUN")
    return f"make it anew: clusterlm build-image JOB, then: clusterlm resume {run}"


def describe(record: dict[str, Any], seen: Seen) -> str:
    """The one line of an image that is right."""
    parts = [f"image: clusterlm {seen.version}"]
    if seen.torch:
        parts.append(f"torch {seen.torch} of the base")
        parts += [f"CUDA {seen.cuda}"] if seen.cuda else []
        parts += [f"NCCL {seen.nccl}"] if seen.nccl else []
        parts.append(f"{seen.num_gpus} GPU{'' if seen.num_gpus == 1 else 's'}")
    elif record.get("torch"):
        parts.append(f"torch {record['torch']} (not loaded)")
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def look(*, with_torch: bool) -> Seen:
    """What this process finds when it imports things as the ranks will.

    Raises:
        WrongImage: torch cannot be imported.
    """
    version = str(importlib.import_module("clusterlm").__version__)
    digest = image_build.code_digest(Path(__file__).parents[1])
    if not with_torch:
        return Seen(version, digest)
    try:
        torch = importlib.import_module("torch")
    except (Exception, SystemExit) as error:
        raise WrongImage(f"torch does not start: {_in_one_line(error)}") from error
    return _with_torch(Seen(version, digest), torch)


def _with_torch(seen: Seen, torch: Any) -> Seen:
    # first whose it is: another torch may lack all the rest
    file = str(getattr(torch, "__file__", None) or "")
    seen = replace(seen, torch=str(getattr(torch, "__version__", "unknown")), torch_file=file)
    try:
        count, fault = _count_gpus(torch)
        cuda = torch.version.cuda
    except (Exception, SystemExit) as error:
        return replace(seen, fault=_in_one_line(error))
    return replace(seen, cuda=cuda, nccl=_nccl_version(torch), num_gpus=count, gpu_error=fault)


def _in_one_line(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"


def _count_gpus(torch: Any) -> tuple[int, str]:
    """GPUs that torch sees, and what it warns of (such as a driver that is too old)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
    words = " ".join(str(caught[0].message).split()) if caught else ""
    return count, words[:200]


def _nccl_version(torch: Any) -> str | None:
    # a build for the CPU has none
    try:
        return ".".join(str(part) for part in torch.cuda.nccl.version())
    except Exception:
        return None


def _read_record() -> dict[str, Any]:
    try:
        record = json.loads(image_build.RECORD.read_text())
    except (OSError, ValueError) as error:
        raise WrongImage(f"{image_build.RECORD} cannot be read ({error}); {_mend()}") from error
    return record if isinstance(record, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
