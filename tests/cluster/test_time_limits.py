"""check and doctor say the same of how long a job may be."""

from __future__ import annotations

import pytest

from clusterlm.cluster.doctor.meaning import meaning
from clusterlm.cluster.preflight import problems_on
from clusterlm.cluster.slurm import Partition
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe, ProbedPartition


@pytest.mark.parametrize("limit_s", [600, 86400])
def test_one_fact_and_one_advice(limit_s: int) -> None:
    fields = {"name": "x", "cluster": "slurm", "train": {"command": ["run"]}}
    job = Job.model_validate({**fields, "resources": {"time": "3d"}})
    [problem] = problems_on(job, [Partition("gpu", 4, limit_s, True, True)])
    one = ProbedPartition(name="gpu", nodes=4, max_time_s=limit_s, is_default=True)
    found = meaning(Probe(slurm_version="24.11.5", partitions=(one,)))
    [finding] = [finding for finding in found if "longest" in finding.words]
    assert problem.message == f"3-00:00:00 asked for, and {finding.words}; {finding.advice}"
    # what a job asks for that says nothing is told where it is too long
    assert ("asks for 1:00:00" in finding.advice) == (limit_s < 3600)


def test_several_partitions_are_one_line() -> None:
    parts = [
        ProbedPartition(name=name, nodes=4, max_time_s=limit_s, is_default=name == "gpu")
        for name, limit_s in (("gpu", 86400), ("debug", 1800), ("long", None))
    ]
    found = meaning(Probe(slurm_version="24.11.5", partitions=tuple(parts)))
    [finding] = [finding for finding in found if "longest" in finding.words]
    assert finding.words == "the longest job is 1-00:00:00 in partition gpu, 0:30:00 in debug"
    assert finding.advice.startswith("write resources.time: the partition's limit or less")
