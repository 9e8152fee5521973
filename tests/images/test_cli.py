"""build-image as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bed.docker import DockerBed
from tests.images.test_store import types
from tests.images.tiny import use_tiny

JOB = """\
name: tiny
cluster: {cluster}
image: {{base: "{base}", runtime: {runtime}}}
train: {{command: [train.py]}}
"""


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(tmp_path / "images"))
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    return tmp_path / "images"


def job_file(
    folder: Path, base: str = "nvcr.io/nvidia/pytorch:24.08-py3", runtime: str = "docker"
) -> str:
    file = folder / "job.yaml"
    file.write_text(JOB.format(base=base, runtime=runtime, cluster="local"))
    (folder / "train.py").write_text("")
    return str(file)


def test_a_job_without_an_image_is_told(tmp_path: Path) -> None:
    file = job_file(tmp_path)
    code, text = types("build-image", file, "--set", "image.runtime=none")
    assert code == 0
    assert "nothing to build: the job runs in the current Python" in text
    code, text = types("build-image", file, "--render-only", "--set", "image.runtime=none")
    assert code == 2
    assert "asks for no image that is built" in text


def test_render_only_writes_what_would_be_used(tmp_path: Path, images: Path) -> None:
    code, text = types("build-image", job_file(tmp_path, runtime="enroot"), "--render-only")
    assert code == 0, text
    dockerfile, script = map(Path, text.splitlines())
    assert dockerfile.read_text().startswith("# An image for clusterlm")
    assert "enroot import" in script.read_text()
    assert os.access(script, os.X_OK)
    assert not list(images.glob("*.json"))


def test_a_build_is_told_and_is_json_for_programs(
    docker: DockerBed, fake_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo cli")
    file = job_file(tmp_path, fake_base)
    code, text = types("build-image", file)
    assert code == 0, text
    assert "torch 2.5.0a0, CUDA 12.6, Python 3.11.2, clusterlm 0.1.0" in text
    code, text = types("build-image", file, "--json")
    assert json.loads(text)["torch"] == "2.5.0a0"


def test_without_enroot_the_build_is_done_and_the_script_named(
    docker: DockerBed, fake_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_tiny(monkeypatch, "echo cli")
    monkeypatch.setattr("clusterlm.cluster.host.LocalHost.has", lambda self, name: name == "docker")
    file = job_file(tmp_path, fake_base, "enroot")
    code, text = types("build-image", file)
    assert code == 0, text
    assert "not imported: " in text
    assert "/enroot_import.sh" in text
    code, text = types("build-image", file, "--no-import")
    assert code == 0
    assert "not imported" not in text


def test_the_command_is_light() -> None:
    code = (
        "import sys, clusterlm.cli.images; "
        "print([m for m in ('jinja2', 'rich', 'yaml', 'pydantic', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
