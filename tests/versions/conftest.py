"""Beds of other Slurm versions: one in `make test`, all in `make matrix`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.fixture import skip_without_slurm, start_free_bed
from tests.bed.slurm import SlurmBed
from tests.bed.versions import RELEASES, build_of, own_version
from tests.slurm.conftest import User


def beds() -> list[tuple[str, bool]]:
    """Version, accounting."""
    if os.environ.get("CLUSTERLM_WHOLE_MATRIX"):
        return [(version, accounting) for version in RELEASES for accounting in (True, False)]
    # what most sites run today; the machine's own has the whole of tests/slurm
    return [("24.11" if own_version() != "24.11" else "22.05", True)]


def _name(bed: tuple[str, bool]) -> str:
    return f"{bed[0]}-{'sacct' if bed[1] else 'no-sacct'}"


@pytest.fixture(scope="module", params=beds(), ids=_name)
def versioned_bed(request: pytest.FixtureRequest) -> Iterator[SlurmBed]:
    skip_without_slurm()
    version, accounting = request.param
    bed = start_free_bed(accounting=accounting, slurm=build_of(version))
    yield bed
    bed.stop()


@pytest.fixture
def user(versioned_bed: SlurmBed, tmp_path: Path) -> User:
    versioned_bed.wait_idle()
    return User(tmp_path, versioned_bed)
