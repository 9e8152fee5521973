"""Where clusters.yaml is, and which folders of this machine it names; for commands that look.

`status` has to find runs in a twentieth of a second, so neither YAML nor pydantic is imported
where there is no such file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError

CONFIG = "CLUSTERLM_CONFIG"
_FOLDERS = {"RUNS": "runs", "CACHE": "cache", "IMAGES": "images"}


def clusters_file() -> Path:
    """`$CLUSTERLM_CONFIG`, else `clusterlm/clusters.yaml` of the XDG config folder."""
    if os.environ.get(CONFIG):
        return Path(os.environ[CONFIG]).expanduser().absolute()
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base.expanduser().absolute() / "clusterlm" / "clusters.yaml"


def refuse_open_file(path: Path) -> None:
    """Raise when somebody else may write what decides where this clusterlm connects to.

    Raises:
        ClusterLMError: with the command that closes it.
    """
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise ClusterLMError(f"{path} belongs to another user; make a file of your own")
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise ClusterLMError(f"{path} may be written by others; close it with: chmod go-w {path}")


def local_runs_dirs() -> list[Path]:
    """Where runs of this machine's clusters lie, beside the usual place.

    None where `$CLUSTERLM_RUNS_DIR` says where runs are. Never fails: whoever looks at runs must
    see them also while somebody edits clusters.yaml.
    """
    path = clusters_file()
    if os.environ.get("CLUSTERLM_RUNS_DIR") or not path.is_file():
        return []
    found = [Path(f["CLUSTERLM_RUNS_DIR"]) for f in _local_folders() if "CLUSTERLM_RUNS_DIR" in f]
    return list(dict.fromkeys(found))


def folders_beside(runs_dir: Path) -> dict[str, str]:
    """The caches and images of the cluster whose runs lie there; empty when it is nobody's."""
    for folders in _local_folders():
        if folders.get("CLUSTERLM_RUNS_DIR") == str(runs_dir):
            return {key: path for key, path in folders.items() if key != "CLUSTERLM_RUNS_DIR"}
    return {}


def _local_folders() -> list[dict[str, str]]:
    # here, and not `read_clusters`, which costs more and refuses the whole file for one mistake
    from clusterlm.spec.document import CLUSTERS, NotYaml, read_document

    try:
        refuse_open_file(clusters_file())
        values = read_document(clusters_file().read_text("utf-8"), CLUSTERS).values
    except (OSError, ValueError, NotYaml, ClusterLMError):
        return []
    entries = values.get("clusters")
    listed = entries.values() if isinstance(entries, dict) else []
    return [folders_in(entry) for entry in listed if isinstance(entry, dict) and _is_here(entry)]


def _is_here(entry: Mapping[str, Any]) -> bool:
    return entry.get("host") is None


def folders_in(entry: Mapping[str, Any]) -> dict[str, str]:
    """The folders that a profile names, by the variable for which each stands."""
    found, folder = {}, entry.get("folder")
    folder = folder if isinstance(folder, str) else None
    for key, leaf in _FOLDERS.items():
        own = entry.get(f"{leaf}_dir") or (f"{folder}/{leaf}" if folder else None)
        if isinstance(own, str):
            found[f"CLUSTERLM_{key}_DIR"] = str(Path(own).expanduser().absolute())
    return found
