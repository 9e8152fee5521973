"""The lines of builds, as BuildKit and podman print them; secrets in none of what is shown."""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.cluster.images.progress import BuildReader, Screen, duration, what_it_does
from clusterlm.cluster.images.secrets import build_secrets, hider, secret_files
from clusterlm.errors import ClusterLMError

BUILDKIT = """\
#1 [internal] load build definition from Dockerfile
#1 sha256:4f06d5e6030ff6a76d9a34c7347105ed4c3c41e4c5b95e33baca869cffe30384
#1 transferring dockerfile: 170B done
#1 DONE 0.0s
#4 [ 1/12] FROM docker.io/library/base:1
#4 DONE 0.0s
#5 [stage-0  2/12] RUN --mount=type=secret,id=TOK ["python3", "/opt/clusterlm/build", "pip", \
"/opt/clusterlm/requirements.txt", "--wheelhouse", "/wheelhouse"]
#5 sha256:0baee8a322a47de951c1457c68f82f07c961b461696fcc31ee8ed620f8df971d
#5 0.066 Collecting peft
#5 0.070 clusterlm image: evilpin would replace the base's torch
#5 0.070 clusterlm image:   evilpin 1.0 wants torch==2.9.9
#5 ERROR: executor failed running [python3 /opt/clusterlm/build pip]: exit code: 65
------
 > [stage-0  2/12] RUN --mount=type=secret,id=TOK ["python3", "/opt/clusterlm/build", "pip"]:
0.070 clusterlm image: evilpin would replace the base's torch
------
ERROR: failed to solve: process "python3 build" did not complete successfully: exit code: 65
"""
PODMAN = """\
STEP 1/4: FROM localhost/base:1
STEP 2/4: RUN echo hello
hello
--> 8e37897f87d
[2/2] STEP 3/4: COPY Dockerfile /x
STEP 4/4: RUN exit 64
Error: building at STEP "RUN exit 64": while running runtime: exit status 64
"""


def read(text: str) -> tuple[BuildReader, list[str], list[str]]:
    reader = BuildReader()
    steps, printed = [], []
    for line in text.splitlines():
        step, output = reader.read(line)
        steps += [step] if step else []
        printed += [output] if output else []
    return reader, steps, printed


def test_steps_of_buildkit_are_told_once_and_in_words() -> None:
    reader, steps, printed = read(BUILDKIT)
    assert steps == ["1/12  FROM docker.io/library/base:1", "2/12  pip install requirements.txt"]
    assert printed[0] == "Collecting peft"
    assert not [line for line in printed if "sha256" in line or "transferring" in line]
    assert reader.exit_code == 65
    assert reader.refusal == [
        "evilpin would replace the base's torch",
        "  evilpin 1.0 wants torch==2.9.9",
    ]


def test_steps_of_podman_too() -> None:
    reader, steps, printed = read(PODMAN)
    assert steps == [
        "1/4  FROM localhost/base:1",
        "2/4  RUN echo hello",
        "3/4  COPY Dockerfile /x",
        "4/4  RUN exit 64",
    ]
    assert printed == ["hello"]
    assert reader.exit_code == 64


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ('RUN ["python3", "/opt/clusterlm/build", "apt", "git", "vim"]', "apt install git vim"),
        ('RUN ["python3", "/opt/clusterlm/build", "base", "x"]', "look at what the base brings"),
        ('RUN ["python3", "/opt/clu', 'RUN ["python3", "/opt/clu'),
        ("RUN   --mount=type=cache,target=/x   make", "RUN make"),
    ],
)
def test_what_a_step_does(instruction: str, words: str) -> None:
    assert what_it_does(instruction.replace("RUN   --", "RUN --")) == words


def test_a_long_step_says_that_it_lives() -> None:
    lines: list[str] = []
    now = [0.0]
    with Screen(lines.append, None, lambda: now[0]) as screen:
        screen.step("2/9  pip install")
        for second in range(0, 100, 10):
            now[0] = float(second)
            screen.detail(f"\x1b[31mwheel {second}")
    assert lines == ["  2/9  pip install", *(f"  ... {s} s: wheel {s}" for s in (30,)),
                     "  ... 1 min 0 s: wheel 60", "  ... 1 min 30 s: wheel 90"]  # fmt: skip
    assert duration(200) == "3 min 20 s"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=6), st.text())
def test_a_secret_is_taken_out_however_it_is_written(value: str, before: str) -> None:
    if len(value.strip()) < 6:
        return
    hide = hider([value])
    for form in (value, quote(value, safe=""), quote_plus(value)):
        assert value not in hide(f"{before}{form} after").replace(before, "")
    for user in ("", "u:", "us:", "usr:"):
        coded = base64.b64encode((user + value).encode()).decode()
        kept = hide(coded)
        # not enough is left of it to know the value
        assert kept != coded
        assert len(kept.replace("***", "")) <= len(user) * 2 + 8


def test_the_password_in_a_url_is_a_secret_of_its_own() -> None:
    hide = hider(["https://me:pa55word@index.example/simple"])
    assert "pa55word" not in hide("Looking in indexes: https://index.example; key pa55word")
    assert hide("nothing of it") == "nothing of it"


def test_files_of_secrets_are_private_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cret")
    with secret_files(build_secrets(["TOKEN"])) as files:
        assert files["TOKEN"].read_text() == "s3cret"
        assert files["TOKEN"].stat().st_mode & 0o777 == 0o600
        assert files["TOKEN"].parent.stat().st_mode & 0o777 == 0o700
    assert not files["TOKEN"].parent.exists()


def test_a_secret_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ClusterLMError, match="NOT_THERE not set"):
        build_secrets(["NOT_THERE"])
