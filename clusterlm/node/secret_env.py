"""Secrets: from a file of mode 0600 into the environment of the child, and nowhere else.

Not into argv, logs, heartbeats or exit records. `CLUSTERLM_SECRET_NAMES` tells the rank parent
which values to black out in what it writes down; values shorter than 6 characters are left alone,
as blacking out "1" would garble every line and hide nothing.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

SECRETS_FILE = "CLUSTERLM_SECRETS_FILE"
SECRET_NAMES = "CLUSTERLM_SECRET_NAMES"
BLACK = "***"
MIN_SECRET_LENGTH = 6

_SECRET_OPTION = re.compile(
    r"(?i)^--?[\w-]*(?:token(?![a-z])|secret|passw(?:or)?d|api[-_]?key)[\w-]*$"
)


class SecretsRefused(Exception):
    """The secrets file is absent, readable by others, or no object of names and texts."""


def read_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The secrets of the file that `CLUSTERLM_SECRETS_FILE` names; {} when it names none.

    Raises:
        SecretsRefused: says what is wrong with the file, never what is in it.
    """
    if not environ.get(SECRETS_FILE):
        return {}
    path = Path(environ[SECRETS_FILE])
    try:
        with path.open(encoding="utf-8") as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
            if mode & 0o077:
                raise SecretsRefused(f"{path}: mode {mode:04o}, others can read it; chmod 600")
            secrets = json.load(handle)
    except OSError as error:
        raise SecretsRefused(f"{path}: {error.strerror}") from error
    except ValueError:
        # the text of a JSON error quotes what it read
        raise SecretsRefused(f"{path}: no JSON") from None
    if not isinstance(secrets, dict) or not all(isinstance(v, str) for v in secrets.values()):
        raise SecretsRefused(f"{path}: no object of names and texts")
    return secrets


def black_out(text: str, environ: Mapping[str, str]) -> str:
    """`text` without the values of the secrets in `environ`."""
    names = environ.get(SECRET_NAMES, "").split(",")
    values = {environ.get(name, "") for name in names}
    # the longest first: one secret may be the beginning of another
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= MIN_SECRET_LENGTH:
            text = text.replace(value, BLACK)
    return text


def printable_argv(argv: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """`argv` to be written to a log: no secret values, nothing after `--hf-token` and the like."""
    shown: list[str] = []
    hide_next = False
    for argument in argv:
        option, equals, _ = argument.partition("=")
        is_secret = bool(_SECRET_OPTION.match(option))
        if hide_next and not argument.startswith("-"):
            shown.append(BLACK)
        elif is_secret and equals:
            shown.append(f"{option}={BLACK}")
        else:
            shown.append(black_out(argument, environ))
        hide_next = is_secret and not equals
    return shown
