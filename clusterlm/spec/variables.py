"""Environment variables in a job.yaml: whose names are taken, and what looks like a secret."""

from __future__ import annotations

import re

LAUNCHER_NAME = (
    r"(CLUSTERLM|SLURM)_.*|RANK|LOCAL_RANK|GROUP_RANK"
    r"|WORLD_SIZE|LOCAL_WORLD_SIZE|MASTER_ADDR|MASTER_PORT"
)
BASE_NAME = (
    r"PATH|LD_LIBRARY_PATH|HOME|PYTHON(HOME|PATH|USERBASE|STARTUP)|BASH_ENV|ENV"
    # bash's own: some cannot be set again, and others end every script
    r"|BASH.*|SHELLOPTS|PPID|UID|EUID|GROUPS|OPTIND|OPTARG|IFS|PS4|POSIXLY_CORRECT"
    r"|PIP_(CONSTRAINT|TARGET|PREFIX|ROOT|USER|NO_DEPS|REQUIREMENT)"
)
"""What an image cannot do without, or what would lead pip around the guard of torch."""
SECRET_NAME = (
    r"(?i)(.*_)?(TOKEN|API_KEY|APIKEY|SECRET|SECRET_KEY|SECRET_ACCESS_KEY|PASSWORD|PASSWD)"
)
# what tokens look like: with the sign of their issuer, or (where a name should be) long and random
TOKEN = r"(hf_|ghp_|gho_|github_pat_|glpat-|sk-|xox[bp]-)\S{16,}"
RANDOM = r"[0-9a-f]{32,}|[A-Za-z0-9]{40,}"
URL_WITH_PASSWORD = r".*://[^/@\s:]*:[^/@\s]+@.*"


def is_launchers(name: str) -> bool:
    """Names that clusterlm, torchrun or Slurm give to a rank are theirs."""
    return re.fullmatch(LAUNCHER_NAME, name) is not None


def is_bases(name: str) -> bool:
    """Names whose value in an image is the base's, or the build's."""
    return re.fullmatch(BASE_NAME, name) is not None


def holds_secret(name: str, value: str) -> bool:
    """Whether a variable looks as if its value should not be written down."""
    if re.fullmatch(SECRET_NAME, name):
        return True
    return re.fullmatch(f"{TOKEN}|{URL_WITH_PASSWORD}", value) is not None


def is_secret_itself(name: str) -> bool:
    """Whether what stands where a name belongs is the secret's value."""
    return re.fullmatch(f"{TOKEN}|{RANDOM}", name) is not None
