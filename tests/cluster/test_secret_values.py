"""Where the values of secrets come from, and that no message shows one."""

from __future__ import annotations

import io
import json
import os
import sys
import types
from pathlib import Path

import pytest

from clusterlm.cluster import secret_values
from clusterlm.cluster.run_folder import secret_values as values_of
from clusterlm.cluster.secret_values import find_secrets, hidden, hide_secrets, take_given
from clusterlm.errors import ClusterLMError
from clusterlm.spec.job import Job
from tests.person import Person

CANARY = "hf_cAnArY%0123456789"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "clusters.yaml"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(secret_values, "_given", {})
    monkeypatch.setattr(secret_values, "_seen", {})
    # whatever is installed here
    monkeypatch.setattr(secret_values, "_has_keyring", lambda: False)
    return tmp_path


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_nearest_source_counts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = types.ModuleType("keyring")
    keyring.get_password = lambda service, name: f"{service}-{name}"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setattr(secret_values, "_has_keyring", lambda: True)
    assert find_secrets(["HF_TOKEN"], "secrets") == {"HF_TOKEN": "clusterlm-HF_TOKEN"}
    private(config / "secrets.env", "# mine\nexport HF_TOKEN='of lines'\nOTHER=1=2\n")
    assert find_secrets(["HF_TOKEN", "OTHER"], "secrets") == {
        "HF_TOKEN": "of lines",
        "OTHER": "1=2",
    }
    private(config / "secrets.json", '{"HF_TOKEN": "of json"}')
    assert find_secrets(["HF_TOKEN"], "secrets")["HF_TOKEN"] == "of json"
    monkeypatch.setenv("HF_TOKEN", "of the environment")
    assert find_secrets(["HF_TOKEN"], "secrets")["HF_TOKEN"] == "of the environment"
    take_given('{"HF_TOKEN": "of stdin"}')
    assert find_secrets(["HF_TOKEN", "OTHER"], "secrets")["HF_TOKEN"] == "of stdin"


def test_a_keyring_that_fails_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = types.ModuleType("keyring")
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setattr(secret_values, "_has_keyring", lambda: True)
    with pytest.raises(ClusterLMError, match="HF_TOKEN not set in the environment"):
        find_secrets(["HF_TOKEN"], "secrets")


def test_a_name_without_a_value_is_told_with_what_to_do(config: Path) -> None:
    with pytest.raises(ClusterLMError) as refused:
        find_secrets(["A_TOKEN", "B_TOKEN"], "image.build_secrets")
    assert "image.build_secrets: A_TOKEN, B_TOKEN not set" in str(refused.value)
    assert str(config / "secrets.json") in str(refused.value)
    assert find_secrets([], "secrets") == {}


@pytest.mark.parametrize("name", ["secrets.json", "secrets.env"])
def test_a_file_that_is_not_private_is_refused_and_not_quoted(config: Path, name: str) -> None:
    file = private(config / name, f'{{"HF_TOKEN": "{CANARY}"}}', 0o640)
    told = refusal()
    assert f"{file}: mode 0640, others can read it; chmod 600" in told
    file.rename(config / "real")
    file.symlink_to(config / "real")
    assert f"{file}: a symbolic link" in refusal()
    file.unlink()
    os.mkfifo(file)
    assert f"{file}: no regular file" in refusal()


def test_a_file_of_somebody_else_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private(config / "secrets.json", f'{{"HF_TOKEN": "{CANARY}"}}')
    about = os.stat(config / "secrets.json").st_uid
    monkeypatch.setattr("os.geteuid", lambda: about + 1)
    if about == 0:
        os.chown(config / "secrets.json", 4321, -1)
    assert "not to you" in refusal()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("secrets.json", CANARY),
        ("secrets.json", f'["{CANARY}"]'),
        ("secrets.json", f'{{"HF_TOKEN": ["{CANARY}"]}}'),
        ("secrets.json", "[" * 100_000 + CANARY),
        ("secrets.json", f'{{"HF_TOKEN": "{CANARY}\\u0000"}}'),
        ("secrets.env", CANARY),
        ("secrets.env", "x" * (1 << 20) + CANARY),
    ],
)
def test_a_file_that_is_none_is_refused_and_not_quoted(config: Path, name: str, text: str) -> None:
    private(config / name, text)
    told = refusal()
    assert CANARY not in told


def refusal() -> str:
    with pytest.raises(ClusterLMError) as refused:
        find_secrets(["HF_TOKEN"], "secrets")
    assert CANARY not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


@pytest.mark.parametrize("text", [CANARY, f'["{CANARY}"]', '{"A": 1}', "{" + "x" * (1 << 20)])
def test_what_comes_by_stdin_is_an_object_and_never_quoted(text: str) -> None:
    with pytest.raises(ClusterLMError, match="--secrets-stdin") as refused:
        take_given(text)
    assert CANARY not in str(refused.value)


def test_what_was_looked_up_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hidden(CANARY) == CANARY
    monkeypatch.setenv("HF_TOKEN", CANARY)
    hide_secrets(["HF_TOKEN", "ABSENT"])
    assert hidden(f"<{CANARY}>") == "<***>"


def test_a_secret_that_stands_in_the_job_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    asked = {"name": "x", "secrets": ["HF_TOKEN"]}
    job = Job.model_validate({**asked, "train": {"command": ["x.py", f"--token={CANARY}"]}})
    with pytest.raises(ClusterLMError, match=r"train\.command\[1\] holds the value of") as refused:
        values_of(job)
    assert CANARY not in str(refused.value)
    assert values_of(Job.model_validate({**asked, "train": {"command": ["x.py"]}}))


def test_the_command_takes_secrets_by_stdin_and_shows_none(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.env.pop("HF_TOKEN", None)
    job = {"name": "t", "secrets": ["HF_TOKEN"], "train": {"command": ["true"]}}
    import subprocess

    def types_(*words: str, given: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in person.env.items() if k != "HF_TOKEN"}
        return subprocess.run(
            [sys.executable, "-m", "clusterlm", *words],
            input=given, capture_output=True, text=True, env=env, cwd=tmp_path, check=False,
        )  # fmt: skip

    file = person.writes(job)
    done = types_("submit", file, given="")
    assert done.returncode == 2
    assert "HF_TOKEN not set" in done.stderr
    done = types_(
        "submit", file, "--json", "--secrets-stdin", given=json.dumps({"HF_TOKEN": CANARY})
    )
    assert done.returncode == 0, done.stderr
    secrets = person.run("t").secrets
    assert json.loads(secrets.read_text()) == {"HF_TOKEN": CANARY}
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert secrets.parent.stat().st_mode & 0o777 == 0o700
    bad = person.writes({**job, "name": "u", "train": {"command": ["x", CANARY]}})
    for words in (["submit", bad], ["submit", bad, "--dry-run"]):
        done = types_(*words, "--secrets-stdin", given=json.dumps({"HF_TOKEN": CANARY}))
        assert CANARY not in done.stdout + done.stderr
    assert "***" in done.stdout


def test_a_bug_shows_its_traceback_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from clusterlm import cli

    monkeypatch.setenv("HF_TOKEN", CANARY)

    def breaks(**_: object) -> None:
        hide_secrets(["HF_TOKEN"])
        raise RuntimeError(f"\x1b]0;title\x07quotes {CANARY}")

    monkeypatch.setattr(cli, "app", breaks)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert "quotes ***" in said
    assert "RuntimeError" in said
    assert CANARY not in said
    assert "\x1b" not in said
