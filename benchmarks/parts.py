"""The tables of `benchmarks.preprocess`, one function each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import (
    BASE,
    FAST,
    GOALS,
    OURS,
    OURS_SLOW,
    SLOW,
    Bench,
    Case,
    Ratios,
    mb_of,
)
from benchmarks.conversations import conversations_of
from benchmarks.page import Page
from benchmarks.programs import Program


def throughput(
    bench: Bench, tokenizer: str, slow: Path, whole: Path, rounds: int
) -> dict[str, Ratios]:
    """Everything in turn with one tokenizer; how many times faster `ours` is than each."""
    ours, ours_slow = Program(OURS, "ours"), Program(f"{OURS} on {mb_of(slow)}", "ours")
    plan = [(p, slow) for p in (*SLOW, OURS_SLOW, ours_slow)]
    plan += [(p, whole) for p in (*FAST, ours)]
    cases = {program.name: Case(program, path, []) for program, path in plan}
    folder = bench.tokenizers / tokenizer
    for round_ in range(rounds):
        for case in cases.values():
            # what is compared id by id is left there by the last round
            keep = round_ == rounds - 1 and case.program.name in (BASE, ours_slow.name)
            ran = case.program.run(
                bench.python, case.corpus, folder, processes=bench.processes, keep=keep
            )
            case.runs.append(ran)
    _tell_throughput(bench.page, tokenizer, list(cases.values()), cases[BASE])
    _tell_identity(bench, cases[BASE].program, ours_slow, slow, folder)
    best, same = cases[OURS], cases[ours_slow.name]
    return {
        name: Ratios(
            best.ratio_to(cases[name]),
            best.whole_ratio_to(cases[name]),
            same.ratio_to(cases[name]) if cases[name].corpus == same.corpus else None,
        )
        for name in GOALS
    }


def _tell_throughput(page: Page, tokenizer: str, cases: Sequence[Case], base: Case) -> None:
    head = ["", "MB", "MB/s", "min-max", "whole process", "steady", "core s", "x run_clm"]
    head += ["largest MiB", "all MiB", "B/token"]
    rows = []
    for case in cases:
        low, high = min(case.rates), max(case.rates)
        last = case.runs[-1]
        steady = [ran.result.get("steady_mb_s") for ran in case.runs]
        known = [value for value in steady if value]
        rows.append(
            [
                case.program.name,
                f"{case.megabytes:.0f}",
                f"{statistics.median(case.rates):.1f}",
                f"{low:.1f}-{high:.1f}",
                f"{statistics.median(case.whole_rates):.1f}",
                f"{statistics.median(known):.1f}" if known else "",
                f"{statistics.median(ran.core_s for ran in case.runs):.1f}",
                f"{case.ratio_to(base):.1f}",
                f"{max(ran.peak_mib[0] for ran in case.runs):.0f}",
                f"{max(ran.total_mib for ran in case.runs):.0f}",
                f"{last.result['bytes'] / last.result['tokens']:.2f}",
            ]
        )
    title = f"{tokenizer}: jsonl to blocks of 4096, {len(base.runs)} rounds in turn"
    page.table(f"{title}; MB/s without imports, then of the whole process", head, rows)
    told = cases[-1].runs[-1].result.get("told", [])
    for line in told:
        page.line(f"  ours: {line}")


def _tell_identity(bench: Bench, base: Program, ours: Program, slow: Path, folder: Path) -> None:
    found = []
    for program, words in ((base, "run_clm"), (ours, "ours")):
        reader = Program(program.name, "digest", words=[words])
        found.append(reader.run(bench.python, slow, folder, again=True).result)
    same = found[0]["sha256"] == found[1]["sha256"]
    verdict = "the same" if same else "NOT THE SAME"
    bench.page.line(
        f"  ids of run_clm and ours on {mb_of(slow)}: {verdict}; {found[1]['tokens']:,} ids,"
        f" sha256 {found[0]['sha256'][:16]} and {found[1]['sha256'][:16]}"
    )


def over_all(bench: Bench, ratios: Sequence[dict[str, Ratios]]) -> None:
    """Geometric means over the tokenizers, beside the goals."""
    rows = []
    for name, goal in GOALS.items():
        each = [ratio[name] for ratio in ratios]
        same = [ratio.same_text for ratio in each if ratio.same_text]
        rows.append(
            [
                name,
                " ".join(f"{ratio.work:.1f}" for ratio in each),
                f"{statistics.geometric_mean(ratio.work for ratio in each):.1f}",
                f"{goal}",
                f"{statistics.geometric_mean(ratio.whole for ratio in each):.1f}",
                f"{statistics.geometric_mean(same):.1f}" if same else "",
            ]
        )
    head = ["ours is faster than", "by tokenizer", "mean", "goal", "whole processes"]
    title = (
        "How many times faster, geometric means; without imports on both sides, each on its text"
    )
    bench.page.table(title, [*head, "on the rival's text"], rows)


def second_run(bench: Bench, tokenizer: str, corpus: Path, rounds: int) -> None:
    """Prepared before; a fresh process opens it and takes the first batch of eight blocks."""
    folder = bench.tokenizers / tokenizer
    programs = (Program(BASE, "run_clm"), Program(OURS, "ours"))
    for program in programs:
        program.run(bench.python, corpus, folder, processes=bench.processes, keep=True)
    cases = {program.name: Case(program, corpus, []) for program in programs}
    for _ in range(rounds):
        for case in cases.values():
            ran = case.program.run(
                bench.python, corpus, folder, processes=bench.processes, again=True, keep=True
            )
            case.runs.append(ran)
    rows = [
        [
            name,
            f"{statistics.median(ran.wall_s for ran in case.runs):.2f}",
            f"{statistics.median(ran.work_s for ran in case.runs):.3f}",
            f"{max(ran.peak_mib[0] for ran in case.runs):.0f}",
        ]
        for name, case in cases.items()
    ]
    head = ["", "s, whole process", "s, without imports", "largest MiB"]
    title = (
        f"The second run: {mb_of(corpus)} prepared before ({tokenizer}), first batch of 8 blocks"
    )
    bench.page.table(f"{title}   (goal: 0.3 s with imports)", head, rows)


def growth(bench: Bench, tokenizer: str, sizes: Sequence[Path], rounds: int) -> None:
    """The same on more text: what grows, and where the time goes."""
    cases = [Case(Program(OURS, "ours"), path, []) for path in sizes]
    _run_in_turn(bench, tokenizer, cases, rounds)
    _tell_stages(bench, f"{tokenizer}: as the corpus grows", cases, [mb_of(path) for path in sizes])


def workers(bench: Bench, tokenizer: str, corpus: Path, rounds: int) -> None:
    """The same with more workers, each on a core of its own as long as there are cores."""
    counts = [1, 2, 4]
    cases = [Case(Program(OURS, "ours"), corpus, []) for _ in counts]
    for _ in range(rounds):
        for count, case in zip(counts, cases, strict=True):
            folder = bench.tokenizers / tokenizer
            case.runs.append(case.program.run(bench.python, corpus, folder, processes=count))
    names = [f"{count} workers" for count in counts]
    _tell_stages(bench, f"{tokenizer}: as workers grow, on {mb_of(corpus)}", cases, names)


def _run_in_turn(bench: Bench, tokenizer: str, cases: Sequence[Case], rounds: int) -> None:
    for _ in range(rounds):
        for case in cases:
            folder = bench.tokenizers / tokenizer
            ran = case.program.run(bench.python, case.corpus, folder, processes=bench.processes)
            case.runs.append(ran)


def _tell_stages(bench: Bench, title: str, cases: Sequence[Case], names: Sequence[str]) -> None:
    stages = list(dict.fromkeys(s for case in cases for s in case.runs[-1].result["stages"]))
    head = [
        "",
        "MB/s",
        "steady",
        "s, all",
        "core s",
        *(f"s, {s}" for s in stages),
        "largest MiB",
        "all MiB",
    ]
    rows = []
    for name, case in zip(names, cases, strict=True):
        best = min(case.runs, key=lambda ran: ran.wall_s)
        found = [best.result["stages"].get(stage, 0.0) for stage in stages]
        rows.append(
            [
                name,
                f"{case.megabytes / best.work_s:.1f}",
                f"{best.result['steady_mb_s'] or 0:.1f}",
                f"{best.wall_s:.2f}",
                f"{best.core_s:.2f}",
                *(f"{seconds:.2f}" for seconds in found),
                f"{best.peak_mib[0]:.0f}",
                f"{best.total_mib:.0f}",
            ]
        )
    bench.page.table(f"{title}; the best round of {len(cases[0].runs)}", head, rows)
    last = min(cases[-1].runs, key=lambda ran: ran.wall_s)
    spent = sorted(last.result["stages"].items(), key=lambda pair: -pair[1])
    shares = ", ".join(f"{stage} {seconds / last.wall_s:.0%}" for stage, seconds in spent[:4])
    bench.page.line(f"  what limits it, in the last row: {shares} of the whole process")


def chat(bench: Bench, corpus: Path, number: int, rounds: int) -> None:
    """Ids and trained tokens of conversations, one process each; ours on eight times as many too.

    Whoever takes seconds to start is compared on what takes longer than that.
    """
    few, many = (conversations_of(corpus, n) for n in (number, 8 * number))
    environment = {"SOURCE": "chat", "PACKING": "best_fit"}
    theirs = Case(Program("apply_chat_template", "chat_template"), few, [])
    same = Case(Program(OURS, "ours", environment), few, [])
    ours = Case(Program(f"{OURS}, 8 x the text", "ours", environment), many, [])
    for _ in range(rounds):
        for case in (theirs, same, ours):
            folder = bench.tokenizers / "qwen3"
            keep = case is same
            ran = case.program.run(bench.python, case.corpus, folder, processes=1, keep=keep)
            case.runs.append(ran)
    reader = Program(OURS, "chat_digest")
    found = reader.run(bench.python, few, bench.tokenizers / "qwen3", again=True).result
    rows = []
    for case, count in ((theirs, number), (same, number), (ours, 8 * number)):
        steady = [ran.result["steady_mb_s"] for ran in case.runs if ran.result.get("steady_mb_s")]
        rate = statistics.median(steady) * count / case.megabytes if steady else 0
        rows.append(
            [
                case.program.name,
                f"{count}",
                f"{case.megabytes:.0f}",
                f"{statistics.median(count / ran.work_s for ran in case.runs):.0f}",
                f"{rate:.0f}" if rate else "",
                f"{case.ratio_to(theirs):.1f}",
                f"{statistics.median(ran.core_s for ran in case.runs):.1f}",
                f"{max(ran.peak_mib[0] for ran in case.runs):.0f}",
            ]
        )
    head = ["", "conversations", "MB", "a second", "steady", "ratio", "core s", "largest MiB"]
    bench.page.table(
        "Conversations to ids and trained tokens, qwen3, one process   (goal: 20 x)", head, rows
    )
    expected = theirs.runs[-1].result
    ids, mask = (
        "the same" if found[key] == expected[key] else "NOT THE SAME" for key in ("ids", "mask")
    )
    bench.page.line(
        f"  ids: {ids}; trained tokens: {mask};"
        f" {found['tokens']:,} ids, {found['trained']:,} of them trained"
    )
