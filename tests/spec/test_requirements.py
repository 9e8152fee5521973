from __future__ import annotations

import pytest

from clusterlm.spec.requirements import lines_of, name_of, reason_to_refuse, specifiers_of


def test_lines_lose_comments_and_keep_their_numbers() -> None:
    text = (
        "# ours\npeft>=0.17 \\\n    ,<1  # adapters\n\nx@git+https://h/p#subdirectory=a\nevaluate"
    )
    assert list(lines_of(text)) == [
        (2, "peft>=0.17     ,<1"),
        (5, "x@git+https://h/p#subdirectory=a"),
        (6, "evaluate"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "peft",
        "peft[torch] >= 0.17 , < 1",
        "PyYAML==6.0.1 ; python_version < '3.13' and sys_platform == \"linux\"",
        "peft @ git+https://github.com/huggingface/peft@v0.17.1",
        "peft @ git+https://${GIT_TOKEN}@github.com/team/private",
        "peft @ git+https://me:${GIT_TOKEN}@github.com/team/private@0123abc",
    ],
)
def test_what_tools_write_is_accepted(line: str) -> None:
    assert reason_to_refuse(line, ["GIT_TOKEN"]) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("-r other.txt", "copy its lines"),
        ("-rother.txt", "copy its lines"),
        ("-e .", "build a wheel"),
        ("--index-url=https://pypi.example", "PIP_INDEX_URL"),
        ("-f wheels", "image.wheelhouse"),
        ("--require-hashes", "leave it out"),
        ("peft==0.17.1 --hash=sha256:00", "leave the hashes out"),
        ("peft --no-binary :all:", "only the requirement"),
        ("./peft.whl", "image.wheelhouse"),
        ("peft @ file:///home/me/peft.whl", "image.wheelhouse"),
        ("git+https://host/path", "no requirement"),
        ("https://host/peft.whl", "no requirement"),
        ("peft @ git+ssh://git@host/path", "password"),
        ("peft @ git+https://me:pw@host/path", "password"),
        ("peft @ git+https://${OTHER}@host/path", "only if image.build_secrets names it"),
        ("${OTHER}", "only if image.build_secrets names it"),
        ("peft==$(id)", "no requirement"),
        ("peft peft", "no requirement"),
        ("peft; `id`", "marker"),
        ("peft;\x1b[2J", "marker"),
        ("péft", "no requirement"),
    ],
)
def test_what_an_image_cannot_be_built_from_is_refused_with_a_way_out(line: str, says: str) -> None:
    assert says in str(reason_to_refuse(line, ["GIT_TOKEN"]))


def test_name_and_versions_as_pip_reads_them() -> None:
    assert name_of("Flash_Attn[x] >= 2") == "flash-attn"
    assert specifiers_of("peft[x] >= 0.17, < 1 ; python_version < '3.11'") == ">=0.17,<1"
    assert specifiers_of("peft @ git+https://h/p@v1") == ""
    assert specifiers_of("peft") == ""
