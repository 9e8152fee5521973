"""What this machine has, for `cluster: local` and for images that are built here."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from clusterlm.cluster.host import Host
from clusterlm.spec.probe import ProbedFolder, ProbedMachine

ASK_TIMEOUT_S = 15.0


def machine(host: Host) -> ProbedMachine:
    """This machine, as its programs tell."""
    return ProbedMachine(
        host=socket.gethostname(),
        python=f"{sys.executable} ({platform.python_version()})",
        cpus=len(os.sched_getaffinity(0)),
        mem_mb=_memory_mb(),
        gpus=_gpus(host),
        docker=_docker(host),
        torch=_version_of("torch"),
    )


def folders_here(paths: Iterable[Path]) -> tuple[ProbedFolder, ...]:
    """Room in each folder, or where it would be made."""
    found = []
    for path in dict.fromkeys(paths):
        place = next(p for p in (path, *path.parents) if p.exists())
        try:
            seen = os.statvfs(place)
        except OSError:
            found.append(ProbedFolder(path=str(path)))
            continue
        # some file systems count no files: 0 of 0
        inodes = seen.f_favail if seen.f_files else None
        free = seen.f_bavail * seen.f_frsize
        found.append(ProbedFolder(path=str(path), free_bytes=free, free_inodes=inodes))
    return tuple(found)


def version_here(host: Host, program: str) -> str:
    """Version of `enroot` or `apptainer` on this machine; empty text: not there."""
    if not host.has(program):
        return ""
    argv = [program, "version" if program == "enroot" else "--version"]
    done = host.run(argv, timeout_s=ASK_TIMEOUT_S)
    # apptainer version 1.3.4
    return done.out.split()[-1] if done.is_ok and done.out.split() else ""


def _memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return None


def _gpus(host: Host) -> tuple[str, ...]:
    argv = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = host.run(argv, timeout_s=ASK_TIMEOUT_S)
    return tuple(line.strip() for line in done.out.splitlines() if line.strip() and done.is_ok)


def _docker(host: Host) -> str:
    argv = ["docker", "version", "--format", "{{.Server.Version}}"]
    done = host.run(argv, timeout_s=ASK_TIMEOUT_S)
    return done.out.strip() if done.is_ok else ""


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
