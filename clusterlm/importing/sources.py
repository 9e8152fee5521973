"""Files of other tools -> the draft of a job. Which kind a file is, is seen from what it holds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.importing.command import RunsImpruver, draft_scripts
from clusterlm.importing.deepspeed_json import looks_like_deepspeed, read_deepspeed
from clusterlm.importing.draft import FILL_IN, Draft, run_name
from clusterlm.importing.impruver import draft_impruver, looks_like_impruver
from clusterlm.importing.page import fenced_in, how_to_import
from clusterlm.importing.words import Unreadable
from clusterlm.spec.document import NotYaml, read_document
from clusterlm.spec.text_file import read_text
from clusterlm.spec.wording import printable

ACCEPTED = (
    "accepted: a shell script with a torchrun, deepspeed, accelerate or python command; a DeepSpeed"
    " JSON; an impruver YAML"
)


@dataclass
class Sources:
    """The files of one import, by kind."""

    scripts: list[tuple[Path, str]] = field(default_factory=list)
    deepspeed: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    impruver: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)


def draft_files(paths: list[Path], place: Path | None = None) -> Draft:
    """Draft one job of all files together.

    Args:
        paths: of one training.
        place: folder the job.yaml will lie in; its paths are relative to that, and what the script
            writes for itself goes into `Draft.files`. None: where we are, and nothing is written.

    Raises:
        ClusterLMError: a file is of no kind that is understood, or none says how to train.
    """
    sources = Sources()
    for path in paths:
        _sort_in(path, sources)
    draft = Draft()
    texts: dict[str, str] = {}
    if sources.impruver and (sources.scripts or len(sources.impruver) > 1):
        raise ClusterLMError("an impruver YAML is a whole job: import it by itself")
    if sources.scripts:
        texts = _draft_scripts(sources.scripts, draft)
    for path, values in sources.impruver:
        draft_impruver(values, path.stem, draft)
    if not sources.scripts and not sources.impruver:
        _draft_around_json(sources.deepspeed[0][0], draft)
    _add_deepspeed(sources, texts, draft, place)
    return draft


def _sort_in(path: Path, sources: Sources) -> None:
    text = read_text(path, wanted=ACCEPTED)
    shown = printable(str(path))
    is_yaml = path.suffix in (".yaml", ".yml")
    if path.suffix == ".json" or (text.lstrip()[:1] == "{" and not is_yaml):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ClusterLMError(f"{shown} is no JSON: {error}") from error
        if not looks_like_deepspeed(values):
            raise ClusterLMError(f"{shown} is a JSON, but none of DeepSpeed; {ACCEPTED}")
        sources.deepspeed.append((path, values))
    elif is_yaml:
        try:
            values = read_document(text).values
        except NotYaml as error:
            raise ClusterLMError(f"{shown} is no YAML: {error}") from error
        if not looks_like_impruver(values):
            is_ours = " It looks like a job.yaml already." if "train" in values else ""
            why = f"has no sections `datasets` and `model`, as impruver's have.{is_ours}"
            raise ClusterLMError(f"{shown} {why} {ACCEPTED}")
        sources.impruver.append((path, values))
    elif path.suffix == ".py":
        raise ClusterLMError(f"{shown} is a program; give the script that starts it. {ACCEPTED}")
    elif blocks := fenced_in(text):
        raise ClusterLMError(f"{shown} {how_to_import(blocks)}")
    else:
        sources.scripts.append((path, text))


def _draft_scripts(scripts: list[tuple[Path, str]], draft: Draft) -> dict[str, str]:
    names = ", ".join(printable(path.name) for path, _ in scripts)
    try:
        return draft_scripts(scripts, draft)
    except RunsImpruver as error:
        raise ClusterLMError(
            f"{names} runs impruver; what it trains stands in {error}: clusterlm import {error}"
        ) from error
    except Unreadable as error:
        raise ClusterLMError(f"{names} cannot be read as a shell script: {error}") from error
    except LookupError as error:
        called = f" It calls {error}: give that file too." if str(error) else ""
        raise ClusterLMError(
            f"{names}: there is no command that trains.{called} {ACCEPTED}"
        ) from error


def _draft_around_json(path: Path, draft: Draft) -> None:
    """A DeepSpeed JSON says how ranks share the work, and nothing of model and data."""
    draft.origins.append("a DeepSpeed JSON")
    draft.add("name", run_name(path.stem))
    draft.add("cluster", "local", "this machine; write slurm to train on a cluster")
    draft.ask("resources.gpus_per_node", 8, "write how many GPUs a node has")
    draft.add("resources.time", "1d", "not said; at the limit a run saves, requeues and goes on")
    draft.ask("model.name", FILL_IN, "folder or hub id of the model")
    draft.ask("data.tokenizer.name", FILL_IN, "the model's")
    draft.ask("data.block_size", 1024, "tokens in a training sequence")
    draft.add("data.sources", [{"kind": "text", "path": FILL_IN}])
    draft.comments["data.sources[0].path"] = "CHANGE: where the data lie"
    draft.to_fill_in["data.sources[0].path"] = "where the data lie"


def _add_deepspeed(
    sources: Sources, texts: dict[str, str], draft: Draft, place: Path | None
) -> None:
    """Look into the JSON that the command names, or that was given."""
    named = draft.get("train.deepspeed")
    named = named if isinstance(named, str) else None
    given = {path.name: (path, values) for path, values in sources.deepspeed}
    base = Path(named).name if named else ""
    if named and base not in given and (here := _beside(named, sources)) is not None:
        given[base] = (here[0], here[1])
    if base in given or (given and named is None):
        path, values = given.get(base) or next(iter(given.values()))
        _check_use(named, path, draft)
        name = named if named and os.path.isabs(named) else _seen_from(place or Path.cwd(), path)
        read_deepspeed(values, name, draft, can_be_used=True)
    elif named and base in {Path(name).name for name in texts}:
        text = next(text for name, text in texts.items() if Path(name).name == base)
        _read_written(text, named, draft, may_write=place is not None)
    elif named:
        draft.note(named, "is not beside the script; give it too, to see what it says")
    for name in given.keys() - {base} if named else ():
        draft.note(name, f"is not the JSON that the command names, {named}; left out")


def _read_written(text: str, named: str, draft: Draft, *, may_write: bool) -> None:
    """The JSON that the script itself writes: `cat > ds.json <<EOF`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        draft.note(named, "is written by the script, but is no JSON")
        return
    # the shell fills in $LR when the script runs
    if not may_write or "$" in text or not isinstance(values, dict):
        read_deepspeed(values, named, draft, can_be_used=False)
        return
    name = Path(named).name
    read_deepspeed(values, name, draft, can_be_used=True)
    if draft.get("train.deepspeed") == name:
        draft.files[name] = text.rstrip("\n") + "\n"


def _seen_from(place: Path, path: Path) -> str:
    # the script names it as seen from where it is run; a job.yaml as seen from its own folder
    return os.path.relpath(path, place)


def _beside(named: str, sources: Sources) -> tuple[Path, dict[str, Any]] | None:
    for script, _ in sources.scripts:
        path = script.parent / named
        try:
            values = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if looks_like_deepspeed(values):
            return path, values
    return None


def _check_use(named: str | None, path: Path, draft: Draft) -> None:
    if named is None and draft.get("train.strategy") not in (None, "deepspeed"):
        draft.note(path.name, f"goes with deepspeed; the command has {draft.get('train.strategy')}")
        draft.remove("train.strategy")
