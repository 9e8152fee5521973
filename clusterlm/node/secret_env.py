"""Secrets: from a file of mode 0600 into the environment of the child, and nowhere else.

Not into argv, logs, heartbeats or exit records. `CLUSTERLM_SECRET_NAMES` tells the rank parent
which values to black out in what it writes down (`redact.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from clusterlm.node.private import NotPrivate, read_private
from clusterlm.node.redact import BLACK, NOTHING, Redactor

SECRETS_FILE = "CLUSTERLM_SECRETS_FILE"
SECRET_NAMES = "CLUSTERLM_SECRET_NAMES"

_SECRET_OPTION = re.compile(
    r"(?i)^--?[\w-]*(?:token(?![a-z])|secret|passw(?:or)?d|api[-_]?key)[\w-]*$"
)


class SecretsRefused(Exception):
    """The secrets file is absent, not this user's alone, or no object of names and texts."""


def read_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets of the file that `CLUSTERLM_SECRETS_FILE` names; {} when it names none.

    Raises:
        SecretsRefused: says what is wrong with the file, never what is in it.
    """
    named = environ.get(SECRETS_FILE)
    return secrets_in(Path(named)) if named else {}


def secrets_in(path: Path) -> dict[str, str]:
    """The secrets of a file of JSON.

    Raises:
        SecretsRefused: says what is wrong with the file, never what is in it.
    """
    try:
        text = read_private(path)
    except NotPrivate as error:
        raise SecretsRefused(str(error)) from None
    except OSError as error:
        raise SecretsRefused(f"{path}: {error.strerror}") from error
    return secrets_of(text, str(path))


def secrets_of(text: str, where: str) -> dict[str, str]:
    """The secrets of a JSON object.

    Raises:
        SecretsRefused: says what is wrong with it, never what is in it.
    """
    try:
        secrets = json.loads(text)
    except (ValueError, RecursionError):
        # the text of a JSON error quotes what it read
        raise SecretsRefused(f"{where}: no JSON") from None
    if not isinstance(secrets, dict) or not all(isinstance(v, str) for v in secrets.values()):
        raise SecretsRefused(f"{where}: no object of names and texts")
    return secrets


def redactor_of(path: Path) -> Redactor:
    """What hides the secrets of a run; where its file is absent or not ours, nothing.

    Whoever cannot read the file cannot read the logs either: both are for their owner alone.
    """
    try:
        about = os.lstat(path)
    except OSError:
        return NOTHING
    return _redactor_of(path, about.st_mtime_ns, about.st_size, about.st_ino)


@lru_cache(maxsize=64)
def _redactor_of(path: Path, *version: int) -> Redactor:
    try:
        return Redactor(secrets_in(path).values())
    except SecretsRefused:
        return NOTHING


def redactor_in(environ: Mapping[str, str]) -> Redactor:
    """What hides the secrets that stand in an environment, by `CLUSTERLM_SECRET_NAMES`."""
    names = environ.get(SECRET_NAMES, "").split(",")
    return Redactor(environ.get(name, "") for name in names)


def black_out(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the values of the secrets in `environ`."""
    return redactor_in(environ)(text)


def printable_argv(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """`argv` to be written to a log: no secret values, nothing after `--hf-token` and the like."""
    shown: list[str] = []
    hide, hide_next = redactor_in(environ), False
    for argument in argv:
        option, equals, _ = argument.partition("=")
        is_secret = bool(_SECRET_OPTION.match(option))
        if hide_next and not argument.startswith("-"):
            shown.append(BLACK)
        elif is_secret and equals:
            shown.append(f"{option}={BLACK}")
        else:
            shown.append(hide(argument))
        hide_next = is_secret and not equals
    return shown
