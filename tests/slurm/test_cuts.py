"""Over a line that is cut: a real sshd before the real Slurm; `make chaos` has the long form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.fixture import skip_without_slurm
from tests.bed.slurm import SlurmBed
from tests.bed.ssh_fixture import skip_without_ssh
from tests.chaos import cut_files, cut_logs
from tests.chaos.cut_cases import plan, table
from tests.chaos.cut_submit import campaign
from tests.chaos.far import BACKENDS, FarCluster, Laptop, far_cluster, laptop


@pytest.fixture(scope="module")
def far(slurm_bed: SlurmBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarCluster]:
    skip_without_slurm()
    skip_without_ssh()
    slurm_bed.wait_idle()
    with far_cluster(slurm_bed, tmp_path_factory.mktemp("far")) as far:
        yield far


@pytest.fixture(scope="module")
def user(far: FarCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    with laptop(far, tmp_path_factory.mktemp("laptop") / "of-a-user") as user:
        yield user


def test_submits_that_are_cut_are_one_training_each(
    slurm_bed: SlurmBed, far: FarCluster, tmp_path: Path
) -> None:
    # not a minute's silence: see `make chaos` for those
    cases = plan(6, seed=6, weights=(30, 30, 20, 20, 0))
    faults = campaign(slurm_bed, far, tmp_path, cases, 3)
    print(table(cases))
    assert faults == []
    assert [case.faults for case in cases if case.faults] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_that_are_cut_are_gone_on_with(far: FarCluster, user: Laptop, backend: str) -> None:
    assert cut_files.go_there(far, user, backend, seed=1) == []
    assert cut_files.come_back(far, user, backend, seed=2) == []


def test_a_log_that_is_cut_shows_each_line_once(far: FarCluster, user: Laptop) -> None:
    assert cut_logs.follow(far, user, "paramiko", 4, seed=3) == []
