"""Exit codes that mean something between the rooms; every other code is the program's own."""

from __future__ import annotations

EXIT_USAGE = 2
"""The agent or the rank parent was called wrongly, or refused what it was given."""

EXIT_FENCED = 75
"""A newer attempt holds the LEASE; this process must write no more."""

EXIT_IMAGE = 78
"""This is not the image that the run was made for; its one line on stderr says why."""

EXIT_RESUME = 85
"""Saved because it was asked to stop: no failure, go on from the checkpoint later."""

EXIT_NOT_STARTED = 127
"""The command could not be started; the shell says 127 as well."""

ENDED_WELL = (0, EXIT_RESUME)


def shell_code(returncode: int) -> int:
    """`subprocess` says -9 for a child that SIGKILL ended; a shell, and srun, say 137."""
    return returncode if returncode >= 0 else 128 - returncode
