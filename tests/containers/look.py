"""An own script that writes down what it sees: `look.json` in the run directory."""

import json
import os
import sys
from pathlib import Path


def can_write(folder: str) -> bool:
    try:
        file = Path(folder) / f".written-{os.getpid()}"
        file.touch()
        file.unlink()
    except OSError:
        return False
    return True


here = Path(os.environ["CLUSTERLM_RUN_DIR"])
seen = {
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "python": sys.executable,
    "argv": sys.argv[1:],
    "uid": os.getuid(),
    "groups": os.getgroups(),
    "umask": os.umask(0o22),
    "writable": [f for f in ("/", "/opt", "/usr", os.environ["HOME"], str(here)) if can_write(f)],
    "root": sorted(os.listdir("/")),
    "script_is_writable": can_write(str(Path(__file__).parent)),
    "beside": sorted(os.listdir(here.parent)),
}
(here / f"look-{os.environ['RANK']}.json").write_text(json.dumps(seen))
