"""Start-up: `clusterlm --help` and `check` against importing what they cannot do without."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.pairs import print_table, time_in_turn

QUICKSTART = Path(__file__).parents[1] / "jobs" / "quickstart.yaml"


def main() -> None:
    """Print the table."""
    clusterlm = str(Path(sys.executable).with_name("clusterlm"))
    rows = time_in_turn(
        {
            "import typer, pydantic, yaml": [sys.executable, "-c", "import typer, pydantic, yaml"],
            "the same, pydantic's BaseModel loaded": [
                sys.executable,
                "-c",
                "import typer, yaml; from pydantic import BaseModel, Field",
            ],
            "clusterlm --help": [clusterlm, "--help"],
            "clusterlm check jobs/quickstart.yaml": [clusterlm, "check", str(QUICKSTART)],
        },
        rounds=21,
    )
    print_table("Start-up", rows, base=rows[0], goal="1.6 or less")


if __name__ == "__main__":
    main()
