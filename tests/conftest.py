"""Fixtures for every test; the Slurm and Docker beds come from tests/bed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# the same examples in every CI run: a new one that fails is found at a desk, where somebody looks
# a busy machine is slow to make examples, and that is no fault of theirs
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", patient)
settings.register_profile("ci", patient, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")

pytest_plugins = ["tests.bed.fixture", "tests.bed.docker", "tests.bed.ssh_fixture"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Rewrite tests/golden.")


@pytest.fixture(autouse=True, scope="session")
def _no_clusters_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The clusters.yaml of whoever runs the tests is none of theirs."""
    path = tmp_path_factory.mktemp("config") / "clusters.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLUSTERLM_CONFIG", str(path))
        yield path


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        from tests.spread import place_in_row

        items.sort(key=lambda item: place_in_row(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.spread import Spread

    return Spread(config, log)
