"""How a status looks: one table for `status`, plain or by rich, and the lines of a single run.

Knows nothing of where the values come from. Text that stems from logs or schedulers is made safe
here, for it reaches a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from clusterlm.cluster.event_words import cut
from clusterlm.cluster.log_text import readable_line, readable_text
from clusterlm.cluster.run_status import RunStatus
from clusterlm.spec.units import spoken
from clusterlm.supervise.causes import State

if TYPE_CHECKING:
    from rich.table import Table

OLD_S = 10.0
"""From here on a line says how old its news is."""
HEADS = (
    *("RUN", "CLUSTER", "STATE", "PHASE", "STEP", "TRAIN LOSS", "EVAL LOSS", "EVAL PPL"),
    *("TOK/S", "/RANK", "MFU", "ETA", "SEEN", "WHY"),
)
WHERE_KNOWN = {"CLUSTER", "EVAL LOSS", "EVAL PPL", "/RANK", "MFU"}
"""Columns that are left out when no run has a value: a line is wide enough."""
HERE = ("local", "slurm")
"""This machine and its Slurm need no name."""
COLOURS = {
    State.PENDING: "yellow",
    State.PREPROCESSING: "cyan",
    State.STARTING: "cyan",
    State.TRAINING: "green",
    State.STALLED: "red",
    State.RETRYING: "magenta",
    State.STOPPING: "yellow",
    State.DONE: "green",
    State.STOPPED: "red",
    State.CANCELLED: "yellow",
    State.UNKNOWN: "red",
}


LONGEST_WHY = 160


def cells(status: RunStatus) -> tuple[str, ...]:
    """One row, by HEADS."""
    # names of folders, and of what a newer version may write
    run, phase = readable_text(status.run), readable_text(status.phase)
    return (
        run,
        "" if status.cluster in HERE else readable_text(status.cluster),
        status.state.value,
        phase,
        steps(status),
        "" if status.loss is None else f"{status.loss:.4g}",
        "" if status.eval_loss is None else f"{status.eval_loss:.4g}",
        "" if status.perplexity is None else f"{status.perplexity:.4g}",
        "" if status.tokens_per_s is None else f"{status.tokens_per_s:,.0f}",
        _each(status),
        "" if status.mfu is None else f"{status.mfu:.0%}",
        "" if status.eta_s is None else spoken(status.eta_s),
        seen(status),
        why(status),
    )


def steps(status: RunStatus) -> str:
    """`40/300`."""
    if status.step is None:
        return ""
    return f"{status.step}/{status.total_steps}" if status.total_steps else str(status.step)


def seen(status: RunStatus) -> str:
    """How old the news is, and who brought it: `3 s ago by squeue`."""
    if status.updated_s_ago is None:
        return status.source
    return f"{spoken(status.updated_s_ago)} ago by {status.source}"


def why(status: RunStatus) -> str:
    """Cause and evidence, or what the phase does just now, on one safe line."""
    parts = [status.cause.words] if status.cause and status.state is not State.DONE else []
    if status.evidence:
        parts.append(status.evidence)
    elif status.doing and not status.state.is_final:
        parts.append(status.doing)
    elif status.waits_for_data:
        parts.append(f"waits {status.data_wait:.0%} of the time for data")
    text = "; ".join(filter(None, (": ".join(parts), status.trouble)))
    return readable_line(text.replace("\n", " "))


def plain_table(statuses: Sequence[RunStatus]) -> list[str]:
    """Aligned columns without control codes."""
    rows = _with_values([HEADS, *(_short(cells(status)) for status in statuses)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _short(row: tuple[str, ...]) -> tuple[str, ...]:
    """The last cell cut: `why RUN` and `--json` have the whole text."""
    text = row[-1]
    return (*row[:-1], text if len(text) <= LONGEST_WHY else text[: LONGEST_WHY - 2] + " ~")


def _with_values(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A table, its head first, without the columns of WHERE_KNOWN in which nothing is known."""
    columns = [
        column
        for column in zip(*rows, strict=True)
        if column[0] not in WHERE_KNOWN or any(column[1:])
    ]
    return list(zip(*columns, strict=True))


def rich_table(statuses: Iterable[RunStatus]) -> Table:
    """The same for a terminal, fitted to its width."""
    from rich.table import Table
    from rich.text import Text

    found = list(statuses)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    heads, *rows = _with_values([HEADS, *(_short(cells(status)) for status in found)])
    for head in heads:
        # the last column takes what is left; the others are never broken
        table.add_column(head, no_wrap=head != "WHY", overflow="fold", header_style="bold")
    for status, texts in zip(found, rows, strict=True):
        # Text, not str: square brackets in an error are no markup
        row = [Text(cell) for cell in texts]
        row[heads.index("STATE")].stylize(COLOURS[status.state])
        table.add_row(*row)
    return table


def one_line(status: RunStatus) -> str:
    """A run at one moment on one line, for a pipe."""
    old = (status.updated_s_ago or 0.0) >= OLD_S and not status.state.is_final
    age = f"({seen(status)})" if old else ""
    words = cut(why(status))
    return "  ".join(filter(None, (status.state.value, *figures(status), words, age)))


def figures(status: RunStatus) -> list[str]:
    """Step, loss, speed and time left, as far as they are known."""
    found = [f"step {steps(status)}"] if status.step is not None else []
    if status.loss is not None:
        found.append(f"train loss {status.loss:.4g}")
    if status.eval_loss is not None:
        ppl = "" if status.perplexity is None else f" (ppl {status.perplexity:.4g})"
        found.append(f"eval loss {status.eval_loss:.4g}{ppl}")
    if status.tokens_per_s is not None:
        found.append(f"{status.tokens_per_s:,.0f} tokens/s{_per_rank(status)}")
    if status.mfu is not None:
        found.append(f"MFU {status.mfu:.0%}")
    if status.eta_s is not None:
        found.append(f"{spoken(status.eta_s)} left")
    return found


def _per_rank(status: RunStatus) -> str:
    return f", {each} per rank" if (each := _each(status)) else ""


def _each(status: RunStatus) -> str:
    """Tokens/s of one rank (a GPU, or a process on the CPU), where there are more."""
    each = status.tokens_per_s_per_gpu
    return "" if each is None or each == status.tokens_per_s else f"{each:,.0f}"
