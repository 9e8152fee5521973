"""The rendered Dockerfile: what `docker/` shows, and what no value can break out of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from clusterlm.cluster.images.recipe import STACK_FILE, recipe_of
from clusterlm.cluster.images.wheel import WHEEL_NAME
from clusterlm.render import render_dockerfile
from clusterlm.spec.image import Image

FOLDER = Path(__file__).parents[2] / "docker"
DEFAULT = Image()


def rendered(image: Image = DEFAULT, **more: Any) -> str:
    given = {"wheel": WHEEL_NAME, "has_extras": False, "wheels": None, "recipe": "RECIPE", **more}
    return render_dockerfile(image, **given)


def test_the_folder_docker_shows_the_default_image(*, update_golden: bool) -> None:
    stack = recipe_of(DEFAULT).files[STACK_FILE].decode()
    if update_golden:
        (FOLDER / "Dockerfile").write_text(rendered())
        (FOLDER / STACK_FILE).write_text(stack)
    assert (FOLDER / "Dockerfile").read_text() == rendered()
    # a build tool may write `<2,>=1` where another writes `>=1,<2`
    shown = (FOLDER / STACK_FILE).read_text().splitlines()
    assert {Requirement(line) for line in shown} == {Requirement(x) for x in stack.splitlines()}


def test_every_step_is_a_list_that_no_shell_reads() -> None:
    text = rendered(
        Image(apt=["git-lfs"], pip=["peft"], build_secrets=["TOKEN"]),
        has_extras=True,
        wheels="d" * 64,
    )
    steps = re.findall(r"(?m)^RUN (?:--mount=\S+ )*(.*)$", text)
    assert len(steps) == text.count("\nRUN ") == 6
    for step in steps:
        assert json.loads(step)[:2] == ["python3", "/opt/clusterlm/build"]
    assert text.count("--mount=type=secret,id=TOKEN ") == 4
    assert text.count("--mount=type=bind,source=wheelhouse,target=/wheelhouse ") == 2


def test_the_stack_comes_before_the_extras_and_the_wheel_after_both() -> None:
    text = rendered(Image(pip=["wandb"]), has_extras=True)
    places = [text.index(f'"{name}"') for name in (STACK_FILE, "requirements.txt", WHEEL_NAME)]
    assert places == sorted(places)


def test_the_last_lines_set_a_command_and_the_recipe() -> None:
    lines = rendered().splitlines()
    assert 'CMD ["/bin/bash"]' in lines
    assert lines[-1] == 'LABEL clusterlm.recipe="RECIPE"'
    assert "syntax" not in lines[0]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain words", '"plain words"'),
        ("$HOME", r'"\$HOME"'),
        ('say "no"', r'"say \"no\""'),
        ("a\\", r'"a\\"'),
        ("", '""'),
    ],
)
def test_a_value_in_env_is_quoted(value: str, written: str) -> None:
    text = rendered(DEFAULT.model_copy(update={"env": {"NAME": value}}))
    assert f"\nENV NAME={written}\n" in text
