"""What a dry run makes of a job: the same, and small."""

from __future__ import annotations

from clusterlm.cluster.dry_run import SAMPLE, Wish, small_job
from clusterlm.spec.job import Job


def test_every_source_is_cut_to_a_sample_wherever_it_lies() -> None:
    sources = [
        {"kind": "text", "path": "/d/*.txt"},
        {"kind": "chat", "hub": "owner/name", "max_documents": 5},
        {"kind": "custom", "path": "/d/x.jsonl", "converter": "/d/conv.py:f"},
    ]
    data = {
        "tokenizer": {"name": "owner/name"},
        "block_size": 8,
        "tasks": 16,
        "sources": sources,
        "validation": {"sources": sources[:1]},
    }
    job = Job.model_validate({"name": "x", "data": data, "model": {"name": "owner/name"}})
    small = small_job(job, Wish(), num_gpus=0).data
    assert small is not None
    assert [source.max_documents for source in small.sources] == [SAMPLE, 5, SAMPLE]
    assert [source.max_documents for source in small.validation.sources] == [SAMPLE]
    assert small.tasks == 1
