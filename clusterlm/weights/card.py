"""README.md of a merged model: what it was made of, so that it can be made again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clusterlm import __version__
from clusterlm.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from clusterlm.weights.merge_job import Merged, MergeJob


def write_card(to: Path, base: Path, job: MergeJob, merged: Merged) -> None:
    """Write README.md into the folder `to`."""
    (to / "README.md").write_text(card_text(base, job, merged), encoding="utf-8")


def card_text(base: Path, job: MergeJob, merged: Merged) -> str:
    """The text of the card."""
    lines = [
        *("---", f"base_model: {_yaml(job.base)}", "library_name: transformers"),
        *("pipeline_tag: text-generation", "tags: [merged, clusterlm]", "---", ""),
        *("# A merged model", ""),
        f"Made by `clusterlm merge` {__version__}: the adapters below were added to the weights of",
        "the base in float32, in this order.",
        *("", "| | | SHA-256 |", "|---|---|---|"),
        f"| base | `{job.base}`{f' at {job.revision}' if job.revision else ''} | |",
        *(f"| | {path.name} | `{_sha256(path)}` |" for path in sorted(base.glob("*.safetensors"))),
    ]
    for number, folder in enumerate(job.adapters, start=1):
        weights = folder / ADAPTER_WEIGHTS
        lines += [
            f"| adapter {number} | {_about(folder)} | |",
            f"| | {weights.name} | `{_sha256(weights)}` |",
        ]
    lines += ["", f"- Tensors changed: {merged.num_changed}"]
    if job.scale != 1.0:
        lines.append(f"- Scale of the low-rank updates: {job.scale}")
    if job.dtype:
        lines.append(f"- Stored as {job.dtype}")
    if merged.is_untied:
        lines.append("- Input and output embedding differ now: `tie_word_embeddings` is false")
    if merged.rows is not None:
        lines.append(f"- Rows of the embedding: {merged.rows}")
    told = merged.comparison.words() if merged.comparison else "not compared (`--no-compare`)"
    lines.append(f"- Against base and adapter: {told}")
    return "\n".join([*lines, ""])


def _about(folder: Path) -> str:
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    kind = "DoRA" if config.get("use_dora") else "LoRA"
    rs = ", rsLoRA" if config.get("use_rslora") else ""
    saved = config.get("modules_to_save")
    whole = f", whole: {', '.join(saved)}" if saved else ""
    return f"`{folder}`: {kind} r={config.get('r')} alpha={config.get('lora_alpha')}{rs}{whole}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _yaml(text: str) -> str:
    # JSON strings are YAML strings
    return json.dumps(text, ensure_ascii=False)
