"""A job that names a cluster of this machine: its defaults, its folders, on a real Slurm."""

from __future__ import annotations

from typing import Any

import pytest

from clusterlm.paths import RunPaths
from tests.slurm.conftest import User, counting, wait_until


class AtHome(User):
    """Somebody whose environment says nothing; clusters.yaml does."""

    @property
    def env(self) -> dict[str, str]:
        env = {k: v for k, v in super().env.items() if not k.startswith("CLUSTERLM_")}
        config = str(self.home / "clusters.yaml")
        return {**env, "HOME": str(self.home), "CLUSTERLM_CONFIG": config}

    def run(self, name: str) -> RunPaths:
        return RunPaths(self.home / "shared" / "runs" / name)


@pytest.fixture
def at_home(user: User) -> AtHome:
    return AtHome(user.home, user.bed)


def test_a_profile_gives_a_job_what_it_leaves_out_and_its_run_is_found(at_home: AtHome) -> None:
    added = at_home.types(
        *("clusters", "add", "mine", "--folder", str(at_home.home / "shared")),
        *("--set", "resources.gpus_per_node=1", "--set", "resources.gpu_request=gpus-per-node"),
        *("--set", "resources.extra=[--comment=from-profile]", "--set", "env.SITE=here"),
    )
    assert added.returncode == 0, added.stdout + added.stderr
    assert "ok      slurm" in added.stdout
    job: dict[str, Any] = counting("of-profile", 200)
    del job["cluster"]
    at_home.submits(job, "--cluster", "mine")
    at_home.wait_for_step("of-profile", 2)
    row = at_home.status("of-profile")
    assert (row["cluster"], row["state"]) == ("mine", "TRAINING")
    job_id = row["job_ids"]["train"] if isinstance(row["job_ids"], dict) else row["job_ids"][0]
    said = at_home.bed.run(["scontrol", "show", "job", str(job_id)]).stdout
    assert "from-profile" in said
    assert "gpu:1" in said
    script = at_home.run("of-profile").node_script("train").read_text()
    assert "export SITE=here" in script
    assert "of-profile" in at_home.types("status").stdout
    assert at_home.types("logs", "of-profile").returncode == 0
    assert at_home.types("cancel", "of-profile", "--now").returncode == 0
    wait_until(lambda: at_home.status("of-profile")["state"] == "CANCELLED", 60, "end", at_home)
    # by its name alone: the run knows its cluster
    again = at_home.types("resume", "of-profile")
    assert again.returncode == 0, again.stderr
    assert at_home.types("cancel", "of-profile", "--now").returncode == 0
