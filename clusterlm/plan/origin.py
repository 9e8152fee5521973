"""Where the shape of a job's model is known from: a config.json, the class, or a number given.

Nothing is downloaded. A model on the hub counts when its config.json is in the local cache. Of a
class of the user's own, which is never run here, the weights that it has saved are counted: those
of its folder, or of a run of the same model that has ended.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clusterlm.errors import ClusterLMError
from clusterlm.plan.families import CLASSES, DEFAULTS
from clusterlm.plan.shape import ModelShape, scratch_config, shape_of, typical_shape
from clusterlm.spec.job import Job
from clusterlm.spec.model import FromScratch, Model
from clusterlm.spec.units import counted

Count = Callable[[Path], int | None]
"""Elements of the weights in a model's folder; None when there are none."""

MORE = "give its size with --parameters 7B, or its config.json with --config FILE"


@dataclass(frozen=True)
class Known:
    """A shape, where it is from, and what about it is only assumed."""

    shape: ModelShape
    origin: str
    notes: tuple[str, ...] = ()


def find_shape(
    job: Job,
    *,
    environ: Mapping[str, str],
    config: Path | None = None,
    parameters: int | None = None,
    may_import: bool = True,
    trained: Path | None = None,
    count_saved: Count | None = None,
) -> Known:
    """The shape of the job's model.

    Args:
        job: with or without a model.
        environ: for the place of the hub's cache.
        config: a config.json to take instead.
        parameters: size of a model of which nothing else is known.
        may_import: transformers may be asked about other models, which takes seconds.
        trained: folder of this model as a run has saved it, which need not be there.
        count_saved: counts such weights, and those of a folder whose type is not known.

    Raises:
        ClusterLMError: it cannot be known; the text says what to give.
    """
    rows = tokenizer_rows(job)
    saved = _Saved(count_saved)
    if config is not None:
        return _from_file(config, job, rows, may_import, saved)
    if parameters is not None:
        note = f"only its size is known: a Llama of {counted(parameters)} parameters is assumed"
        return Known(typical_shape(parameters, vocab=rows or 32000), "--parameters", (note,))
    if job.model is None:
        raise ClusterLMError(f"the job has train.command and no model: {MORE}")
    if job.model.from_scratch is not None:
        return _from_scratch(
            job.model.from_scratch, job, rows, may_import, saved.shape(trained), trained
        )
    return _from_name(job.model, job, environ, rows, may_import, saved)


def tokenizer_rows(job: Job) -> int | None:
    """Entries of the tokenizer, where the spec or a folder tells."""
    if job.data is None:
        return None
    tokenizer = job.data.tokenizer
    rows = tokenizer.train.vocab_size if tokenizer.train else _count_entries(tokenizer.name)
    if rows is not None and tokenizer.extend is not None:
        extend = tokenizer.extend
        rows += extend.learn + len(extend.tokens) + len(extend.special_tokens)
    return rows


def _from_file(path: Path, job: Job, rows: int | None, may_import: bool, saved: _Saved) -> Known:
    config = _read_config(path)
    shape = shape_of(config) or (_ask_transformers(config) if may_import else None)
    shape = shape or saved.shape(path.parent)
    if shape is None:
        kind = config.get("model_type") or config.get("text_config", {}).get("model_type")
        raise ClusterLMError(
            f"{path}: the parameters of a model of type {kind} cannot be counted here; "
            "give its size with --parameters 7B"
        )
    vocab = job.model.vocab if job.model else None
    if vocab is not None and vocab.mode == "resize" and rows:
        shape = replace(shape, vocab=-(-rows // vocab.multiple_of) * vocab.multiple_of)
    return Known(shape, str(path), _notes_on(shape))


def _from_scratch(
    asked: FromScratch,
    job: Job,
    rows: int | None,
    may_import: bool,
    saved: ModelShape | None,
    trained: Path | None,
) -> Known:
    notes = []
    if rows is None and "vocab_size" not in asked.config:
        notes.append("the entries of the tokenizer are not known; the default of the class is used")
    config = scratch_config(asked.class_, asked.config, vocab_size=rows)
    if config is None:
        found = None
        if may_import and "." not in asked.class_ and ":" not in asked.class_:
            found = _ask_transformers(
                {"architectures": [asked.class_], "vocab_size": rows or 32000} | asked.config
            )
        if found is None and saved is not None:
            return Known(saved, f"{asked.class_} as saved in {trained}", _notes_on(saved))
        if found is None:
            raise ClusterLMError(
                f"model.from_scratch.class {asked.class_}: its parameters cannot be counted "
                f"without running it; give its size with --parameters 7B. "
                f"Once a run of this job has ended, its weights are counted.\n"
                f"known are {', '.join(sorted(CLASSES))}"
            )
        return Known(found, asked.class_, (*notes, *_notes_on(found)))
    shape = shape_of(config)
    assert shape is not None
    if shape.learned_positions and job.data:
        extra = (
            shape.learned_positions - 2 if shape.model_type == "opt" else shape.learned_positions
        )
        grown = max(0, job.data.block_size - extra)
        shape = replace(shape, learned_positions=shape.learned_positions + grown)
    return Known(shape, f"{asked.class_} from scratch", tuple(notes))


def _from_name(
    model: Model,
    job: Job,
    environ: Mapping[str, str],
    rows: int | None,
    may_import: bool,
    saved: _Saved,
) -> Known:
    name = model.name or ""
    folder = Path(name).expanduser()
    if (path := folder / "config.json").is_file():
        return _from_file(path, job, rows, may_import, saved)
    if folder.is_absolute():
        raise ClusterLMError(f"model.name: {folder} holds no config.json here; {MORE}")
    cached = _in_hub_cache(name, model.revision, environ)
    if cached is None:
        raise ClusterLMError(
            f"model {name}: its config.json is not in the hub cache of this machine, and nothing "
            f"is downloaded here; `hf download {name} config.json` fetches it, or {MORE}"
        )
    return _from_file(cached, job, rows, may_import, saved)


def _notes_on(shape: ModelShape) -> tuple[str, ...]:
    if shape.model_type in DEFAULTS:
        return ()
    return (f"{shape.model_type}: all parameters counted, activations as of a Llama",)


def _in_hub_cache(name: str, revision: str | None, environ: Mapping[str, str]) -> Path | None:
    home = environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    hub = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    folder = hub / f"models--{name.replace('/', '--')}"
    ref = folder / "refs" / (revision or "main")
    commit = ref.read_text().strip() if ref.is_file() else revision or "*"
    found = sorted(folder.glob(f"snapshots/{commit}/config.json"))
    return found[-1] if found else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClusterLMError(f"{path}: cannot be read as a config.json: {error}") from None
    if not isinstance(config, dict):
        raise ClusterLMError(f"{path}: is no config.json of a model: it must hold one JSON object")
    # a model that also sees keeps its language part in a section
    text = config.get("text_config")
    return text if isinstance(text, dict) and "model_type" in text else config


def _ask_transformers(config: dict[str, Any]) -> ModelShape | None:
    """Count a model on torch's meta device, where transformers is installed and knows it."""
    try:
        import torch
        import transformers
    except ImportError:
        return None
    values = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    name = str((config.get("architectures") or [""])[0])
    model_class: Any = getattr(transformers, name, None)
    config_class: Any = getattr(model_class, "config_class", None)
    if config_class is None:
        mapping: Any = transformers.CONFIG_MAPPING
        kind = config.get("model_type")
        # a lazy mapping, whose get() knows only what was asked for before
        config_class = mapping[kind] if kind in mapping else None  # noqa: SIM401
        model_class = None
    if config_class is None:
        return None
    try:
        made = config_class(**values)
        with torch.device("meta"):
            auto = transformers.AutoModelForCausalLM
            model: Any = model_class(made) if model_class else auto.from_config(made)
    except Exception:  # any code of any model: then it is not known
        return None
    return _of_count(made.to_dict(), sum(p.numel() for p in model.parameters()))


@dataclass(frozen=True)
class _Saved:
    """Models of any class, by the weights and the config.json in their folders."""

    count: Count | None

    def shape(self, folder: Path | None) -> ModelShape | None:
        if self.count is None or folder is None:
            return None
        count = self.count(folder)
        if not count:
            return None
        try:
            return _of_count(_read_config(folder / "config.json"), count) or typical_shape(count)
        except ClusterLMError:
            return typical_shape(count)


def _of_count(config: dict[str, Any], count: int) -> ModelShape | None:
    """Widths by their usual names, and whatever they do not explain beside the layers."""
    shape = shape_of(config | {"model_type": "llama"})
    # a config of other names leaves the width to a default, which explains far too much
    if shape is None or shape.num_parameters > 2 * count:
        return None
    rest = count - shape.num_parameters
    kind = str(config.get("model_type", ""))
    return replace(shape, final_norms=shape.final_norms + rest, model_type=kind)


def _count_entries(name: str | None) -> int | None:
    path = Path(os.path.expanduser(name or "")) / "tokenizer.json"
    if not name or not path.is_file():
        return None
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        vocab = whole["model"]["vocab"]
        ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
        return 1 + int(max([*ids, *(token["id"] for token in whole.get("added_tokens", []))]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
