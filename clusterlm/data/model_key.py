"""Which resized model a job needs: a hash over all that changes it, and nothing else.

In it: the content of the model's files (remembered by size and times, as that of sources is), the
tokenizer of the data, how new rows begin, the seed where they are random. What comes from the hub
counts by name and revision. Light: the login node asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clusterlm.data.fingerprint import Parts, hash_of
from clusterlm.data.hashes import HashMemo
from clusterlm.data.looks.cache_names import tokenizer_key
from clusterlm.errors import DataError
from clusterlm.paths import cache_dir
from clusterlm.spec.job import Job

RULES = 1
"""Raise it when the same model and tokenizer would give other rows than before."""

CONTENT = (".safetensors", ".safetensors.index.json", ".py")
CONFIGS = ("config.json", "generation_config.json", "tokenizer.json")


def model_key(job: Job, parts: Parts | None) -> str | None:
    """The key of the resized model; None when the job needs none.

    Args:
        job: the job, its paths absolute.
        parts: what `describe` gave for its data.

    Raises:
        DataError: the model's folder is not there.
    """
    model = job.model
    if parts is None or model is None or model.name is None or job.train.command is not None:
        return None
    if model.vocab.mode != "resize":
        return None
    key: dict[str, Any] = {
        "rules": RULES,
        "model": _content_of(model.name, model.revision),
        "tokenizer": tokenizer_key(parts),
        "new_rows": model.vocab.new_rows,
        "multiple_of": model.vocab.multiple_of,
        "seed": job.train.seed if model.vocab.new_rows == "random" else None,
    }
    return hash_of(key)


def _content_of(name: str, revision: str | None) -> Any:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.is_absolute():
            raise DataError(f"model.name: the folder {folder} does not exist")
        return f"{name}@{revision or 'main'}"
    memo = HashMemo(cache_dir() / ".hashes.json")
    wanted = [p for p in sorted(folder.iterdir()) if _counts(p)]
    found = {path.name: memo.hash_of(path) for path in wanted}
    memo.save()
    return found


def _counts(path: Path) -> bool:
    return path.is_file() and (path.name in CONFIGS or path.name.endswith(CONTENT))
