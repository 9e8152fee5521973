"""What an image is made from, and when two of them are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterlm.cluster.images.recipe import (
    EXTRAS_FILE,
    STACK_FILE,
    Recipe,
    recipe_of,
    write_context,
)
from clusterlm.cluster.images.requirements import requirements_for
from clusterlm.errors import ImageError, TorchReplaced
from clusterlm.spec.image import Image


@pytest.fixture(autouse=True)
def own_images_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", str(tmp_path / "images"))


def image(**asked: Any) -> Image:
    return Image.model_validate(asked)


def recipe(**asked: Any) -> Recipe:
    return recipe_of(image(**asked))


def wheels(folder: Path, **content: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, text in content.items():
        (folder / f"{name}-1.0-py3-none-any.whl").write_text(text)
    return str(folder)


@pytest.mark.parametrize(
    "asked",
    [
        {"base": "nvcr.io/nvidia/pytorch:25.01-py3"},
        {"apt": ["git-lfs"]},
        {"pip": ["wandb"]},
        {"pip": ["transformers==4.57.0"]},
        {"env": {"A": "1"}},
        {"build_secrets": ["TOKEN"]},
    ],
)
def test_what_changes_the_image_changes_the_digest(asked: dict[str, Any]) -> None:
    assert recipe(**asked).digest != recipe().digest


@pytest.mark.parametrize(
    "asked",
    [
        {"builder": "podman"},
        {"runtime": "enroot"},
        {"mounts": ["/data"]},
        {"registry": "registry.example/team/clusterlm"},
        {"import_on": "slurm", "registry": "registry.example/team/clusterlm"},
    ],
)
def test_what_does_not_change_the_image_leaves_the_digest(asked: dict[str, Any]) -> None:
    assert recipe(**asked).digest == recipe().digest


def test_the_digest_follows_the_content_of_a_wheelhouse(tmp_path: Path) -> None:
    folder = wheels(tmp_path / "w", a="1")
    first = recipe(wheelhouse=folder).digest
    assert recipe(wheelhouse=folder).digest == first
    wheels(tmp_path / "w", a="2")
    second = recipe(wheelhouse=folder).digest
    wheels(tmp_path / "w", b="1")
    assert len({first, second, recipe(wheelhouse=folder).digest}) == 3
    # the same wheels in another folder
    other = wheels(tmp_path / "v", a="2", b="1")
    assert recipe(wheelhouse=other).digest == recipe(wheelhouse=folder).digest


def test_the_digest_is_the_last_label_and_not_a_part_of_itself() -> None:
    made = recipe()
    last = made.files["Dockerfile"].decode().splitlines()[-1]
    assert last == f'LABEL clusterlm.recipe="{made.digest}"'


def test_pins_of_the_stack_go_into_the_stack_and_the_rest_is_extra(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# mine\nPEFT==0.17.0  # pinned\n\nscikit_learn>=1.5; python_version > '3'\n")
    wanted = requirements_for(image(pip=["Transformers==5.23.0", "wandb"], requirements=str(file)))
    assert {"Transformers==5.23.0", "PEFT==0.17.0"} <= set(wanted.stack)
    assert wanted.extras == ("wandb", "scikit_learn>=1.5; python_version > '3'")
    # clusterlm's own bounds stay beside the pins
    assert any(line.startswith("transformers<") for line in wanted.stack)


def test_what_the_base_cannot_hold_is_bounded() -> None:
    # torch 2.5.0a0 counts as older than 2.5, and pip does not know
    stack = requirements_for(image(base="nvcr.io/nvidia/pytorch:24.08-py3")).stack
    assert "transformers<5.15.0" in stack
    newest = requirements_for(image(base="nvcr.io/nvidia/pytorch:26.06-py3")).stack
    assert not any("transformers<5.15" in line for line in newest)


def test_torch_is_never_asked_of_pip() -> None:
    names = [line.split("<")[0].split(">")[0] for line in requirements_for(image()).stack]
    assert "torch" not in names
    assert "deepspeed" in names


def test_the_fast_tokenizers_come_by_themselves() -> None:
    names = {line.split("<")[0].split(">")[0] for line in requirements_for(image()).stack}
    assert {"fastokens", "gigatoken"} <= names


def test_without_extras_there_is_no_layer_for_them() -> None:
    made = recipe()
    assert EXTRAS_FILE not in made.files
    assert f'"{EXTRAS_FILE}"' not in made.files["Dockerfile"].decode()
    assert STACK_FILE in made.files


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--index-url https://host/simple", "PIP_INDEX_URL"),
        ("-e .", "is an option of pip"),
        ("-r more.txt", "is an option of pip"),
        ("peft==0.17 --hash=sha256:00", "leave the hashes out"),
        ("./mine-1.0-py3-none-any.whl", "image.wheelhouse"),
        ("mine @ https://me:word@host/mine.whl", "has a password"),
        ("mine @ https://${TOKEN}@host/mine.whl", "image.build_secrets"),
    ],
)
def test_a_line_that_no_image_can_be_built_from_is_refused_with_its_place(
    tmp_path: Path, line: str, says: str
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(f"peft\n{line}\n")
    with pytest.raises(ImageError, match=says) as caught:
        recipe(requirements=str(file))
    assert f"{file}, line 2" in str(caught.value)
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "mine @ git+https://host/mine@0f3c",
        "mine @ git+https://user:${TOKEN}@host/mine@v1.0",
        "mine[a,b] >= 1.0, < 2",
        "mine",
    ],
)
def test_plain_requirements_are_taken_as_they_are(tmp_path: Path, line: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(line)
    asked = image(requirements=str(file), build_secrets=["TOKEN"])
    assert requirements_for(asked).extras == (line,)


def test_a_continued_line_is_one_requirement(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("mine>=1.0,\\\n<2\nother\n")
    assert requirements_for(image(requirements=str(file))).extras == ("mine>=1.0,<2", "other")


@pytest.mark.parametrize("line", ["torch", "Torch==2.9.0", "triton>=3", "torchvision"])
def test_asking_for_another_torch_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text(line)
    with pytest.raises(TorchReplaced, match=r"line 1: .* that the base brings"):
        recipe(requirements=str(file))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*nowhere\.txt"):
        recipe(requirements=str(tmp_path / "nowhere.txt"))
    with pytest.raises(ImageError, match=r"no folder .*nowhere"):
        recipe(wheelhouse=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no packages"):
        recipe(wheelhouse=str(tmp_path / "empty"))


def test_a_context_is_replaced_whole(tmp_path: Path) -> None:
    made = recipe(wheelhouse=wheels(tmp_path / "w", a="1"))
    (write_context(made) / "stale").write_text("")
    context = write_context(made)
    assert context == made.paths.context
    found = {p.relative_to(context).as_posix() for p in context.rglob("*") if p.is_file()}
    assert found == made.files.keys() | made.linked.keys()
    # nothing is left beside it
    assert [p.name for p in context.parent.iterdir()] == [context.name]
