"""Real builds on a real Docker: the torch of the base stays, or the build names who touched it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from clusterlm import __version__
from clusterlm.cluster.images.recipe import Recipe
from clusterlm.cluster.images.wheel import code_digest
from clusterlm.node.image_build import MARKER, ROOT
from tests.bed.bases import FAKE_TORCH
from tests.bed.docker import ROOTFS, DockerBed
from tests.images.building import build, built, in_image, recipe_for

SECRET = "s3cr3t/t+ken=with%signs"
# the grammar of image.env refuses most of these; the quoting holds without it
HOSTILE = {
    "DOLLAR": "$HOME ${PATH} $$ $(id) `id`",
    "QUOTES": """ "double" 'single' """,
    "BACKSLASH": "a\\b\\\\c\\n\\",
    "HEREDOC": "<<EOF # no comment",
    "UNICODE": "привет 🙂",
    "EMPTY": "",
    "LAST": "ends in backslash \\",
}


@pytest.fixture(autouse=True)
def own_images_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(tmp_path / "images"))


@pytest.fixture
def good(docker: DockerBed, fake_base: str, thin_wheelhouse: Path) -> Recipe:
    """An image with extras, a hostile environment and a secret; built once, then cached."""
    recipe = recipe_for(
        fake_base, thin_wheelhouse, pip=["goodpkg", "heldpkg"], env=HOSTILE, build_secrets=["TOKEN"]
    )
    built(docker, recipe, {"TOKEN": SECRET})
    return recipe


def refused(docker: DockerBed, recipe: Recipe, code: int) -> list[str]:
    """The lines of the refusal of a build that must fail."""
    done = build(docker, recipe)
    assert done.returncode != 0
    assert f"exit code: {code}" in done.stdout
    # "#12 3.456 clusterlm image: evilpin would ..."
    found = re.findall(rf"(?m)^#\d+ [\d.]+ {MARKER}(.*)$", done.stdout)
    assert found, done.stdout[-2000:]
    return found


def test_a_good_extra_leaves_the_torch_of_the_base(docker: DockerBed, good: Recipe) -> None:
    record = json.loads(in_image(docker, good, "cat", f"{ROOT}/image.json"))
    assert record["recipe"] == good.digest
    assert record["torch"] == FAKE_TORCH
    assert record["torch_file"].endswith("-packages/torch/__init__.py")
    assert record["guarded"] == {"torch": FAKE_TORCH}
    assert record["cuda"] == "12.6"
    assert record["clusterlm"] == __version__
    assert record["code_digest"] == good.code_digest == code_digest()
    assert record["python"] == "/usr/bin/python3"
    assert abs(time.time() - record["built"]) < 30 * 24 * 3600


def test_the_recorded_python_runs_clusterlm_and_sees_the_extras(
    docker: DockerBed, good: Recipe
) -> None:
    code = "import clusterlm, goodpkg, heldpkg, transformers; print(heldpkg.VERSION)"
    # 1.0: the base's own constraint holds besides ours
    assert in_image(docker, good, f"{ROOT}/python", "-c", code).strip() == "1.0"


def test_a_pin_of_the_base_gives_way_to_a_wish(
    docker: DockerBed, fake_base: str, thin_wheelhouse: Path
) -> None:
    recipe = recipe_for(fake_base, thin_wheelhouse, pip=["heldpkg==2.0"])
    built(docker, recipe)
    code = "import heldpkg, torch; print(heldpkg.VERSION, torch.__version__)"
    assert in_image(docker, recipe, "python3", "-c", code).split() == ["2.0", FAKE_TORCH]


def test_hostile_values_arrive_as_they_were_written(docker: DockerBed, good: Recipe) -> None:
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    given = json.loads(in_image(docker, good, f"{ROOT}/python", "-c", code))
    assert {name: given[name] for name in HOSTILE} == HOSTILE
    # a runtime that loses the image's ENV gets it from this file
    sourced = f". {ROOT}/environment; exec {ROOT}/python -c {code!r}"
    bare = ["env", "-i", "/bin/sh", "-c", sourced]
    again = json.loads(in_image(docker, good, *bare))
    assert {name: again[name] for name in HOSTILE} == HOSTILE
    assert again["PATH"] == given["PATH"]


def test_the_label_is_the_recipe_and_a_command_is_set(docker: DockerBed, good: Recipe) -> None:
    config = json.loads(docker.run("inspect", good.paths.tag).stdout)[0]["Config"]
    assert config["Labels"]["clusterlm.recipe"] == good.digest
    assert config["Labels"]["clusterlm.version"] == __version__
    assert config["Cmd"] == ["/bin/bash"]


def test_no_secret_is_in_the_image(docker: DockerBed, good: Recipe) -> None:
    tag = good.paths.tag
    texts = docker.run("history", "--no-trunc", tag).stdout + docker.run("inspect", tag).stdout
    assert SECRET not in texts
    argv = [docker.client, "save", tag]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as saved:
        assert saved.stdout is not None
        tail = b""
        while piece := saved.stdout.read(1 << 22):
            assert SECRET.encode() not in tail + piece
            tail = piece[-len(SECRET) :]
    assert saved.returncode == 0


def test_a_rebuild_runs_no_step(docker: DockerBed, good: Recipe) -> None:
    done = built(docker, good, {"TOKEN": "another value of the same secret"})
    steps = re.findall(r"(?m)^#\d+ \[(?:stage-0 )? *\d+/\d+\] (RUN|COPY)", done.stdout)
    assert steps
    assert len(re.findall(r"(?m)^#\d+ CACHED", done.stdout)) == len(steps)


def test_another_extra_leaves_the_training_stack_alone(
    docker: DockerBed, good: Recipe, fake_base: str, thin_wheelhouse: Path
) -> None:
    other = recipe_for(fake_base, thin_wheelhouse, pip=["goodpkg"], build_secrets=["TOKEN"])
    built(docker, other, {"TOKEN": SECRET})

    def layers(recipe: Recipe) -> list[str]:
        found = json.loads(docker.run("inspect", recipe.paths.tag).stdout)[0]
        return list(found["RootFS"]["Layers"])

    stack = good.files["Dockerfile"].decode().split("requirements.txt")[0]
    base = json.loads(docker.run("inspect", fake_base).stdout)[0]["RootFS"]["Layers"]
    shared = len(base) + len(re.findall(r"(?m)^(RUN|COPY)", stack)) - 1
    assert layers(good)[:shared] == layers(other)[:shared]
    assert layers(good)[shared:] != layers(other)[shared:]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("evilpin", ["evilpin would replace the base's torch", "evilpin 1.0 wants torch==2.9.9"]),
        ("eviluser", ["evilpin would replace the base's torch", "(eviluser asks for it)"]),
        ("evilfiles", ["evilfiles 1.0 wrote into the torch of the base", "torch/version.py"]),
        ("eviladds", ["eviladds 1.0 wrote into the torch of the base", "torch/more.py"]),
    ],
)
def test_a_package_that_replaces_torch_fails_the_build_and_is_named(
    docker: DockerBed, fake_base: str, thin_wheelhouse: Path, asked: str, said: list[str]
) -> None:
    lines = "\n".join(refused(docker, recipe_for(fake_base, thin_wheelhouse, pip=[asked]), 65))
    for words in said:
        assert words in lines
    assert f"the base {fake_base} has torch {FAKE_TORCH}" in lines


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"pip": ["heldpkg==2.0", "heldpkg==1.0"]}, ["asked for: heldpkg==2.0", "loosen a pin"]),
        ({"pip": ["goodpkg==7"]}, ["pip finds no goodpkg==7", "goes with this base: goodpkg==1.0"]),
        ({"pip": ["heldpkg==3.0", "heldpkg>=1"]}, ["pip finds no heldpkg==3.0"]),
        ({"pip": ["no-such-pkg"]}, ["pip finds no no-such-pkg", "into image.wheelhouse"]),
        ({"apt": ["no-such-pkg"]}, ["apt-get could not install no-such-pkg"]),
        ({"env": {"PYTHONHOME": "/nowhere"}}, None),
    ],
)
def test_what_cannot_be_added_is_said(
    docker: DockerBed, fake_base: str, thin_wheelhouse: Path, asked: Any, said: list[str] | None
) -> None:
    recipe = recipe_for(fake_base, thin_wheelhouse, **asked)
    if said is None:
        # Python itself does not start: Docker's own words, but no image
        assert build(docker, recipe).returncode != 0
        return
    lines = "\n".join(refused(docker, recipe, 66))
    for words in said:
        assert words in lines


def test_a_base_without_torch_is_refused(
    docker: DockerBed, fake_base: str, thin_wheelhouse: Path
) -> None:
    assert fake_base
    rootfs = docker.run("images", "--format", "{{.Repository}}:{{.Tag}}", ROOTFS).stdout.split()[0]
    lines = refused(docker, recipe_for(rootfs, thin_wheelhouse), 66)
    assert lines[0] == f"the base {rootfs} has no torch"
    assert "choose an NGC PyTorch image" in lines[2]


def test_a_secret_is_blotted_out_of_what_pip_prints(
    docker: DockerBed, fake_base: str, tmp_path: Path
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("extra @ git+https://user:${TOKEN}@host.example/extra\n")
    recipe = recipe_for(fake_base, None, requirements=str(file))
    # only the extras: the stack needs an index
    text = recipe.files["Dockerfile"].decode()
    recipe.files["Dockerfile"] = re.sub(r"(?m)^RUN.*requirements-train.*\n", "", text).encode()
    done = build(docker, recipe, {"TOKEN": "t0ken-of-mine"})
    assert done.returncode != 0
    assert "host.example/extra" in done.stdout
    assert "t0ken-of-mine" not in done.stdout
    assert f"{MARKER}a package comes from git, and the image has none" in done.stdout


def test_a_secret_in_the_environment_of_the_image_is_refused(
    docker: DockerBed, fake_base: str, thin_wheelhouse: Path
) -> None:
    asked = {"env": {"LEAK": SECRET}, "build_secrets": ["TOKEN"]}
    done = build(docker, recipe_for(fake_base, thin_wheelhouse, **asked), {"TOKEN": SECRET})
    assert done.returncode != 0
    assert f"{MARKER}the value of the build secret TOKEN is in {ROOT}/environment" in done.stdout
