"""What this machine lacks to carry a bed."""

import os
import shutil
import subprocess

from tests.bed.programs import SYSTEM_PATH

PROGRAMS = (
    *("slurmctld", "slurmd", "slurmdbd", "sbatch", "munged"),
    *("mariadbd", "mariadb-install-db", "ip", "nsenter", "unshare"),
)


def find_lack() -> str | None:
    """One sentence that names what is missing and what to do; None if nothing is."""
    if os.geteuid() != 0:
        return "The Slurm bed needs root (network namespaces, mounts): run the tests as root."
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    absent = [program for program in PROGRAMS if not shutil.which(program, path=path)]
    if absent:
        return f"The Slurm bed lacks {', '.join(absent)}: run tests/bed/install.sh as root."
    trial = ["unshare", "--mount", "--net", "--uts", "--propagation", "private", "true"]
    if subprocess.run(trial, capture_output=True).returncode:
        return "The Slurm bed may not make namespaces here: give the container --privileged."
    return None
