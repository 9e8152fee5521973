"""Rendered files: golden texts, shell syntax, and that no value breaks out of its place."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm import render
from clusterlm.errors import ClusterLMError
from clusterlm.paths import RunPaths
from clusterlm.render import Launch, render_run, render_sbatch
from clusterlm.spec.job import Job

GOLDEN = Path(__file__).parent / "golden"
RUN = RunPaths(Path("/shared/runs/ru-cpt"))
FULL = {
    "name": "ru-cpt",
    "cluster": "slurm",
    "resources": {
        "nodes": 2,
        "spares": 1,
        "gpus_per_node": 8,
        "gpu_type": "h100",
        "cpus_per_node": 64,
        "mem": "900G",
        "time": "4-23:59:59",
        "partition": "gpu",
        "account": "team-a",
        "qos": "high",
        "constraint": "(ib&h100)|b200",
        "exclude": "node[3,7]",
        "exclusive": True,
        "extra": ["--comment=clusterlm"],
        "preprocess": {"cpus": 16, "mem": "64G", "time": "2h", "partition": "cpu"},
    },
    "data": {
        "tokenizer": {"train": {"vocab_size": 4096}},
        "block_size": 256,
        "sources": [{"kind": "text", "path": "/data/*.txt"}],
    },
    "model": {"name": "/models/base"},
    "env": {"NCCL_DEBUG": "WARN", "NOTE": "it's $HOME and `date`"},
    "secrets": ["HF_TOKEN"],
}
SMALL = {"name": "tiny", "train": {"command": ["my_train.py", "--lr", "1e-3"]}}


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", "/shared/cache")
    monkeypatch.setattr(render.sys, "executable", "/env/bin/python")
    monkeypatch.setattr(render, "__version__", "0.0.0")


def _all_texts() -> dict[str, str]:
    launch = Launch(folder=str(RUN.submitit))
    chained = Launch(folder=str(RUN.submitit), dependency="afterok:41")
    full, small = Job.model_validate(FULL), Job.model_validate(SMALL)
    texts = {f"full.{k}": v for k, v in render_run(full, RUN, "f" * 32).items()}
    texts |= {f"small.{k}": v for k, v in render_run(small, RUN, None).items()}
    texts["full.preprocess.sbatch"] = render_sbatch(full, RUN, "preprocess", launch)
    texts["full.train.sbatch"] = render_sbatch(full, RUN, "train", chained)
    texts["small.train.sbatch"] = render_sbatch(small, RUN, "train", launch)
    return texts


def test_rendered_files_are_the_golden_ones(update_golden: bool) -> None:
    texts = _all_texts()
    if update_golden:
        shutil.rmtree(GOLDEN, ignore_errors=True)
        GOLDEN.mkdir()
        for name, text in texts.items():
            (GOLDEN / name).write_text(text)
    assert {f.name for f in GOLDEN.iterdir()} == set(texts)
    for name, text in texts.items():
        assert (GOLDEN / name).read_text() == text, name


@pytest.mark.parametrize("name", sorted(_all_texts()))
def test_rendered_files_are_clean_shell(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(_all_texts()[name])
    subprocess.run(["bash", "-n", str(file)], check=True)
    argv = ["shellcheck", "--shell=bash", "--severity=style", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_directives_stand_before_the_first_command() -> None:
    """Slurm reads #SBATCH lines only up to the first line that is no comment."""
    for name, text in _all_texts().items():
        if name.endswith(".sbatch"):
            lines = text.splitlines()
            first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
            assert not [line for line in lines[first:] if line.startswith("#SBATCH")]


# what the spec lets through: everything but control characters
PRINTABLE = st.characters(categories=["L", "N", "P", "S", "Zs"])


@settings(max_examples=60, deadline=None)
@given(st.text(PRINTABLE, max_size=60))
def test_an_environment_value_arrives_as_it_was_written(value: str) -> None:
    job = Job.model_validate({**SMALL, "env": {"VALUE": value}})
    text = render_run(job, RUN, None)["torchrun.sh"]
    exports = text[text.index("export VALUE=") :].split("\nexport CLUSTERLM_RESUME_FROM")[0]
    shown = subprocess.run(
        ["bash", "-c", f'{exports}\nprintf %s "$VALUE"; printf x'],
        capture_output=True,
        check=True,
    )
    assert shown.stdout.decode() == value + "x"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(categories=["L", "N", "P", "S", "Zs"]),
            min_size=1,
            max_size=20,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_command_keeps_its_words(words: list[str]) -> None:
    job = Job.model_validate({"name": "x", "train": {"command": ["run.sh", *words]}})
    text = render_run(job, RUN, None)["torchrun.sh"]
    tail = text.split("--module clusterlm.node.rank -- \\\n", 1)[1]
    assert shlex.split(tail) == ["run.sh", *words]


@pytest.mark.parametrize("folder", ["a\nb", 'a"b', "a$b", "a`b`", "a\\b", "a#b"])
def test_a_run_directory_that_would_break_a_directive_is_refused(folder: str) -> None:
    with pytest.raises(ClusterLMError, match="CLUSTERLM_RUNS_DIR"):
        render.refuse_unsafe_folder(RunPaths(Path("/shared") / folder / "run"))


def test_a_folder_with_a_space_is_quoted() -> None:
    run = RunPaths(Path("/shared/my runs/run"))
    text = render_sbatch(Job.model_validate(SMALL), run, "train", Launch(folder="x"))
    assert '#SBATCH --output="/shared/my runs/run/submitit/%j_0_log.out"' in text
