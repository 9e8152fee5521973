"""Secrets are taken out in every form in which programs print them, and out of logs in place."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.node import scrub
from clusterlm.node.redact import Redactor
from clusterlm.node.scrub import Scrubber

ODD = "p@ss'w\"ör d/\\$x`%+&!"
VALUES = [
    ODD,
    "hf_abcdefghijklmnop",
    "two words",
    "ends with\\",
    "-----KEY-----\nMIIabcdef/+=\nend of it",
]


def shown_forms(value: str) -> dict[str, str]:
    """How programs show a value; most of it by asking them."""
    bash = {
        "set -x": 'set -x; : "$VALUE"',
        "export": 'true "$VALUE"; set -x; OTHER="$VALUE"',
        "declare": "declare -p VALUE",
        "%q": 'printf %q "$VALUE"',
        "@Q": 'printf %s "${VALUE@Q}"',
        "env": "env",
        "set": "set",
    }
    said = {
        name: subprocess.run(
            ["bash", "-c", script],
            env={"VALUE": value, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            check=True,
        )
        for name, script in bash.items()
    }
    lines = {name: (done.stdout + done.stderr).decode() for name, done in said.items()}
    return lines | {
        "raw": f"x{value}y",
        "quote": quote(value, safe=""),
        "quote with slashes": f"https://host/{quote(value)}",
        "quote_plus": f"q={quote_plus(value)}&x",
        "json": json.dumps({"k": value}),
        "json in letters": json.dumps({"k": value}, ensure_ascii=False),
        "repr": repr({"k": value}),
        "shlex": shlex.quote(value),
        "base64": base64.b64encode(value.encode()).decode(),
        "base64 of urls": base64.urlsafe_b64encode(value.encode()).decode(),
        **{
            f"base64 behind {user!r}": base64.b64encode(f"{user}:{value}".encode()).decode()
            for user in ("", "u", "us", "usr")
        },
    }


@pytest.mark.parametrize("value", VALUES)
def test_a_secret_is_taken_out_of_whatever_shows_it(value: str) -> None:
    hide = Redactor([value])
    for name, text in shown_forms(value).items():
        kept = hide(text)
        assert "***" in kept, name
        for line in value.splitlines():
            if len(line) >= 6:
                assert line not in kept, name
                # nor most of it
                assert line[: len(line) * 2 // 3] not in kept, name
        # what a reader could decode
        for word in kept.replace(":", " ").split():
            plain = (
                base64.b64decode(word + "==", altchars=b"-_")
                if len(word) > 8 and word.isalnum()
                else b""
            )
            assert value.encode()[:6] not in plain, name


@given(
    st.text(
        st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=6, max_size=40
    )
)
def test_no_form_of_any_value_is_left(value: str) -> None:
    hide = Redactor([value])
    if not hide:
        return
    for text in (value, quote(value, safe=""), json.dumps(value), repr(value), shlex.quote(value)):
        assert value not in hide(f"<{text}>")


def test_the_longest_goes_first_and_short_values_stay() -> None:
    assert Redactor(["secret", "secret-long", "1"])("secret-long secret 1") == "*** *** 1"
    assert not Redactor(["", "12345"])


def test_the_password_of_a_url_is_a_secret_of_its_own() -> None:
    hide = Redactor(["https://user:p%40ss+word@host/simple"])
    text = hide("https://user:p%40ss+word@host/simple p@ss+word p%40ss%2Bword user:p%40ss+word")
    assert "ss" not in text.replace("***", "")


def test_values_in_records_are_taken_out_of_keys_and_lists_too() -> None:
    found = Redactor(["hf_secret"]).tree({"a hf_secret": ["x", ("hf_secret", 1, None)], "n": 2.5})
    assert found == {"a ***": ["x", ("***", 1, None)], "n": 2.5}


def test_lines_are_those_that_each_would_be() -> None:
    hide = Redactor(["hf_secret"])
    lines = ["a", "is hf_secret", "b"]
    assert hide.lines(lines) == ["a", "is ***", "b"] == [hide(line) for line in lines]
    assert hide.lines([]) == []


@given(st.lists(st.sampled_from([b"hf_secret", b"hf_sec", b"ret", b"x" * 50, b"\n"]), max_size=40))
def test_a_log_is_blacked_out_in_place_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    log = tmp_path_factory.mktemp("log") / "rank0.log"
    log.write_bytes(b"")
    scrubber = Scrubber(log, Redactor(["hf_secret"]))
    with pytest.MonkeyPatch.context() as patch, log.open("ab", buffering=0) as writer:
        patch.setattr(scrub, "CHUNK", 16)
        for part in parts:
            writer.write(part)
            scrubber.look()
        scrubber.look(to_the_end=True)
    whole = b"".join(parts)
    assert log.read_bytes() == whole.replace(b"hf_secret", b"*" * 9)


def test_a_log_that_is_not_there_or_no_file_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("hf_secret")
    link = tmp_path / "link.log"
    link.symlink_to(target)
    for log in (tmp_path / "absent.log", link, tmp_path):
        Scrubber(log, Redactor(["hf_secret"])).look(to_the_end=True)
    assert target.read_text() == "hf_secret"
