"""Rendered files: golden texts, shell syntax, and that no value breaks out of its place."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterlm import container, render
from clusterlm.container import container_of
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
IMAGES = {
    "pyxis": "/shared/images/aaaa.sqsh",
    "enroot": "/shared/images/aaaa.sqsh",
    "docker": "clusterlm:aaaaaaaaaaaaaaaa",
    "apptainer": "/shared/images/aaaa.sif",
}
RECIPE = "a" * 64
SMALL = {"name": "tiny", "train": {"command": ["my_train.py", "--lr", "1e-3"]}}


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", "/shared/cache")
    monkeypatch.setattr(render.sys, "executable", "/env/bin/python")
    monkeypatch.setattr(render, "__version__", "0.0.0")
    monkeypatch.setattr(container.image_build, "code_digest", lambda _: "c" * 64)


def _all_texts() -> dict[str, str]:
    launch = Launch()
    chained = Launch(dependency="afterok:41")
    array = Job.model_validate({**FULL, "data": {**FULL["data"], "tasks": 16}})
    full, small = Job.model_validate(FULL), Job.model_validate(SMALL)
    texts = {f"full.{k}": v for k, v in render_run(full, RUN, "f" * 32).items()}
    texts |= {f"small.{k}": v for k, v in render_run(small, RUN, None).items()}
    for runtime, text in _in_containers().items():
        texts |= text if runtime == "docker" else _starters(text)
    texts["full.preprocess.sbatch"] = render_sbatch(full, RUN, "preprocess", launch)
    texts["array.encode.sbatch"] = render_sbatch(array, RUN, "encode", launch)
    texts["array.preprocess.sbatch"] = render_sbatch(array, RUN, "preprocess", chained)
    texts["array.preprocess.sh"] = render_run(array, RUN, "f" * 32)["preprocess.sh"]
    texts["full.train.sbatch"] = render_sbatch(full, RUN, "train", chained)
    texts["small.train.sbatch"] = render_sbatch(small, RUN, "train", launch)
    return texts


def _in_containers() -> dict[str, dict[str, str]]:
    """Files by name, by runtime."""
    found = {}
    for runtime, image in IMAGES.items():
        asked = {"runtime": runtime, "mounts": ["/scratch:/scratch", "/nvme:/inside:ro"]}
        job = Job.model_validate({**FULL, "image": asked})
        started = container_of(job, RUN, RECIPE, image)
        texts = render_run(job, RUN, "f" * 32, started)
        found[runtime] = {f"{runtime}.{k}": v for k, v in texts.items()}
    return found


def _starters(texts: dict[str, str]) -> dict[str, str]:
    """What starts the container; what runs in it differs by a hint."""
    return {k: v for k, v in texts.items() if k.endswith(("container.sh", "pyxis.options"))}


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


@pytest.mark.parametrize("name", sorted(n for n in _all_texts() if not n.endswith(".options")))
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


def test_a_local_run_has_no_array() -> None:
    local = {**FULL, "cluster": "local", "resources": {}, "data": {**FULL["data"], "tasks": 16}}
    job = Job.model_validate(local)
    assert job.encode_tasks == 1
    assert "CLUSTERLM_TASK" not in render_run(job, RUN, "f" * 32)["preprocess.sh"]


@pytest.mark.parametrize(("task", "words"), [("3/16", ["--task", "3/16"]), (None, [])])
def test_the_script_of_the_data_phase_does_a_tasks_share_or_all(
    task: str | None, words: list[str]
) -> None:
    text = _all_texts()["array.preprocess.sh"]
    last = text[text.index("exec ") :].replace("exec ", "printf '%s\\n' ", 1)
    env = {"PATH": "/usr/bin:/bin", **({"CLUSTERLM_TASK": task} if task else {})}
    done = subprocess.run(
        ["bash", "-uc", last], capture_output=True, text=True, env=env, check=True
    )
    said = done.stdout.splitlines()
    assert said[said.index(str(RUN.root)) + 1 :] == words


def test_a_folder_with_a_space_is_quoted() -> None:
    run = RunPaths(Path("/shared/my runs/run"))
    text = render_sbatch(Job.model_validate(SMALL), run, "train", Launch())
    assert '#SBATCH --output="/shared/my runs/run/submitit/%j_0_log.out"' in text


def test_what_runs_in_a_container_is_the_same_for_every_runtime() -> None:
    texts = _in_containers()
    for phase in ("torchrun", "preprocess"):
        lines = {
            runtime: [
                line for line in files[f"{runtime}.{phase}.sh"].splitlines() if "'" not in line
            ]
            for runtime, files in texts.items()
        }
        assert lines["pyxis"] == lines["enroot"] == lines["docker"] == lines["apptainer"]


def test_the_jobs_environment_comes_after_the_images_and_the_image_is_checked_last() -> None:
    text = _in_containers()["pyxis"]["pyxis.torchrun.sh"]
    order = ["/opt/clusterlm/image.json ]", ". /opt/clusterlm/environment", "export HOME="]
    order += ["export CLUSTERLM_RUN=", "export NCCL_DEBUG=WARN", "node.image_check", "node.agent"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "/env/bin/python" not in text


def test_every_option_of_pyxis_is_one_line_and_every_mount_is_in_it() -> None:
    lines = _in_containers()["pyxis"]["pyxis.pyxis.options"].splitlines()
    assert all(line.startswith("--") and line.count(" ") == 0 for line in lines)
    mounts = next(line for line in lines if line.startswith("--container-mounts="))
    wanted = ["/data:/data:ro", "/nvme:/inside:ro", "/scratch:/scratch", "/tmp:/tmp"]
    wanted += ["/models/base:/models/base:ro", "/shared/cache:/shared/cache"]
    assert sorted(mounts.partition("=")[2].split(",")) == sorted(
        [*wanted, f"{RUN.root}:{RUN.root}"]
    )
    names = next(line for line in lines if line.startswith("--container-env=")).partition("=")[2]
    assert {"NCCL_DEBUG", "NOTE", "CLUSTERLM_ATTEMPT"} <= set(names.split(","))


@settings(max_examples=40, deadline=None)
@given(st.text(PRINTABLE, max_size=60))
def test_hostile_values_do_not_leave_their_place_in_a_container(value: str) -> None:
    job = Job.model_validate({**SMALL, "image": {}, "env": {"VALUE": value}})
    text = render_run(job, RUN, None, container_of(job, RUN, RECIPE, "x:1"))["torchrun.sh"]
    exports = text[text.index("export VALUE=") :].split("\n\n# Before anything")[0]
    shown = subprocess.run(
        ["bash", "-c", f'{exports}\nprintf %s "$VALUE"; printf x'],
        capture_output=True,
        check=True,
    )
    assert shown.stdout.decode() == value + "x"


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"gpus_per_node": 8}, "#SBATCH --gres=gpu:8\n"),
        ({"gpus_per_node": 8, "gpu_request": "gres", "gpu_type": "a"}, "#SBATCH --gres=gpu:a:8\n"),
        ({"gpus_per_node": 8, "gpu_request": "gpus-per-node"}, "#SBATCH --gpus-per-node=8\n"),
        (
            {"gpus_per_node": 8, "gpu_request": "gpus-per-node", "gpu_type": "a100"},
            "#SBATCH --gpus-per-node=a100:8\n",
        ),
    ],
)
def test_gpus_are_asked_for_in_the_way_that_the_cluster_takes(
    asked: dict[str, object], line: str
) -> None:
    job = Job.model_validate({**FULL, "resources": asked})
    text = render_sbatch(job, RUN, "train", Launch())
    assert line in text
    assert text.count("gpu") == line.count("gpu")
    assert "gpus-per-node" not in render_sbatch(job, RUN, "preprocess", Launch())
