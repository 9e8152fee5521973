"""What a compute node is like: folders, clock, network, programs; one line of JSON on stdout.

Sent to nodes as text, for they may not see the folder where clusterlm lies. Its arguments: a JSON
request, and the names of all nodes of the job.

    {"folders": [{"path": ..., "token": "text of the file in it, or null",
                  "identity": [inode, mtime_ns], "writes": true}], "name": ".clusterlm-doctor-ID"}
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from clusterlm.node.interface import interface_towards

MARK = "CLUSTERLM-NODE "
PART_MARK = "CLUSTERLM-PART "
PIECE = 600
FOLDER_TIMEOUT_S = 40.0
TIMES = 3
_SMALL = b"clusterlm" * 400


def main(request: dict[str, Any], nodes: list[str]) -> None:
    """Look, and print what was seen."""
    seen = {
        "host": socket.gethostname(),
        "time": time.time(),
        "python": f"{sys.executable} ({sys.version.split()[0]})",
        "folders": look_at_folders(request["folders"], request["name"]),
        "interface": _interface(nodes),
        "enroot": _version("enroot", "version"),
        "apptainer": _version("apptainer", "--version") or _version("singularity", "--version"),
        "gpus": _gpus(),
        "cpus": len(os.sched_getaffinity(0)),
        "mem_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
    }
    sys.stdout.write("".join(f"{line}\n" for line in lines_of(seen)))
    sys.stdout.flush()
    # a folder that hangs still holds its thread
    os._exit(0)


def lines_of(seen: dict[str, Any]) -> list[str]:
    """What a node has seen, as lines that srun keeps whole.

    srun passes on at most 1024 bytes of a task at once, and another task's may come between them.
    """
    text = json.dumps(seen)
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    host = seen["host"]
    return [f"{PART_MARK}{host} {n} {len(pieces)} {piece}" for n, piece in enumerate(pieces)]


def look_at_folders(folders: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Each in a thread of its own: a dead file server holds whoever asks it for ever."""
    seen: list[dict[str, Any]] = [{"path": folder["path"]} for folder in folders]
    threads = [
        threading.Thread(target=_look, args=(folder, name, result), daemon=True)
        for folder, result in zip(folders, seen, strict=True)
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + FOLDER_TIMEOUT_S
    for thread, result in zip(threads, seen, strict=True):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            result["error"] = f"no answer in {FOLDER_TIMEOUT_S:.0f} s"
    # a thread that still runs must not change what is printed
    return [dict(result) for result in seen]


def _look(folder: dict[str, Any], name: str, result: dict[str, Any]) -> None:
    path = folder["path"]
    try:
        result["visible"] = _is_same(folder, os.path.join(path, name))
        if not result["visible"]:
            return
        room = os.statvfs(path)
        result["free_bytes"] = room.f_bavail * room.f_frsize
        result["free_inodes"] = room.f_favail if room.f_files else None
        if folder["writes"]:
            result.update(time_saves(path, f"{name}-{socket.gethostname()}"))
    except OSError as error:
        result["error"] = f"{error.strerror or error}"


def _is_same(folder: dict[str, Any], token_file: str) -> bool:
    """The folder of the login node, and not another of that name."""
    try:
        if folder["token"] is None:
            found = os.stat(folder["path"])
            return bool([found.st_ino, found.st_mtime_ns] == folder["identity"])
        # NFS remembers for a while that a name was absent; opening the folder makes it ask
        os.listdir(folder["path"])
        with open(token_file, encoding="utf-8") as handle:
            return bool(handle.read() == folder["token"])
    except (FileNotFoundError, NotADirectoryError):
        return False


def time_saves(path: str, name: str) -> dict[str, Any]:
    """Write, flush and rename a small file a few times.

    `ahead_s`: this clock against the one that stamps files there.
    """
    aside, target = os.path.join(path, f"{name}.part"), os.path.join(path, name)
    took, ahead = [], 0.0
    try:
        for _ in range(TIMES):
            began = time.monotonic()
            with open(aside, "wb") as handle:
                handle.write(_SMALL)
                handle.flush()
                os.fsync(handle.fileno())
            now = time.time()
            os.replace(aside, target)
            took.append(time.monotonic() - began)
            ahead = now - os.stat(target).st_mtime
    except OSError as error:
        return {"writes": False, "error": f"{error.strerror or error}"}
    finally:
        for leftover in (aside, target):
            if os.path.exists(leftover):
                os.unlink(leftover)
    return {"writes": True, "save_s": max(took), "ahead_s": ahead}


def _interface(nodes: list[str]) -> str | None:
    """What carries the route to the first other node."""
    own = os.environ.get("SLURMD_NODENAME", "")
    others = [node for node in nodes if node not in (own, socket.gethostname().split(".")[0])]
    for node in others:
        try:
            address = socket.gethostbyname(node)
        except OSError:
            continue
        return interface_towards(address)
    return None


def _version(program: str, option: str) -> str:
    """Empty text: it is not there."""
    words = _said([program, option]).split() if shutil.which(program) else []
    return words[-1] if words else ""


def _gpus() -> list[str]:
    said = _said(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return [line.strip() for line in said.splitlines() if line.strip()]


def _said(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
