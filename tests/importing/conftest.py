"""Imports of the inputs in this folder: the draft, its text, and what the loader says to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import Problem, SpecError
from clusterlm.importing.draft import Draft
from clusterlm.importing.sources import draft_files
from clusterlm.importing.write import yaml_of
from clusterlm.spec.document import read_document
from clusterlm.spec.load import LoadedJob, load_text

INPUTS = Path(__file__).parent / "inputs"


@dataclass
class Imported:
    """What became of some files."""

    draft: Draft
    text: str
    folder: Path

    @property
    def values(self) -> dict[str, Any]:
        return read_document(self.text).values

    @property
    def left_out(self) -> str:
        return "\n".join(f"{what}: {why}" for what, why in self.draft.left_out)

    @property
    def unclear(self) -> str:
        return "\n".join(f"{what}: {why}" for what, why in self.draft.unclear)

    def load(self) -> LoadedJob:
        return load_text(self.text, self.folder / "job.yaml")

    def problems(self) -> list[Problem]:
        try:
            self.load()
        except SpecError as error:
            return error.problems
        return []


Import = Callable[..., Imported]


@pytest.fixture
def imports(tmp_path: Path) -> Import:
    """Import inputs by name, or one text as a script."""

    def run(*names: str, script: str | None = None) -> Imported:
        paths = [INPUTS / name for name in names]
        if script is not None:
            paths = [tmp_path / "run.sh"]
            paths[0].write_text(script)
        draft = draft_files(paths, paths[0].parent)
        return Imported(draft, yaml_of(draft, "clusterlm import"), tmp_path)

    return run
