"""Where a resized model lies, and whether it may be used.

    <cache>/models/<key>/     a complete folder of a model and its tokenizer; DONE last

The key stands for the weights, the tokenizer of the data, and how new rows begin; `submit` writes
it into the run's lock.json. A model that had rows enough stays as it is: then DONE says so, and
the folder holds nothing else. Light: the login node, the supervisor and each rank ask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clusterlm.errors import WeightsError
from clusterlm.node.files import read_json
from clusterlm.paths import RunPaths, cache_dir
from clusterlm.spec.job import Job

MODELS, DONE = "models", "DONE"
KEY_IN_LOCK = "resized_model"


def model_root(cache: Path, key: str) -> Path:
    """Where the resized model of that key lies, or will."""
    return cache / MODELS / key


def key_of(run: RunPaths) -> str | None:
    """The key that the run was submitted with; None when it needs no resized model."""
    key = (read_json(run.lock) or {}).get(KEY_IN_LOCK)
    return key if isinstance(key, str) else None


def read_done(root: Path) -> dict[str, Any] | None:
    """What DONE says of a model that is whole.

    `rows` before and after, `entries` of the tokenizer, `num_old`: the first id whose row is new,
    `files` with bytes and hash; `as_is` when the model needed nothing.
    """
    done = read_json(root / DONE)
    files = (done or {}).get("files")
    if done is None or not isinstance(files, dict):
        return None
    try:
        is_whole = all((root / n).stat().st_size == f["bytes"] for n, f in files.items())
    except (OSError, KeyError, TypeError):
        return None
    return done if is_whole else None


def why_not_resized(key: str | None, cache: Path | None = None) -> str | None:
    """What is wrong with the resized model of that key; None when it may be used."""
    if key is None:
        return None
    root = model_root(cache or cache_dir(), key)
    if read_done(root) is not None:
        return None
    state = "is damaged" if (root / DONE).exists() else "is not there"
    return f"resized model: {root} {state}; run the preprocess phase again"


def resized_folder(run: RunPaths) -> Path | None:
    """The folder to load in place of `model.name`; None when that stays as it is.

    Raises:
        WeightsError: the run needs one, and it is not there, or not whole.
    """
    key = key_of(run)
    if key is None:
        return None
    if fault := why_not_resized(key):
        raise WeightsError(f"{fault}:  clusterlm resume {run.name}")
    root = model_root(cache_dir(), key)
    return None if (read_done(root) or {}).get("as_is") else root


def with_resized_model(job: Job, run: RunPaths) -> Job:
    """The job as the trainer takes it: its model is the resized one, where there is one."""
    folder = resized_folder(run)
    if folder is None or job.model is None:
        return job
    # sizes were compared when it was made; the type of the section is that of the one it replaces
    vocab = job.model.vocab.model_copy(update={"mode": "keep", "expect": None})
    own = {"name": str(folder), "revision": None, "vocab": vocab}
    return job.model_copy(update={"model": job.model.model_copy(update=own)})
