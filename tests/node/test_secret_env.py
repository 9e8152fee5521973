from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterlm.node.secret_env import SecretsRefused, black_out, printable_argv, read_secrets


def write_secrets(path: Path, text: str, mode: int) -> dict[str, str]:
    path.write_text(text)
    path.chmod(mode)
    return {"CLUSTERLM_SECRETS_FILE": str(path)}


def test_no_file_no_secrets() -> None:
    assert read_secrets({}) == {}


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    environ = write_secrets(tmp_path / "s.json", '{"A": "1"}', mode)
    assert read_secrets(environ) == {"A": "1"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o777])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SecretsRefused, match="chmod 600"):
        read_secrets(write_secrets(tmp_path / "s.json", '{"A": "1"}', mode))


@pytest.mark.parametrize("text", ["", "hf_secret", "[]", '{"A": 1}', '{"A": null}'])
def test_a_broken_file_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(SecretsRefused) as refused:
        read_secrets(write_secrets(tmp_path / "s.json", text, 0o600))
    assert "hf_secret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__cause__ is None


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretsRefused, match="No such file"):
        read_secrets({"CLUSTERLM_SECRETS_FILE": str(tmp_path / "absent")})


def test_values_are_blacked_out_the_longest_first() -> None:
    environ = {"CLUSTERLM_SECRET_NAMES": "A,B,C", "A": "secret", "B": "secret-long", "C": "1"}
    assert black_out("secret-long secret 1", environ) == "*** *** 1"
    assert black_out("as it is", dict(os.environ)) == "as it is"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--hf-token", "x", "y"], ["--hf-token", "***", "y"]),
        (["--wandb_api_key=x"], ["--wandb_api_key=***"]),
        (["--password", "--flag"], ["--password", "--flag"]),
        (["--tokenizer", "t5", "--max-tokens=5"], ["--tokenizer", "t5", "--max-tokens=5"]),
    ],
)
def test_options_that_hold_a_secret_are_shown_without_it(argv: list[str], shown: list[str]) -> None:
    assert printable_argv(argv, {}) == shown
