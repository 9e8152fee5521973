"""`clusterlm import` and `clusterlm recipes` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.errors import ClusterLMError
from clusterlm.spec.document import read_document
from clusterlm.spec.load import load_job
from clusterlm.spec.recipes import files_of, list_recipes, recipes_folder
from tests.importing.conftest import INPUTS


def run(*argv: str | Path) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(word) for word in argv])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def test_without_o_the_job_is_printed() -> None:
    out, err = run("import", INPUTS / "run_pt.sh")
    assert read_document(out).values["name"] == "run_pt"
    assert "check says: model.name" in err
    assert err.endswith("then: clusterlm check job.yaml\n")


def test_o_writes_and_tells_what_became_of_the_rest(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    out, err = run("import", INPUTS / "run_pt.sh", "-o", job)
    assert out == ""
    assert read_document(job.read_text("utf-8")).values["train"]["max_steps"] == 100
    assert re.search(r"^left out:\n  --data_cache_dir", err)
    assert f"written: {job}" in err


def test_o_overwrites_only_when_told(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("mine")
    with pytest.raises(ClusterLMError, match="--force overwrites it"):
        run("import", INPUTS / "train.sh", "-o", job)
    assert job.read_text() == "mine"
    run("import", INPUTS / "train.sh", "-o", job, "--force")
    assert "name: train" in job.read_text()


REFUSED = {
    "x.py": ("import torch", "is a program; give the script that starts it"),
    "x.json": ('{"a": 1}', "none of DeepSpeed"),
    "y.json": ("{", "is no JSON"),
    "z.json": ("[" * 100_000, "is no JSON"),
    "x.yaml": ("name: a\ntrain: {}", "looks like a job.yaml already"),
    "z.yaml": ("a: [", "is no YAML"),
    "x.sh": ("ls\n", "there is no command that trains"),
    "y.sh": ("torchrun 'x", "a quote is never closed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_not_understood_is_refused_in_one_sentence(
    tmp_path: Path, name: str
) -> None:
    text, words = REFUSED[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(ClusterLMError, match=re.escape(words)) as caught:
        run("import", tmp_path / name)
    assert str(caught.value).count("\n") == 0
    assert caught.value.exit_code == 2


def test_a_page_says_which_of_its_lines_to_copy(tmp_path: Path) -> None:
    page = "# How to\n\n```bash\nls\n```\n\n```\ntorchrun train.py \\\n  --bf16\n```\n"
    for name in ("page.md", "page.txt"):
        (tmp_path / name).write_text(page)
        with pytest.raises(ClusterLMError, match="is a page .*copy lines 8-9 into a file run.sh"):
            run("import", tmp_path / name)
    (tmp_path / "page.md").write_text("```\nls\n```\n")
    with pytest.raises(ClusterLMError, match="none of the commands between its fences"):
        run("import", tmp_path / "page.md")


@pytest.mark.parametrize("content", [b"\x00\x01", b"\xff\xfe torchrun"])
def test_what_is_no_text_says_what_is_accepted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.sh"
    path.write_bytes(content)
    with pytest.raises(ClusterLMError, match="accepted: a shell script"):
        run("import", path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterLMError, match=r"gone\.sh: no such file"):
        run("import", tmp_path / "gone.sh")
    with pytest.raises(ClusterLMError, match="is a folder; accepted"):
        run("import", tmp_path)


def test_recipes_are_listed_with_what_they_are() -> None:
    out, _ = run("recipes", "ls")
    assert re.search(r"^quickstart +this machine, CPU +A small Llama", out, re.MULTILINE)
    rows = json.loads(run("recipes", "ls", "--json")[0])
    assert {row["name"] for row in rows} == {path.stem for path in recipes_folder().glob("*.yaml")}
    assert all(row["about"] and row["needs"] for row in rows)


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_a_copied_recipe_stands_alone(tmp_path: Path, recipe: object) -> None:
    name = recipe.name  # type: ignore[attr-defined]
    run("recipes", "cp", name, tmp_path / "new" / "mine.yaml")
    load_job(tmp_path / "new" / "mine.yaml")


def test_cp_brings_the_samples_and_the_converter(tmp_path: Path) -> None:
    out, _ = run("recipes", "cp", "own-converter", tmp_path)
    assert (tmp_path / "own-converter.yaml").is_file()
    assert (tmp_path / "samples" / "own_converter.py").is_file()
    assert "and 2 files beside it" in out
    assert not (tmp_path / "samples" / "saiga").exists()


def test_cp_overwrites_only_when_told(tmp_path: Path) -> None:
    run("recipes", "cp", "pile", tmp_path)
    # the same again is no loss
    run("recipes", "cp", "pile", tmp_path)
    (tmp_path / "pile.yaml").write_text("mine")
    with pytest.raises(ClusterLMError, match="pile.yaml is there already; --force overwrites"):
        run("recipes", "cp", "pile", tmp_path)
    run("recipes", "cp", "pile", tmp_path, "--force")
    assert (tmp_path / "pile.yaml").read_text() != "mine"


def test_an_unknown_recipe_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ClusterLMError, match=r"did you mean `vicuna`\?  \(clusterlm recipes ls\)"):
        run("recipes", "cp", "vicunna", tmp_path)


def test_every_sample_belongs_to_a_recipe() -> None:
    named = {path for recipe in list_recipes() for path in files_of(recipe)}
    there = {p for p in (recipes_folder() / "samples").rglob("*") if p.is_file()}
    assert {p for p in there if "__pycache__" not in p.parts} == named
