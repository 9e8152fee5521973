"""From jsonl to blocks: MB/s against what people use today, with the same ids, on two cores.

    make bench-preprocess
    .venv/bin/python -m benchmarks.preprocess --quick      (20 MB, a smoke run)

Every program runs whole, in a process of its own, in turn with the others; page cache warm, output
folder empty. Slow programs get the first 60 MB of the corpus and fast ones all of it, as the tables
say. No time is asserted: machines differ, ratios inside one run are what is told.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import corpus, parts
from benchmarks.cases import Bench
from benchmarks.folder import BENCH, ROOT
from benchmarks.own_venv import own_python, versions_of
from benchmarks.page import Page

PROCESSES = 2


@dataclass(frozen=True)
class Size:
    """How much a run takes on."""

    whole: Path
    slow: Path
    growth: list[Path]
    tokenizers: list[str]
    rounds: int
    conversations: int


def main() -> None:
    """Run the parts that are asked for; print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 MB, one tokenizer, one round")
    parser.add_argument("--rounds", type=int, help="how often each program runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts")
    parser.add_argument("--tokenizers", nargs="+", choices=["gpt2", "llama3", "qwen3"])
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/")
    asked = parser.parse_args()

    python = own_python()
    about = corpus.build_corpus(quick=asked.quick)
    tokenizers = BENCH / "tokenizers"
    subprocess.run([python, "-m", "benchmarks.tokenizers_real", tokenizers], cwd=ROOT, check=True)
    size = _size(asked, about)
    page = Page()
    _tell_what_is_run(page, about, versions_of(python))
    bench = Bench(page, python, tokenizers, PROCESSES)
    for name in asked.only or PARTS:
        PARTS[name](bench, size)
    if asked.write:
        today = datetime.date.today().isoformat()
        page.write(ROOT / f"benchmarks/results/{today}-preprocess.md", "Preprocessing")


def _size(asked: argparse.Namespace, about: dict[str, Any]) -> Size:
    whole = Path(about["path"])
    if asked.quick:
        tokenizers = asked.tokenizers or ["gpt2"]
        few = [corpus.first_megabytes(whole, n) for n in (2, 8)]
        return Size(whole, whole, [*few, whole], tokenizers, asked.rounds or 1, 500)
    tokenizers = asked.tokenizers or ["gpt2", "llama3", "qwen3"]
    fifteen, sixty = (corpus.first_megabytes(whole, n) for n in (15, 60))
    return Size(whole, sixty, [fifteen, sixty, whole], tokenizers, asked.rounds or 2, 8_000)


def _tell_what_is_run(page: Page, about: dict[str, Any], versions: dict[str, str]) -> None:
    kinds = ", ".join(f"{kind} {size / 1e6:.0f}" for kind, size in about["bytes_of_kind"].items())
    at = {name: f"{size / 1e3:.1f} K" for name, size in about["document_bytes"].items()}
    cores = len(os.sched_getaffinity(0))
    page.line(f"{_processor()}, {cores} cores here, {PROCESSES} used unless said otherwise")
    page.line(", ".join(f"{name} {version}" for name, version in versions.items()))
    page.line(
        f"corpus: {about['jsonl_bytes'] / 1e6:.0f} MB jsonl of real text, {about['documents']}"
        f" documents ({kinds} MB); bytes a document: "
        + ", ".join(f"{name} {size}" for name, size in at.items())
        + f"; {about['share_in_documents_over_100_kB']:.0%} in documents over 100 kB,"
        f" {about['documents_over_1_MB']} documents over 1 MB; sha256 {about['sha256'][:16]}"
    )
    if about["missing"]:
        missing = ", ".join(about["missing"])
        page.line(f"packages not to be had, the machine's own documentation instead: {missing}")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def _throughput(bench: Bench, size: Size) -> None:
    rates = []
    for tokenizer in size.tokenizers:
        rates.append(parts.throughput(bench, tokenizer, size.slow, size.whole, size.rounds))
    parts.over_all(bench, rates)


def _second_run(bench: Bench, size: Size) -> None:
    parts.second_run(bench, size.tokenizers[-1], size.growth[0], max(3, size.rounds))


def _growth(bench: Bench, size: Size) -> None:
    parts.growth(bench, size.tokenizers[0], size.growth, size.rounds)
    parts.workers(bench, size.tokenizers[0], size.whole, size.rounds)


def _chat(bench: Bench, size: Size) -> None:
    parts.chat(bench, size.whole, size.conversations, size.rounds)


PARTS: dict[str, Callable[[Bench, Size], None]] = {
    "throughput": _throughput,
    "second-run": _second_run,
    "growth": _growth,
    "chat": _chat,
}

if __name__ == "__main__":
    main()
