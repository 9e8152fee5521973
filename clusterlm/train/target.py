"""What a person means by TARGET after a training: `merge`, `chat`, `eval` and `export` share it.

    quickstart                     a run: its model, or while it trains its newest checkpoint
    job.yaml                       the newest run of that job
    runs/quickstart                the folder of a run
    .../checkpoints/checkpoint-50  one checkpoint
    .../model, an adapter, a merged model      a folder with adapter_config.json or config.json
    owner/name                     a model of the hub

Only names and small JSON files are read; nothing heavy is imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clusterlm.errors import TrainError
from clusterlm.node.files import read_json
from clusterlm.node.seal import newest_verified
from clusterlm.paths import CachePaths, RunPaths, runs_dir
from clusterlm.spec.job import Job
from clusterlm.spec.local_folders import local_runs_dirs
from clusterlm.weights.files import ADAPTER_CONFIG

ACCEPTED = (
    "accepted are the name or folder of a run, a job.yaml, a checkpoint, a folder with an adapter "
    "(adapter_config.json) or a model (config.json), and a hub id such as owner/name"
)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Target:
    """What is to be loaded.

    Attributes:
        words: for people: what was found.
        model: folder or hub id of whole weights; the base, where there is an adapter.
        adapter: folder of an adapter over it.
        revision: of a model on the hub.
        tokenizer: folder or hub id.
        run: that it comes from, when it comes from one.
        job: what that run was asked for; None when it is of another version.
        trust_remote_code: Python code of the model may run: its job says so.
    """

    words: str
    model: str
    tokenizer: str
    adapter: Path | None = None
    revision: str | None = None
    run: RunPaths | None = None
    job: Job | None = None
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """Where it lies on this machine; None for a model of the hub."""
        if self.adapter is not None:
            return self.adapter
        return Path(self.model) if Path(self.model).is_dir() else None

    @property
    def name(self) -> str:
        """One word for it, such as a file may be called."""
        if self.run is not None:
            return self.run.name
        return self.folder.absolute().name if self.folder else self.model.rpartition("/")[2]


def find_target(text: str, *, base: str | None = None) -> Target:
    """What is meant by `text`.

    Args:
        text: as a person typed it.
        base: the model under an adapter, in place of the one that the adapter names.

    Raises:
        TrainError: nothing is, or it holds no model (yet).
        SpecError: a job.yaml with mistakes.
    """
    if not text.strip():
        raise TrainError(f"TARGET is empty; {ACCEPTED}")
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _of_run(_newest_run(path), base)
    if path.is_dir():
        return _of_folder(path.absolute(), base)
    if path.is_file():
        raise TrainError(f"{text} is a file; {ACCEPTED}")
    if text and text not in (".", "..") and "/" not in text:
        for folder in _runs_dirs():
            if _is_run(folder / text):
                return _of_run(RunPaths(folder / text), base)
    return _of_hub(text, path, base)


def data_folder(run: RunPaths) -> Path | None:
    """The prepared data of a run; None when it has none."""
    lock = read_json(run.lock) or {}
    fingerprint = lock.get("fingerprint")
    if not isinstance(fingerprint, str):
        return None
    # where it was prepared; a person may have set another cache folder since
    own = Path(str(lock.get("cache_dir") or "")) / fingerprint
    return own if own.is_dir() else CachePaths.of(fingerprint).root


def job_of(run: RunPaths) -> Job | None:
    """What a run was asked for; None when it is of another version of clusterlm."""
    try:
        return Job.model_validate_json(run.spec.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def _runs_dirs() -> list[Path]:
    return list(dict.fromkeys([runs_dir(), *local_runs_dirs()]))


def _is_run(folder: Path) -> bool:
    return (folder / "spec.json").is_file()


def _newest_run(path: Path) -> RunPaths:
    from clusterlm.spec.load import load_job

    name = load_job(path).job.name
    pattern = re.compile(rf"{re.escape(name)}(-\d+)?")
    specs = [spec for folder in _runs_dirs() for spec in folder.glob("*/spec.json")]
    folders = [spec.parent for spec in specs if pattern.fullmatch(spec.parent.name)]
    if not folders:
        raise TrainError(f"{path}: no run of {name} yet in {runs_dir()}: clusterlm submit {path}")
    return RunPaths(max(folders, key=lambda folder: (folder / "spec.json").stat().st_mtime))


def _of_run(run: RunPaths, base: str | None) -> Target:
    job = job_of(run)
    if _holds_model(run.model):
        return _of_model_folder(run.model, base, f"run {run.name}", run, job)
    survey = newest_verified(run.checkpoints, full=False)
    if survey.newest is None:
        raise TrainError(
            f"run {run.name} has neither a model nor a whole checkpoint yet\n"
            f"  how far it is: clusterlm status {run.name}"
        )
    words = f"run {run.name}, {survey.newest.name} (its model is not saved yet)"
    return _of_model_folder(survey.newest, base, words, run, job)


def _of_folder(folder: Path, base: str | None) -> Target:
    if _is_run(folder):
        return _of_run(RunPaths(folder), base)
    # <run>/model and <run>/checkpoints/checkpoint-50
    for root in (folder.parent, folder.parent.parent):
        if _is_run(root):
            run = RunPaths(root)
            words = f"run {run.name}, {folder.name}"
            return _of_model_folder(folder, base, words, run, job_of(run))
    return _of_model_folder(folder, base, str(folder), None, None)


def _of_model_folder(
    folder: Path, base: str | None, words: str, run: RunPaths | None, job: Job | None
) -> Target:
    if not _holds_model(folder):
        raise TrainError(f"{folder} {_what_it_holds(folder)}; {ACCEPTED}")
    trusted = _brings_own_code(job)
    if not (folder / ADAPTER_CONFIG).is_file():
        _refuse_base(words, base)
        tokenizer = _tokenizer(folder, run, str(folder))
        return Target(words, str(folder), tokenizer, None, None, run, job, trusted)
    model, revision = _base_of(folder, base, job)
    tokenizer = _tokenizer(folder, run, model)
    words = f"{words}: adapter over {model}"
    return Target(words, model, tokenizer, folder, revision, run, job, trusted)


def _of_hub(text: str, path: Path, base: str | None) -> Target:
    is_path = path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1
    if is_path or not _HUB_ID.fullmatch(text):
        raise TrainError(f"{text!r} is not there; {ACCEPTED}")
    if "/" not in text:
        specs = [spec for folder in _runs_dirs() for spec in sorted(folder.glob("*/spec.json"))]
        names = [spec.parent.name for spec in specs]
        # a run that is nearly so called was meant, whatever the hub has
        if near := get_close_matches(text, names, n=1):
            raise TrainError(f"no run {text!r} in {runs_dir()}; did you mean {near[0]}?")
        if not _is_in_hub_cache(text):
            raise TrainError(f"no run {text!r} in {runs_dir()}; {ACCEPTED}")
    _refuse_base(text, base)
    return Target(f"{text} of the hub", text, text)


def _is_in_hub_cache(text: str) -> bool:
    # an old model without an owner, such as gpt2; most single words are names of runs
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(text, "config.json"), str)


def _holds_model(folder: Path) -> bool:
    has_config = (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file()
    return has_config and any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _what_it_holds(folder: Path) -> str:
    if not folder.is_dir():
        return "is not there"
    names = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if "config.json" in names or ADAPTER_CONFIG in names:
        return "has a config but no weights (*.safetensors)"
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f"holds no model, but {shown}" if names else "is empty"


def _base_of(folder: Path, base: str | None, job: Job | None) -> tuple[str, str | None]:
    config: dict[str, Any] = read_json(folder / ADAPTER_CONFIG) or {}
    asked = job.model if job else None
    named = base or config.get("base_model_name_or_path") or (asked.name if asked else None)
    if not named:
        raise TrainError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; give --base NAME"
        )
    path = Path(str(named)).expanduser()
    if path.is_dir():
        if (path / ADAPTER_CONFIG).is_file():
            raise TrainError(
                f"the base {path} is itself an adapter; merge it first, then name that"
            )
        return str(path.absolute()), None
    if path.is_absolute() or str(named).startswith((".", "~")) or str(named).count("/") > 1:
        where = "--base" if base else f"the base of {folder.name}"
        raise TrainError(f"{where}: {named} is not there; name the model it was trained on: --base")
    is_of_job = asked is not None and asked.name == named
    revision = config.get("revision") or (asked.revision if asked and is_of_job else None)
    return str(named), None if base else revision


def _brings_own_code(job: Job | None) -> bool:
    """Code that may run here, since it did in the training: of the model, or a class of the user's.

    transformers puts a copy of such a class beside the weights.
    """
    asked = job.model if job else None
    if asked is None:
        return False
    own = asked.class_ or (asked.from_scratch.class_ if asked.from_scratch else "")
    return asked.trust_remote_code or ":" in own


def _refuse_base(words: str, base: str | None) -> None:
    if base:
        raise TrainError(f"--base {base}: {words} is a whole model, not an adapter over one")


def _tokenizer(folder: Path, run: RunPaths | None, fallback: str) -> str:
    prepared = data_folder(run) if run else None
    candidates = [folder, *([prepared / "tokenizer"] if prepared else [])]
    for place in candidates:
        if any((place / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
            return str(place)
    return fallback
