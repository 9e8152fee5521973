"""No value that reaches Slurm, a shell or a Dockerfile can bring more than itself."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from clusterlm.spec.base import GRAMMARS, RUN_NAME
from clusterlm.spec.job import Job
from tests.spec.conftest import change, right_job

HOSTILE = [
    "x\ntouch PWNED #",
    "x\n",
    "\nx",
    "x\r\ny",
    "x\0y",
    "$(touch PWNED)",
    "`touch PWNED`",
    "x; touch PWNED",
    "x && y",
    "x | y",
    "x > /etc/passwd",
    'x" y',
    "x' y",
    "${HOME}",
    "x y",
    "x\ty",
    "x\\",
    "\u202egnp.exe",
    "x\u2028y",
    "ｘ",
    "é",
    "x" * 10_000,
    "-x",
    "",
]
WORDS = [
    "name",
    "cluster",
    "image.base",
    "image.apt",
    "image.pip",
    "image.registry",
    "image.mounts",
    "image.build_secrets",
    "image.builder",
    "image.import_on",
    "image.runtime",
    "resources.partition",
    "resources.account",
    "resources.qos",
    "resources.reservation",
    "resources.constraint",
    "resources.exclude",
    "resources.gpu_type",
    "resources.extra",
    "resources.preprocess.partition",
    "model.revision",
    "data.tokenizer.revision",
    "model.from_scratch.class",
    "secrets",
]
LISTS = {
    *("image.apt", "image.pip", "image.mounts", "image.build_secrets"),
    *("resources.extra", "secrets"),
}
LINES = [
    "image.requirements",
    "image.wheelhouse",
    "data.tokenizer.name",
    "model.name",
    "train.lr_scheduler",
]


def refused(where: str, value: Any) -> bool:
    try:
        Job.model_validate(change(right_job(), {where: [value] if where in LISTS else value}))
    except ValidationError:
        return True
    return False


@pytest.mark.parametrize("where", WORDS)
@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_value_is_refused_in_every_word(where: str, value: str) -> None:
    assert refused(where, value)


@pytest.mark.parametrize("where", LINES)
@pytest.mark.parametrize(
    "value", ["x\ny", "x\n", "x\0", "x\x1b", "\u202ex", "x\u2028", "", "x" * 5000]
)
def test_text_for_people_and_paths_is_one_line(where: str, value: str) -> None:
    assert refused(where, value)


# as they stand after `make_paths_absolute`, and hostile only then
@pytest.mark.parametrize("where", ["image.file", "image.mounts"])
@pytest.mark.parametrize(
    "rest",
    [v for v in HOSTILE if v not in {"", "-x", "ｘ", "é"}] + [":/a:/b", ":/a:rx", ",/b", "#b"],
)
def test_a_hostile_path_never_reaches_a_runtime(where: str, rest: str) -> None:
    assert refused(where, f"/{rest}")


@pytest.mark.parametrize(
    "value", [v for v in HOSTILE if re.search(r"[\n\r\0$`\"'\\\u202e\u2028]", v)] + ["x" * 5000]
)
def test_a_variable_of_the_image_is_plain_text(value: str) -> None:
    assert refused("image.env", {"A": value})


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("image.base", "--platform=linux/arm64"),
        ("image.base", "python:3.12 AS x"),
        ("image.base", "Python:3.12"),
        ("image.base", "https://nvcr.io/nvidia/pytorch"),
        ("image.base", "user:pw@host/a"),
        ("image.base", "a@sha256:12"),
        ("image.base", "# syntax=evil/frontend"),
        ("image.registry", "registry.example/a:tag"),
        ("image.registry", "clusterlm"),
        ("image.registry", "user@registry.example/a"),
        ("image.apt", "git-"),
        ("image.apt", "git=1-"),
        ("image.apt", "git/testing"),
        ("image.apt", "./x.deb"),
        ("image.apt", "lib*"),
        ("image.pip", "--index-url=https://x"),
        ("image.pip", "-rother.txt"),
        ("image.pip", "./x.whl"),
        ("image.pip", "git+https://host/a"),
        ("image.pip", "a@file:///x"),
        ("image.pip", "a@git+https://me:pw@host/a"),
        ("image.pip", "a@git+https://token@host/a"),
        ("image.pip", "a@git+ssh://git@host/a"),
        ("image.pip", "a@git+https://host/a?token=x"),
        ("image.pip", "a@git+https://host/a@-x"),
        ("image.pip", "a;python_version<'3'"),
        ("image.mounts", "data"),
        ("image.mounts", "/a,readonly"),
        ("image.mounts", "/a:b"),
        ("image.mounts", "/a b"),
        ("image.build_secrets", "A=b"),
        ("image.build_secrets", "id=A,src=/etc/shadow"),
    ],
)
def test_words_that_docker_apt_or_pip_would_read_as_more(where: str, value: str) -> None:
    assert refused(where, value)


@pytest.mark.parametrize("value", ["x\ny", "x\0", "x\r", "\u202ex", "x" * 40_000])
def test_a_value_of_env_is_one_line(value: str) -> None:
    assert refused("env", {"A": value})


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "A-B", "É", "A" * 200])
def test_a_name_of_env_is_a_shell_name(name: str) -> None:
    assert refused("env", {name: "x"})


def test_arguments_of_a_command_may_hold_anything_but_nul() -> None:
    assert not refused("train.command", ["python", "-c", "print(1)\nprint(2)", "$x `y`"])
    assert refused("train.command", ["x\0y"])


def test_a_chat_template_may_have_lines_and_is_no_empty_text() -> None:
    where = "data.tokenizer.chat_template"
    assert not refused(where, "{% for m in messages %}\n\t{{ m.content }}\n{% endfor %}")
    assert refused(where, "x\0")
    assert refused(where, "")
    assert refused(where, "x" * 200_001)


@pytest.mark.parametrize(
    ("key", "accepted", "hostile"),
    [
        (
            "hub",
            ["owner/name", "wikitext", "a/b.c-d_e"],
            ["a/b/c", "../x", "https://host/a", "a b", "-x/y", "a/", "a\n"],
        ),
        (
            "split",
            ["train", "train[:1000]", "[10%:]", "train[-5:]", "train[:10%]", "validation.v2"],
            ["train[5]", "train[:5", "a b", "train[:5]+test", "train\n", "train[a:b]"],
        ),
        (
            "converter",
            ["/jobs/my conv.py:to_messages", "package.module.function", "package.module:f"],
            ["a:b:c", "conv.py:to messages", "conv.py:", "a\nb.c", "conv.py:1f", ""],
        ),
    ],
)
def test_names_of_a_source_are_what_they_should_be(
    key: str, accepted: list[str], hostile: list[str]
) -> None:
    kind = {"kind": "custom", "converter": "a.b"}
    for value in accepted:
        assert not refused("data.sources", [kind | {key: value}]), value
    for value in hostile:
        assert refused("data.sources", [kind | {key: value}]), value


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("image.base", "nvcr.io/nvidia/pytorch:24.08-py3"),
        ("image.base", "registry:5000/a/b:Tag-1.0_x@sha256:" + "0a" * 32),
        ("image.base", "ubuntu"),
        ("image.registry", "registry.example:5000/team/clusterlm"),
        ("image.file", "/shared/images/модель+x@1.sqsh"),
        ("image.mounts", "/data"),
        ("image.mounts", "/data/a=b:/inside:ro"),
        ("image.apt", "g++"),
        ("image.pip", "peft@git+https://host:8443/a/b.git@v1.0#subdirectory=src"),
        ("image.pip", "peft @ git+https://host/a/b@0123abc"),
        ("image.pip", "peft===0.17.1+local"),
        ("image.pip", "transformers[torch]==5.23.0"),
        ("image.pip", "datasets>=3.2,<6"),
        ("image.apt", "git=1:2.39.2-1+b1"),
        ("resources.exclude", "node[3,7-9],gpu12"),
        ("resources.constraint", "a100&nvlink*2|[h100|h200]"),
        ("resources.extra", "--comment=team-a"),
        ("resources.gpu_type", "nvidia_a100_80gb_pcie_1g.10gb"),
        ("resources.account", "proj-1@uni.de"),
    ],
)
def test_what_sites_really_write_is_accepted(where: str, value: str) -> None:
    assert not refused(where, value)


@given(st.text())
def test_a_run_name_is_a_safe_file_name_or_refused(name: str) -> None:
    is_name = re.fullmatch(RUN_NAME.strip("^$"), name) is not None
    assert refused("name", name) is not is_name


def test_every_pattern_has_words() -> None:
    schema = Job.model_json_schema()
    patterns = set(re.findall(r"'pattern': '((?:[^'\\]|\\.)*)'", repr(schema)))
    known = {repr(pattern)[1:-1] for pattern in GRAMMARS}
    assert patterns <= known
    assert len(patterns) > 10
