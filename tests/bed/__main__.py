"""The bed for hand tests: `python -m tests.bed up`, `down` or `shell` (as root).

`up` leaves it running in the background until `down`; `shell` opens a shell in it, and takes it
down at the end if it was not up before.
"""

import argparse
import os
import subprocess
import sys

from tests.bed.config import BedConfig
from tests.bed.slurm import SlurmBed
from tests.bed.versions import RELEASES, build_of
from tests.bed.waiting import BedError


def main() -> int:
    """Exit code 2 with one sentence when the bed cannot do it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bed", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "shell"])
    parser.add_argument("--index", type=int, default=0, help="which bed, 0 to 9")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--no-accounting", action="store_true", help="no MariaDB, no sacct")
    parser.add_argument("--slurm", choices=sorted(RELEASES), help="another version of Slurm")
    asked = parser.parse_args()
    try:
        config = BedConfig(
            asked.index,
            accounting=not asked.no_accounting,
            num_nodes=asked.nodes,
            slurm=build_of(asked.slurm) if asked.slurm else None,
        )
        return COMMANDS[asked.command](SlurmBed(config))
    except BedError as error:
        print(error, file=sys.stderr)
        return 2


def up(bed: SlurmBed) -> int:
    """Start the bed if it is not up, and say how to reach it."""
    if not bed.is_kept:
        bed.start()
        bed.keep()
    print(f"export SLURM_CONF={bed.config.slurm_conf}")
    if bed.config.slurm:
        print(f"export PATH={bed.config.slurm.programs}:$PATH")
    return 0


def down(bed: SlurmBed) -> int:
    """Take the bed down; fine if it is not up."""
    bed.claim()
    bed.stop()
    return 0


def shell(bed: SlurmBed) -> int:
    """Open a shell that finds the cluster."""
    argv = [os.environ.get("SHELL", "/bin/bash")]
    if bed.is_kept:
        return subprocess.run(argv, env=bed.env()).returncode
    with bed:
        return subprocess.run(argv, env=bed.env()).returncode


COMMANDS = {"up": up, "down": down, "shell": shell}

if __name__ == "__main__":
    sys.exit(main())
