"""`clusterlm fetch` of many small files, through a real sshd on this machine.

Sides, in turn: every file by itself (two round trips each), `fetch`, and tar through ssh, which
checks nothing. On a line with a delay each round trip costs that much more, so the ratio here is
the least that there is.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.pairs import Timed, print_table
from clusterlm.cluster.remote.bootstrap import bootstrap
from clusterlm.cluster.remote.fetch import LOGS, fetch
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.ssh.connect import connect
from clusterlm.cluster.ssh.transfer import fetch_file
from tests.bed.ssh_fixture import SshBed, SshHome
from tests.cluster.remote.conftest import profile_of, seed_packages

FILES, SMALL_BYTES, LARGE_BYTES = 2000, 8000, 256 * 2**20
BY_ITSELF = 20
"""Files that are fetched one by one: the time for all is worked out from theirs."""
ROUNDS = 3


def _make_run(run: Path) -> None:
    random.seed(0)
    for number in range(FILES):
        file = run / "attempts" / f"{number // 100}" / "logs" / f"rank{number % 100}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.randbytes(random.randint(0, 2 * SMALL_BYTES)))
    (run / "attempts" / "large.log").write_bytes(random.randbytes(LARGE_BYTES // 16) * 16)


def _remote(home: SshHome, backend: str, name: str) -> Remote:
    profile = profile_of(host=name, transport=backend)
    transport = connect("there", profile)
    if not (home.bed.folder / "home" / "shared").exists():
        seed_packages(transport, profile)  # type: ignore[arg-type]
    installed = bootstrap(transport, "there", profile, tell=lambda line: None)
    remote = Remote("there", profile, transport, tell=lambda line: None)
    remote.__dict__["installed"] = installed
    return remote


def _sides(remote: Remote, run: Path, out: Path, ssh: list[str]) -> dict[str, Callable[[], float]]:
    small = sorted((run / "attempts").glob("*/logs/*"))[:BY_ITSELF]
    large = run / "attempts" / "large.log"

    def timed(action: Callable[[], object]) -> float:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        began = time.perf_counter()
        action()
        return time.perf_counter() - began

    def one(file: Path) -> None:
        fetch_file(
            remote.transport, str(file), out / file.parts[-3] / file.name, python=sys.executable
        )

    def by_itself() -> float:
        each = timed(lambda: [one(file) for file in small]) / len(small)
        return each * FILES + timed(lambda: one(large))

    def tar() -> None:
        packed = [*ssh, f"tar -C {run} -cf - attempts"]
        with subprocess.Popen(packed, stdout=subprocess.PIPE) as far:
            subprocess.run(["tar", "-C", str(out), "-xf", "-"], stdin=far.stdout, check=True)

    def ours() -> None:
        fetch(remote, "r", str(run), LOGS, out / "logs", tell=lambda line: None)

    return {
        "tar through ssh": lambda: timed(tar),
        "clusterlm fetch": lambda: timed(ours),
        f"file by file (from {BY_ITSELF} of them)": by_itself,
    }


def main() -> None:
    """Print a table for each transport."""
    with tempfile.TemporaryDirectory(prefix="clm-") as text:
        folder = Path(text)
        bed = SshBed(folder / "ssh")
        bed.folder.mkdir()
        home = SshHome(bed, folder)
        os.environ.update(CLUSTERLM_SSH_CONFIG=str(home.config), XDG_RUNTIME_DIR=text)
        os.environ["CLUSTERLM_CONFIG"] = str(folder / "none.yaml")
        run = folder / "run"
        _make_run(run)
        try:
            server = bed.server("plain")
            home.know(server)
            name = home.alias("cluster", server)
            ssh = ["ssh", "-F", str(home.config), name]
            for backend in ("openssh", "paramiko"):
                remote = _remote(home, backend, name)
                sides = _sides(remote, run, folder / "out", ssh)
                walls: dict[str, list[float]] = {side: [] for side in sides}
                for _ in range(ROUNDS):
                    for side, action in sides.items():
                        walls[side].append(action())
                rows = [Timed(side, wall) for side, wall in walls.items()]
                title = f"{FILES} files of {SMALL_BYTES // 1000} kB and one of "
                title += f"{LARGE_BYTES >> 20} MiB, {backend}"
                print_table(title, rows, base=rows[1], goal="file by file: 10 or more")
                remote.transport.close()
        finally:
            home.hang_up()
            bed.stop()


if __name__ == "__main__":
    main()
