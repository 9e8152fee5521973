"""What clusterlm relies on in submitit, and what it makes of sbatch's refusals."""

from __future__ import annotations

import os
import pickle
import pickletools
import stat
from pathlib import Path

import pytest
from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import DelayedSubmission

from clusterlm.cluster.launcher import TemplateExecutor, submit_to_slurm
from clusterlm.errors import SlurmError
from clusterlm.node.files import write_atomically
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job
from clusterlm.supervise.batch_step import own_name, write_missing_pickle
from clusterlm.supervise.supervisor import Supervisor

JOB = Job.model_validate({"name": "run", "cluster": "slurm", "train": {"command": ["x.sh"]}})


def _program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run directory, and programs that record what they were given."""
    programs = tmp_path / "bin"
    _program(programs, "srun", "exit 0")
    text = f'cp "$1" {tmp_path}/sent; env > {tmp_path}/env; echo "Submitted batch job 4711"'
    _program(programs, "sbatch", text)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    paths = RunPaths(tmp_path / "run")
    paths.submitit.mkdir(parents=True)
    write_atomically(paths.spec, JOB.model_dump_json(by_alias=True))
    return paths


def test_our_text_is_what_sbatch_gets(run: RunPaths, tmp_path: Path) -> None:
    sent = submit_to_slurm(run, JOB, "train", "afterok:12")
    assert sent.job_id == "4711"
    text = (tmp_path / "sent").read_text()
    assert text == run.sbatch("train").read_text()
    assert "#SBATCH --dependency=afterok:12" in text
    assert f"-u -m clusterlm.supervise.batch_step {run.root} train " in text


def test_the_hook_is_there_and_is_asked(run: RunPaths) -> None:
    """Submitit calls it `_submit_command(command)`, and then puts its pickle under the id."""
    asked: list[str] = []
    executor = TemplateExecutor(run, lambda: asked.append("") or "4711")
    executor.submit(Supervisor(str(run.root), "train"))
    assert len(asked) == 1
    assert (run.submitit / "4711_submitted.pkl").is_file()


def test_the_pickle_holds_strings_only(run: RunPaths) -> None:
    data = pickle.dumps(Supervisor(str(run.root), "train"))
    globals_ = [
        f"{arg}" for op, arg, _ in pickletools.genops(data) if op.name in ("GLOBAL", "STACK_GLOBAL")
    ]
    assert len(globals_) <= 2
    again = pickle.loads(data)
    assert (again.run_dir, again.phase, again.after_pid) == (str(run.root), "train", "")


def test_secrets_of_the_shell_do_not_reach_sbatch(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-SECRET")
    submit_to_slurm(run, JOB, "train", None)
    assert "canary-SECRET" not in (tmp_path / "env").read_text()


def test_files_of_a_submission_are_private(run: RunPaths) -> None:
    submit_to_slurm(run, JOB, "train", None)
    for file in run.submitit.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


ARRAY = {
    "name": "run",
    "cluster": "slurm",
    "data": {
        "tokenizer": {"train": {"vocab_size": 300}},
        "block_size": 8,
        "sources": [{"kind": "text", "path": "/x"}],
        "tasks": 3,
    },
    "train": {"command": ["x.sh"]},
}


def test_every_task_of_an_array_writes_its_pickle_where_submitit_looks(
    run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = submit_to_slurm(run, Job.model_validate(ARRAY), "encode", None)
    assert (sent.job_id, sent.tasks) == ("4711", 3)
    assert "#SBATCH --array=0-2\n" in (tmp_path / "sent").read_text()
    assert run.sbatch("encode").name == "encode.sbatch"
    environ = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "4713", "SLURM_ARRAY_JOB_ID": "4711"}
    for name, value in {**environ, "SUBMITIT_FOLDER": str(run.submitit)}.items():
        monkeypatch.setenv(name, value)
    for task in range(3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        write_missing_pickle(run, "encode", own_name(os.environ))
        env = JobEnvironment()
        loaded = DelayedSubmission.load(env.paths.submitted_pickle)
        assert loaded.function.phase == "encode"
        assert stat.S_IMODE(env.paths.submitted_pickle.stat().st_mode) & 0o077 == 0
        # what submitit asks scontrol to requeue: the task alone
        assert env.job_id == f"4711_{task}"


def test_the_pickle_of_a_requeue_stays(run: RunPaths) -> None:
    own = run.submitit / "4711_1_submitted.pkl"
    own.write_bytes(b"anew")
    write_missing_pickle(run, "encode", "4711_1")
    assert own.read_bytes() == b"anew"


def test_an_array_that_is_too_large_here_is_said_in_words(run: RunPaths, tmp_path: Path) -> None:
    words = "sbatch: error: Batch job submission failed: Invalid job array specification"
    _program(tmp_path / "bin", "sbatch", f'echo "{words}" >&2; exit 1')
    with pytest.raises(SlurmError, match="data.tasks is more than"):
        submit_to_slurm(run, Job.model_validate(ARRAY), "encode", None)


def test_a_refusal_is_told_in_sbatchs_own_words(run: RunPaths, tmp_path: Path) -> None:
    words = "sbatch: error: Batch job submission failed: Invalid account or account/partition"
    _program(tmp_path / "bin", "sbatch", f'echo "{words}" >&2; exit 1')
    with pytest.raises(SlurmError, match="Invalid account or account/partition"):
        submit_to_slurm(run, JOB, "train", None)
