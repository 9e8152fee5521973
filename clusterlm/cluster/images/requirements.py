"""What pip is to add to an image, in two layers: what clusterlm trains with, and the user's extras.

A pin of the user's of something in the first layer (`transformers==4.57.1`) goes there, beside
clusterlm's own bound: pip then says when the two do not go together. All the rest is the second
layer, so that another extra leaves the first one, the big one, as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clusterlm.cluster.images.wheel import requirements_of
from clusterlm.errors import ImageError, TorchReplaced
from clusterlm.spec.bases import NEEDS, limits_of
from clusterlm.spec.image import Image
from clusterlm.spec.requirements import lines_of, name_of, reason_to_refuse
from clusterlm.spec.rules_image import OF_EVERY_BASE

# too new for the base's torch; what is too new for its Python pip itself passes over
_BY_TORCH = {name for name, needs in NEEDS.items() if any(need.torch for need in needs)}


@dataclass(frozen=True)
class Requirements:
    """Lines for pip.

    Attributes:
        stack: what clusterlm needs to train, with the user's pins of the same packages.
        extras: what the user adds.
    """

    stack: tuple[str, ...]
    extras: tuple[str, ...]


def requirements_for(image: Image) -> Requirements:
    """Sort what clusterlm needs and what `image.pip` and `image.requirements` add.

    Raises:
        ImageError: the requirements file is absent, or has a line that an image cannot be built
            from alone (an option, a local path, a password).
        TorchReplaced: torch itself is asked for.
    """
    brought = requirements_of() + requirements_of("train") + requirements_of("fast")
    own = [requirement for requirement in brought if name_of(requirement) != "torch"]
    names = {name_of(requirement) for requirement in own}
    limits = [f"{n}<{v}" for n, v in limits_of(image.base).items() if n in names & _BY_TORCH]
    asked = [("image.pip", line) for line in image.pip]
    if image.requirements:
        asked += _file_lines(Path(image.requirements).expanduser(), image.build_secrets)
    for where, line in asked:
        _refuse_torch(where, line)
    lines = list(dict.fromkeys(line for _, line in asked))
    return Requirements(
        stack=tuple(own + limits + [line for line in lines if name_of(line) in names]),
        extras=tuple(line for line in lines if name_of(line) not in names),
    )


def _file_lines(file: Path, secrets: list[str]) -> list[tuple[str, str]]:
    """Place and text of each requirement in a file."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"image.requirements: cannot read {file}: {error}") from error
    found = []
    for number, line in lines_of(text):
        where = f"{file}, line {number}"
        if reason := reason_to_refuse(line, secrets):
            raise ImageError(f"{where}: {name_of(line) or 'this'} {reason}")
        found.append((where, line))
    return found


def _refuse_torch(where: str, line: str) -> None:
    if re.fullmatch(OF_EVERY_BASE, name_of(line)):
        raise TorchReplaced(
            f"{where}: {line} would replace the {name_of(line)} that the base brings\n"
            "  leave it out; for another version choose another image.base"
        )
