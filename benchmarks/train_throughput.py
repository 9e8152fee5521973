"""Useful tokens a second of a training: clusterlm against TRL and a plain Trainer, side by side.

    make bench-train
    .venv/bin/python -m benchmarks.train_throughput --seconds 5 --rounds 1        a smoke run

Useful tokens are those with a label: no padding, no prompts. All sides train the same model with
the same optimizer on the same documents; each has a process of its own and trains when it is its
turn (`training/turns.py`), so start-up and warm-up count nowhere and a noisy machine hits all of
them alike. Told is the median of the ratios, turn by turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.folder import BENCH, ROOT
from benchmarks.page import Page
from benchmarks.training.documents import BLOCK, PACKINGS, VOCAB, prepare
from benchmarks.training.turns import MARK

TRL = "trl==1.16.0"
OURS, BEST_RIVAL = "clusterlm", "trl"
CHAT_SIDES = (OURS, BEST_RIVAL, "padded", "padded-max")
TEXT_SIDES = (OURS, BEST_RIVAL, "grouped")
GOALS = {"trl": 1.15, "padded-max": 3.0}
VERSIONS = ("torch", "transformers", "accelerate", "trl", "liger-kernel", "flash-attn")

SMALL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "max_position_embeddings": BLOCK,
    "vocab_size": VOCAB,
}
LLAMA_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
    "vocab_size": 128256,
}
LLAMA_8B = LLAMA_1B | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "tie_word_embeddings": False,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model on a kind of documents, as the sides read it."""

    name: str
    kind: str
    shape: dict[str, Any]
    sides: tuple[str, ...]
    model: str = ""
    folder: str = ""
    block: int = BLOCK
    batch: int = 4
    precision: str = "fp32"
    lora: int = 0
    gpu: bool = False
    liger: bool = False
    attention: str = ""


def main() -> None:
    """Run the cases of this machine; print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--only", nargs="+", help="cases whose names begin so")
    parser.add_argument("--write", action="store_true", help="into benchmarks/results/")
    parser.add_argument("--threads", type=int, help="of each side; default: the cores")
    asked = parser.parse_args()

    os.environ["OMP_NUM_THREADS"] = str(asked.threads or len(os.sched_getaffinity(0)))
    install_rival()
    page = Page()
    tell_machine(page)
    for case in cases():
        if not asked.only or case.name.startswith(tuple(asked.only)):
            run_case(case, page, seconds=asked.seconds, rounds=asked.rounds)
    if not has_gpu():
        page.line("\nno GPU here: the 8B-shaped adapter and the 1B-shaped model were left out")
    if asked.write:
        today = datetime.date.today().isoformat()
        page.write(ROOT / f"benchmarks/results/{today}-train.md", "Training")


def cases() -> Iterator[Case]:
    """The small model on the CPU, or the large ones on a GPU."""
    if not has_gpu():
        yield Case("small, chat", "chat", SMALL, CHAT_SIDES)
        yield Case("small, text", "text", SMALL, TEXT_SIDES)
        return
    on_gpu: dict[str, Any] = {
        "precision": "bf16",
        "gpu": True,
        "block": 4096,
        "batch": 2,
        "liger": installed("liger_kernel"),
        "attention": "flash_attention_2" if installed("flash_attn") else "",
    }
    yield Case("8B, LoRA, chat", "chat", LLAMA_8B, CHAT_SIDES[:3], lora=16, **on_gpu)
    yield Case("8B, LoRA, text", "text", LLAMA_8B, TEXT_SIDES, lora=16, **on_gpu)
    yield Case("1B, full, text", "text", LLAMA_1B, TEXT_SIDES, **on_gpu)


def run_case(case: Case, page: Page, *, seconds: float, rounds: int) -> None:
    """All sides of a case in turn, and their table."""
    packing = PACKINGS[case.kind]
    case = dataclasses.replace(case, model=str(make_model(case)))
    prepare(case.kind, packing, case.block)
    found: dict[str, list[dict[str, float]]] = {side: [] for side in case.sides}
    # two models of 8B do not fit on one GPU: there each side takes all its turns alone
    groups: Sequence[Sequence[str]] = [[s] for s in case.sides] if case.gpu else [case.sides]
    for group in groups:
        with ExitStack() as stack:
            processes = {side: stack.enter_context(started(case, side)) for side in group}
            # the first turn warms up
            for round_ in range(rounds + 1):
                for side, process in processes.items():
                    turn = take_turn(process, seconds)
                    if round_:
                        found[side].append(turn)
    page.table(
        f"{case.name}: blocks of {case.block}, {case.batch} a step, {case.precision}, "
        f"{rounds} turns of {seconds:g} s",
        ("side", "useful tok/s", "all tok/s", "useful %", "steps/s", "ours is x", "goal"),
        [row_of(side, turns, found[OURS]) for side, turns in found.items()],
    )


def row_of(side: str, turns: list[dict[str, float]], ours: list[dict[str, float]]) -> list[str]:
    """A line of the table; the ratio is the median of those of each round."""
    ratio = statistics.median(
        rate(mine, "useful") / rate(theirs, "useful")
        for mine, theirs in zip(ours, turns, strict=True)
    )
    useful, places, steps = (
        statistics.median(rate(turn, name) for turn in turns)
        for name in ("useful", "places", "steps")
    )
    goal = f"{GOALS[side]:g}" if side in GOALS else ""
    share = f"{100 * useful / places:.0f}"
    return [side, f"{useful:,.0f}", f"{places:,.0f}", share, f"{steps:.2f}", f"{ratio:.2f}", goal]


def rate(turn: dict[str, float], name: str) -> float:
    """Of what a turn counts, a second."""
    return turn[name] / turn["seconds"]


@contextmanager
def started(case: Case, side: str) -> Iterator[subprocess.Popen[str]]:
    """A side that has done its first step and waits for its turn."""
    folder = BENCH / "train/runs" / f"{case.name}-{side}".replace(" ", "").replace(",", "-")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "case.json"
    file.write_text(json.dumps(dataclasses.asdict(case) | {"folder": str(folder)}))
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCH / 'train/rivals'}",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.training.side", str(file), side],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )
    try:
        read_turn(process, folder / "log.txt")
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def take_turn(process: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    """Let a side train for so long; what it has done."""
    assert process.stdin is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return read_turn(process, None)


def read_turn(process: subprocess.Popen[str], log: Path | None) -> dict[str, float]:
    """The next line about a turn; other lines are passed over."""
    assert process.stdout is not None
    others: list[str] = []
    for line in process.stdout:
        if line.startswith(MARK):
            found: dict[str, float] = json.loads(line.removeprefix(MARK))
            return found
        others.append(line)
    text = log.read_text() if log else ""
    raise RuntimeError(f"a side ended: {''.join(others)[-1000:]}{text[-2000:]}")


def make_model(case: Case) -> Path:
    """A folder with random weights of the shape, made once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    kind = torch.bfloat16 if case.gpu else torch.float32
    folder = BENCH / "train/models" / f"{case.shape['hidden_size']}-{case.precision}"
    if not (folder / "config.json").exists():
        set_seed(0)
        tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
        with torch.device("cuda" if case.gpu else "cpu"):
            model = LlamaForCausalLM(LlamaConfig(**case.shape, **tokens)).to(kind)
        model.save_pretrained(folder)
    return folder


def install_rival() -> None:
    """TRL into a folder of its own; what it stands on is that of the environment that runs this."""
    folder = BENCH / "train/rivals"
    if (folder / f"trl-{TRL.partition('==')[2]}.dist-info").exists():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", folder, TRL], check=True)


def tell_machine(page: Page) -> None:
    """What it ran on, and the versions of what is compared."""
    import torch

    where = torch.cuda.get_device_name() if has_gpu() else f"{len(os.sched_getaffinity(0))} cores"
    page.line(f"{where}, load {os.getloadavg()[0]:.1f} at the start")
    found = {name: version_of(name) for name in VERSIONS}
    page.line(", ".join(f"{name} {version}" for name, version in found.items() if version))
    page.line(f"{os.environ['OMP_NUM_THREADS']} threads a side")
    page.line("useful: tokens with a label. ours is x: median of the ratios, turn by turn.")


def version_of(name: str) -> str | None:
    """Version of an installed package, or of the rival in its folder."""
    if name == "trl":
        return TRL.partition("==")[2]
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


def installed(module: str) -> bool:
    """Whether a module can be imported here."""
    return importlib.util.find_spec(module) is not None


if __name__ == "__main__":
    main()
