"""Fixtures for every test; the Slurm bed comes from tests/bed."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.bed.fixture"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Rewrite tests/golden.")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
