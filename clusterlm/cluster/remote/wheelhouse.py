"""Wheels for a Python of another machine, fetched by the pip of this one."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError

OLDEST_GLIBC = 17
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class TargetPython:
    """What wheels must fit.

    Attributes:
        version: as in `3.11`.
        platform: as in `linux-x86_64`.
        glibc: its minor version: 28 of 2.28; None when it is another library.
    """

    version: str
    platform: str
    glibc: int | None

    @classmethod
    def of(cls, facts: dict[str, Any]) -> TargetPython:
        """From what that Python says of itself."""
        name, version = facts["libc"]
        minor = re.match(r"2\.(\d+)", version)
        glibc = int(minor[1]) if name == "glibc" and minor else None
        return cls(facts["version"], facts["platform"], glibc)

    @property
    def tags(self) -> list[str]:
        """Platforms that pip accepts wheels of, the newest first.

        # glibc 2.28 on x86_64: manylinux_2_28_x86_64 ... manylinux_2_17_x86_64, linux_x86_64
        """
        machine = self.platform.rpartition("-")[2]
        if self.glibc is None:
            return [f"linux_{machine}"]
        minors = range(self.glibc, OLDEST_GLIBC - 1, -1)
        # the name of 2_17 before the names held numbers
        older = [f"manylinux2014_{machine}", f"linux_{machine}"]
        return [f"manylinux_2_{minor}_{machine}" for minor in minors] + older


@contextmanager
def fetch_wheels(requirements: Sequence[str], target: TargetPython) -> Iterator[Path]:
    """A folder with the wheels of these requirements and of pip itself, for a while.

    Raises:
        ClusterLMError: pip does not find them here either.
    """
    with tempfile.TemporaryDirectory(prefix="clusterlm-wheels-") as folder:
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
        argv += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", folder]
        argv += ["--python-version", target.version, "--implementation", "cp"]
        argv += [word for tag in target.tags for word in ("--platform", tag)]
        try:
            done = subprocess.run(
                [*argv, "pip", *requirements],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ClusterLMError(f"pip download had not ended after {TIMEOUT_S:.0f} s") from None
        if done.returncode:
            words = "\n  ".join(done.stderr.strip().splitlines()[-6:])
            raise ClusterLMError(
                f"wheels for Python {target.version} on {target.platform} cannot be fetched here"
                f"\n  {words}\n  give a folder of them: --wheelhouse DIR"
            )
        yield Path(folder)
