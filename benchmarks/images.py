"""How long an image takes: built, built again, built after a change, found; on a stand-in base."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.pairs import print_table, time_in_turn
from tests.bed import bases
from tests.bed.docker import find_client, started

ROUNDS = 7


def main() -> None:
    """Print the table."""
    client = find_client()
    assert client, "no docker client: make bed"
    with started(client) as docker, tempfile.TemporaryDirectory() as folder:
        base = bases.train_base()
        docker.add_base(base)
        # what earlier sessions have built would make the first time look short
        docker.run("builder", "prune", "--all", "--force")
        home = Path(folder)
        image = {"base": base.tag, "wheelhouse": str(bases.wheelhouse()), "runtime": "docker"}
        job = {"name": "bench", "image": image, "train": {"command": ["/bin/true"]}}
        plain, more = home / "job.yaml", home / "more.yaml"
        plain.write_text(yaml.safe_dump(job))
        more.write_text(yaml.safe_dump({**job, "image": {**image, "env": {"A": "1"}}}))
        folders = {"CLUSTERLM_IMAGES_DIR": str(home / "images")}
        env = {**os.environ, **docker.env, **folders, "CLUSTERLM_RUNS_DIR": str(home / "runs")}
        clusterlm = [sys.executable, "-m", "clusterlm", "build-image"]

        print("\nAn image with the whole training stack, from a folder of wheels")
        for name, argv in (
            ("clusterlm build-image, first time", [*clusterlm, str(plain)]),
            ("clusterlm build-image, image.env changed", [*clusterlm, str(more)]),
        ):
            began = time.perf_counter()
            subprocess.run(argv, env=env, check=True, capture_output=True)
            print(f"  {name:<44}{time.perf_counter() - began:>10.1f} s")

        context = next((home / "images/build").iterdir())
        cached = [str(client), "build", "--quiet", "--network", "host", str(context)]
        commands = {"docker build, every layer cached": cached}
        commands["clusterlm build-image, nothing to do"] = [*clusterlm, str(plain)]
        rows = time_in_turn(commands, rounds=ROUNDS, env=env)
        goal = "about a second"
        print_table("The same image once more", rows, base=rows[0], goal=goal)


if __name__ == "__main__":
    main()
