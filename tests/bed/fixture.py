"""The bed as pytest fixtures: `slurm` for a test, `slurm_bed` for a whole session.

    def test_job_runs(slurm, tmp_path):
        done = slurm.run(["sbatch", "--parsable", "--wrap", "hostname"], cwd=tmp_path)

Tests that use them carry the marker `slurm`. Where the machine cannot carry a bed they are skipped,
or fail if CI=true or CLUSTERLM_REQUIRE_SLURM=1, so that a green run in CI means that they ran.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.bed.config import MAX_BEDS, BedConfig
from tests.bed.requirements import find_lack
from tests.bed.slurm import BedInUse, SlurmBed
from tests.bed.versions import SlurmBuild


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "slurm: needs the real Slurm of tests/bed")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test that uses the bed."""
    for item in items:
        if "slurm_bed" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def slurm_bed() -> Iterator[SlurmBed]:
    """One bed for all tests of the session, as the test before left it: rather use `slurm`."""
    skip_without_slurm()
    bed = start_free_bed()
    yield bed
    bed.stop()


@pytest.fixture
def slurm(slurm_bed: SlurmBed) -> SlurmBed:
    """The bed, healed and idle."""
    slurm_bed.wait_idle()
    return slurm_bed


def skip_without_slurm() -> None:
    """Skip the test, or fail it where the bed is demanded, with a sentence that says what to do."""
    lack = find_lack()
    if lack is None:
        return
    if os.environ.get("CI") == "true" or os.environ.get("CLUSTERLM_REQUIRE_SLURM") == "1":
        pytest.fail(lack, pytrace=False)
    pytest.skip(lack)


def start_free_bed(*, accounting: bool = True, slurm: SlurmBuild | None = None) -> SlurmBed:
    """Start the bed of the first index that no other session of this machine has.

    What killed sessions left is removed, of every index.
    """
    configs = [BedConfig(index, accounting=accounting, slurm=slurm) for index in range(MAX_BEDS)]
    beds = [SlurmBed(config) for config in configs]
    for bed in beds:
        if bed.config.work.exists():
            with contextlib.suppress(BedInUse):
                bed.clear_remains()
                bed.release()
    for bed in beds:
        with contextlib.suppress(BedInUse):
            bed.start()
            return bed
    raise BedInUse(f"all {MAX_BEDS} beds are in use: python -m tests.bed down --index N")
