"""A user in front of the test bed: types clusterlm's commands and reads the run directory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed.slurm import SlurmBed
from tests.bed.waiting import PATIENCE
from tests.person import Person

SCRIPTS = Path(__file__).parent / "scripts"


@dataclass
class User(Person):
    """Somebody at a login node."""

    bed: SlurmBed

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **self.bed.env()}

    def wait_for_event(
        self, name: str, kind: str, *, count: int = 1, timeout: float = 60
    ) -> dict[str, Any]:
        """The `count`-th event of a kind."""
        wait_until(
            lambda: len(self.events(name, kind)) >= count, timeout, f"{kind} of {name}", self
        )
        return self.events(name, kind)[count - 1]

    def wait_for_end(self, name: str, timeout: float = 120) -> dict[str, Any]:
        return self.wait_for_event(name, "ended", timeout=timeout)

    def wait_for_step(self, name: str, step: int, *, rank: int = 0, timeout: float = 60) -> None:
        """Wait until `counting.py` has come so far."""
        file = self.run(name).root / f"steps-{rank}.txt"

        def there() -> bool:
            lines = file.read_text().split() if file.exists() else []
            return any(int(s) >= step for s in lines[1::2])

        wait_until(there, timeout, f"step {step} of {name}", self)


def wait_until(
    is_so: Callable[[], bool], timeout: float, what: str, user: User | None = None
) -> None:
    """Poll; on failure say what was waited for and what the scheduler shows."""
    timeout *= PATIENCE
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if is_so():
            return
        time.sleep(0.2)
    queue = user.bed.run(["squeue"]).stdout if user else ""
    pytest.fail(f"waited {timeout:.0f} s for: {what}\n{queue}")


@pytest.fixture
def user(slurm: SlurmBed, tmp_path: Path) -> User:
    return User(tmp_path, slurm)


def counting(name: str, steps: int, *words: str, **resources: Any) -> dict[str, Any]:
    """A job that runs `counting.py` on two nodes."""
    return {
        "name": name,
        "cluster": "slurm",
        "resources": {"nodes": 2, "time": "10m", **resources},
        "train": {"command": [str(SCRIPTS / "counting.py"), str(steps), *words]},
        "recovery": {"stop_grace": "30s", "heartbeat_timeout": "12s"},
    }
