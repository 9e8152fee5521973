"""Where the values of secrets come from; a job.yaml holds their names alone.

In this order: what came with the command (`--secrets-stdin`: from the laptop, over SSH, and so
neither in an argv nor in an environment), the environment, `secrets.json` or `secrets.env` beside
clusters.yaml (this user's alone, mode 0600), and the keyring where the library is installed
(`keyring set clusterlm HF_TOKEN`).

What was found is remembered, so that no message of this process shows it (`hidden`).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clusterlm.errors import ClusterLMError, Problem
from clusterlm.node.private import MAX_BYTES, NotPrivate, read_private
from clusterlm.node.redact import NOTHING, Redactor
from clusterlm.node.secret_env import SecretsRefused, secrets_of
from clusterlm.spec.clusters import clusters_file

KEYRING_SERVICE = "clusterlm"

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_given: dict[str, str] = {}
_seen: dict[str, str] = {}


def take_given(text: str) -> None:
    """Take the values that came with the command: a JSON object of names and texts.

    Raises:
        ClusterLMError: it is none; the message does not quote it.
    """
    if len(text) > MAX_BYTES:
        raise ClusterLMError(f"--secrets-stdin: more than {MAX_BYTES} bytes")
    try:
        _given.update(secrets_of(text, "--secrets-stdin"))
    except SecretsRefused as error:
        raise ClusterLMError(str(error)) from None
    _seen.update(_given)


def find_secrets(names: Sequence[str], where: str) -> dict[str, str]:
    """The value of each name.

    Args:
        names: of variables.
        where: the list of the job.yaml that has them, for the message.

    Raises:
        ClusterLMError: some are nowhere, or a file of secrets is not private.
    """
    found = _look_up(names)
    if missing := [name for name in names if name not in found]:
        raise ClusterLMError(
            f"{where}: {', '.join(missing)} not set in the environment, nor in {_files()[0]}"
            f"{'' if _has_keyring() else ' (no keyring is installed)'}\n"
            f"  export {missing[0]}=... in the shell that submits, or write it there "
            f'(chmod 600): {{"{missing[0]}": "..."}}\n'
            f"  or leave it out of `{where}`"
        )
    if bad := [name for name in names if "\0" in found[name]]:
        raise ClusterLMError(f"{where}: {bad[0]} holds a NUL, which no environment can hold")
    return found


def missing_secrets(lists: Mapping[str, Sequence[str]]) -> list[Problem]:
    """What `find_secrets` would refuse, for each list of names by its key in the job."""
    problems = []
    for where, names in lists.items():
        try:
            find_secrets(names, where)
        except ClusterLMError as error:
            words = str(error).removeprefix(f"{where}: ").replace("\n  ", "; ")
            problems.append(Problem(where, words))
    return problems


def hide_secrets(names: Sequence[str]) -> None:
    """Let `hidden` know the values of these names, as far as there are any.

    For commands that show and send nothing: a secret that is not set is no mistake there.
    """
    try:
        _look_up(names)
    except ClusterLMError:
        _seen.update({name: os.environ[name] for name in names if name in os.environ})


def hidden(text: str) -> str:
    """`text` without any value that this process has looked up."""
    return _redactor()(text)


def _redactor() -> Redactor:
    return Redactor(_seen.values()) if _seen else NOTHING


def _look_up(names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in (_from_command, _from_environment, _from_files, _from_keyring):
        if missing := [name for name in names if name not in found]:
            found |= source(missing)
    _seen.update(found)
    return found


def _from_command(names: Sequence[str]) -> dict[str, str]:
    return {name: _given[name] for name in names if name in _given}


def _from_environment(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _from_files(names: Sequence[str]) -> dict[str, str]:
    values = _read_files()
    return {name: values[name] for name in names if name in values}


def _files() -> tuple[Path, Path]:
    folder = clusters_file().parent
    return folder / "secrets.json", folder / "secrets.env"


def _read_files() -> dict[str, str]:
    in_json, in_lines = _files()
    found = _lines_of(in_lines)
    try:
        found |= secrets_of(read_private(in_json), str(in_json))
    except FileNotFoundError:
        pass
    except (NotPrivate, SecretsRefused, OSError) as error:
        raise ClusterLMError(f"secrets: {_words(error, in_json)}") from None
    return found


def _lines_of(path: Path) -> dict[str, str]:
    """`NAME=value` a line, as in a .env: quotes around a value are not part of it."""
    try:
        text = read_private(path)
    except FileNotFoundError:
        return {}
    except (NotPrivate, OSError) as error:
        raise ClusterLMError(f"secrets: {_words(error, path)}") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ClusterLMError(f"secrets: {path}, line {number}: no NAME=value")
        value = match[2]
        is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        found[match[1]] = value[1:-1] if is_quoted else value
    return found


def _words(error: Exception, path: Path) -> str:
    return f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _has_keyring() -> bool:
    return importlib.util.find_spec("keyring") is not None


def _from_keyring(names: Sequence[str]) -> dict[str, str]:
    if not _has_keyring():
        return {}
    keyring = importlib.import_module("keyring")
    try:
        values = {name: keyring.get_password(KEYRING_SERVICE, name) for name in names}
    except Exception:
        # locked, or without a desktop to ask: as if it had none
        return {}
    return {name: str(value) for name, value in values.items() if value is not None}
