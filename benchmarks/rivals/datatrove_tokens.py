"""datatrove's DocumentTokenizer on its local executor, one task for each part of the corpus."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

from benchmarks.rivals.common import Task, files_under, run


def prepare(task: Task) -> dict[str, Any]:
    """Tokenize the folder of parts that lies beside the corpus."""
    parts = parts_of(task.corpus, task.processes)
    eos = json.loads((task.tokenizer / "tokenizer_config.json").read_text())["eos_token"]
    tokens = task.out / "tokens"
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(parts), glob_pattern="*.jsonl"),
            DocumentTokenizer(
                output_folder=str(tokens),
                tokenizer_name_or_path=str(task.tokenizer / "tokenizer.json"),
                eos_token=eos,
                shuffle_documents=False,
                save_final_metadata=False,
            ),
        ],
        tasks=task.processes,
        workers=task.processes,
        logging_dir=str(task.out / "logs"),
    ).run()
    written = sum(f.stat().st_size for f in files_under(tokens) if f.suffix == ".ds")
    size = 2 if _vocabulary(task.tokenizer) < 65536 else 4
    shutil.rmtree(task.out / "logs", ignore_errors=True)
    all_bytes = sum(f.stat().st_size for f in files_under(tokens))
    return {"tokens": written // size, "bytes": all_bytes}


def parts_of(corpus: Path, count: int) -> Path:
    """The corpus in `count` files, made once: a task of datatrove takes whole files."""
    folder = corpus.with_name(f"{corpus.stem}-in-{count}")
    if folder.exists():
        return folder
    aside = folder.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    share = -(-corpus.stat().st_size // count)
    with corpus.open("rb") as whole:
        for number in range(count):
            with (aside / f"{number}.jsonl").open("wb") as part:
                part.write(whole.read(share))
                part.write(whole.readline())
    aside.rename(folder)
    return folder


def _vocabulary(tokenizer: Path) -> int:
    spec = json.loads((tokenizer / "tokenizer.json").read_text())
    return len(spec["model"]["vocab"]) + len(spec["added_tokens"])


if __name__ == "__main__":
    run(prepare)
