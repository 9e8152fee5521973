"""Commands as they are typed, in this process; jobs to type them for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.errors import ClusterLMError
from clusterlm.node.files import write_json
from clusterlm.paths import RunPaths, runs_dir
from clusterlm.spec.data import Data
from clusterlm.spec.load import load_job
from clusterlm.supervise.history import record
from tests.data.corpus import fingerprint_of


def types(*words: str) -> tuple[int, str, str]:
    """Exit code, what goes to stdout, and what to stderr."""
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, ClusterLMError):
        return done.exception.exit_code, done.stdout, str(done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def types_json(*words: str) -> Any:
    code, out, err = types(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def write_job(folder: Path, *sources: dict[str, Any], **data: Any) -> tuple[str, Data]:
    """A job.yaml with a small tokenizer, and its data section as it is loaded."""
    values = {"tokenizer": {"train": {"vocab_size": 300}}, "block_size": 32}
    job = {
        "name": "small",
        "cluster": "local",
        "data": {**values, "sources": list(sources), **data},
        "model": {"from_scratch": {"class": "LlamaForCausalLM", "config": {"hidden_size": 8}}},
    }
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    found = load_job(file).job.data
    assert found is not None
    return str(file), found


def add_run(name: str, data: Data, *, ended: bool = False) -> RunPaths:
    """A run directory as `submit` leaves it, as far as the data is concerned."""
    run = RunPaths(runs_dir() / name)
    run.root.mkdir(parents=True)
    write_json(run.lock, {"fingerprint": fingerprint_of(data)})
    write_json(run.spec, {"name": name, "data": data.model_dump(mode="json")})
    record(run, "created", run=name, cluster="slurm", version="0.1.0")
    if ended:
        record(run, "ended", state="DONE", cause=None, evidence="", phase="train")
    return run
