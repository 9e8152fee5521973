"""Which folders a process works in, when the clusters of this machine have some of their own.

`$CLUSTERLM_RUNS_DIR` and its like win always: the laptop sets them for the clusterlm of a login
node, a person for tests. Else a job's cluster decides (`use_folders`), and who looks at runs
looks in all places.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from clusterlm.paths import runs_dir
from clusterlm.spec.local_folders import local_runs_dirs


def use_folders(folders: Mapping[str, str]) -> None:
    """Make a cluster's folders those of this process, as far as the environment names none."""
    for variable, folder in folders.items():
        # an empty one counts as none, as in `paths.py`
        if not os.environ.get(variable):
            os.environ[variable] = folder


def all_runs_dirs() -> list[Path]:
    """Every folder that may hold runs of this machine, the usual one first."""
    return list(dict.fromkeys([runs_dir(), *local_runs_dirs()]))
