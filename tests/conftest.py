"""Fixtures for every test; the Slurm bed comes from tests/bed."""

from __future__ import annotations

pytest_plugins = ["tests.bed.fixture"]
