"""A model for llama.cpp and Ollama, through llama.cpp's own converter.

    adapter merged -> convert_hf_to_gguf.py -> NAME-f16.gguf -> llama-quantize -> NAME-q4_k_m.gguf
                                               Modelfile-f16                      Modelfile-q4_k_m

GGUF and the architectures it knows change with llama.cpp, so nothing of it is done here. Written
aside, renamed last; nothing is left when a step fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterlm.errors import WeightsError
from clusterlm.weights.aside import filled_aside, refuse_used, room_at
from clusterlm.weights.merge import merge
from clusterlm.weights.merge_job import MergeJob
from clusterlm.weights.modelfile import modelfile_text
from clusterlm.weights.sources import base_folder, copy_beside

CONVERTER = "convert_hf_to_gguf.py"
QUANTIZE = "llama-quantize"
FIRST = "f16"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tools:
    """Programs of llama.cpp.

    Attributes:
        converter: convert_hf_to_gguf.py.
        quantize: llama-quantize; None where it is not needed.
    """

    converter: Path
    quantize: Path | None

    @classmethod
    def find(cls, converter: Path | None, quantize: Path | None, *, needs_quantize: bool) -> Tools:
        """Look where they may be: as given, in $LLAMA_CPP, on the PATH.

        Raises:
            WeightsError: with what to install.
        """
        root = os.environ.get("LLAMA_CPP")
        places = [Path(root).expanduser()] if root else []
        if quantize is None and converter is not None:
            places.append(converter.absolute().parent)
        found = _find(CONVERTER, "--converter", converter, places)
        program = None
        if needs_quantize:
            places += [found.parent]
            inside = [place / "build" / "bin" for place in places]
            program = _find(QUANTIZE, "--quantize-bin", quantize, [*inside, *places])
        return cls(found, program)


@dataclass(frozen=True)
class Export:
    """What is to be written.

    Attributes:
        name: of the files.
        model: folder or hub id of whole weights.
        tokenizer: folder or hub id.
        revision: of a model on the hub.
        levels: of llama-quantize, such as q4_k_m.
        job: the merge that is made first; None for a whole model.
    """

    name: str
    model: str
    tokenizer: str
    revision: str | None
    levels: tuple[str, ...]
    job: MergeJob | None


def export_gguf(asked: Export, tools: Tools, folder: Path, *, say: Say) -> list[Path]:
    """Write a GGUF and a Modelfile for each level into a new folder.

    Returns:
        All files written; the last is a Modelfile of the last level.

    Raises:
        WeightsError: a program failed; then there is no folder.
    """
    refuse_used(folder)
    with (
        filled_aside(folder, "exporting") as aside,
        tempfile.TemporaryDirectory(dir=aside) as work,
    ):
        model = _whole_model(asked, Path(work) / asked.name, say)
        first = aside / f"{asked.name}-{FIRST}.gguf"
        say(f"converting to {first.name}")
        _run_converter(tools, model, first)
        names = _finish_levels(asked, tools, model, first, say)
    return [folder / name for name in names]


def _whole_model(asked: Export, work: Path, say: Say) -> Path:
    """A folder with whole weights and a tokenizer."""
    if asked.job is not None:
        merge(asked.job, work, say=say)
        return work
    model = base_folder(asked.model, asked.revision)
    if (model / "tokenizer.json").is_file() or (model / "tokenizer.model").is_file():
        return model
    # a checkpoint may have its tokenizer elsewhere: both in one folder, without a copy of weights
    work.mkdir()
    for path in model.iterdir():
        (work / path.name).symlink_to(path.absolute())
    copy_beside(model, asked.tokenizer, model, work)
    return work


def _finish_levels(asked: Export, tools: Tools, model: Path, first: Path, say: Say) -> list[str]:
    names = []
    for level in (FIRST, *asked.levels):
        path = first.with_name(f"{asked.name}-{level}.gguf")
        if level != FIRST:
            say(f"quantising to {path.name}")
            assert tools.quantize is not None
            _run([str(tools.quantize), str(first), str(path), level.upper()], path)
            _refuse_absent(path, tools.quantize)
        modelfile = first.with_name(f"Modelfile-{level}")
        modelfile.write_text(modelfile_text(path.name, model), encoding="utf-8")
        names += [path.name, modelfile.name]
    return names


def _run_converter(tools: Tools, model: Path, to: Path) -> None:
    converter = str(tools.converter)
    # a script is run by this Python, which has torch and transformers
    program = [sys.executable, converter] if converter.endswith(".py") else [converter]
    _run([*program, str(model), "--outfile", str(to), "--outtype", FIRST], to)
    _refuse_absent(to, tools.converter)


def _run(argv: Sequence[str], to: Path) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise WeightsError(f"{argv[0]} cannot be started: {error.strerror}") from error
    if done.returncode == 0:
        return
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    name = Path(argv[1] if argv[0] == sys.executable else argv[0]).name
    advice = ""
    if "No module named 'gguf'" in done.stderr:
        advice = "\n  pip install gguf, or the requirements of llama.cpp, into this Python"
    if "No space left on device" in done.stderr:
        advice = f"\n  {room_at(to)} free in {to.parent.parent}; nothing was kept"
    last = "\n  ".join(lines[-5:])
    raise WeightsError(f"{name} failed (exit {done.returncode}):\n  {last}{advice}")


def _refuse_absent(path: Path, program: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise WeightsError(f"{program.name} ended well and wrote no {path.name}")


def _find(name: str, option: str, given: Path | None, places: Sequence[Path]) -> Path:
    if given is not None:
        if not given.is_file():
            raise WeightsError(f"{option} {given}: there is no such file")
        return given
    for place in places:
        if (place / name).is_file():
            return place / name
    if on_path := shutil.which(name):
        return Path(on_path)
    raise WeightsError(
        f"{name} of llama.cpp is not found: neither in $LLAMA_CPP nor on the PATH\n"
        "  git clone https://github.com/ggml-org/llama.cpp, pip install gguf, then\n"
        f"  export LLAMA_CPP=.../llama.cpp, or name it with {option} PATH\n"
        f"  ({QUANTIZE} has to be built there: cmake -B build && cmake --build build)"
    )
