"""The live view of a run until its end, and what is said then.

On a terminal a few lines that are drawn again and again; through a pipe a line at each change and
every 10 s, without control codes. The watcher only looks: when it ends, the run goes on. Its exit
code is 0 only when the run is known to be DONE; not knowing (UNKNOWN) never ends it.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TextIO

from clusterlm.cluster.event_words import Event, clock_of, words_of
from clusterlm.cluster.log_text import readable_text
from clusterlm.cluster.outcome import read_outcome
from clusterlm.cluster.run_status import RunStatus
from clusterlm.cluster.status import StatusReader
from clusterlm.cluster.table import COLOURS, figures, one_line, rich_table, seen, why
from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import RunPaths
from clusterlm.supervise.causes import State

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

LOOK_EVERY_S = 0.5
SAY_EVERY_S = 10.0
EVENTS_SHOWN = 6
INTERRUPTED = 130


def watch_run(
    run: RunPaths,
    reader: StatusReader | None = None,
    *,
    out: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show a run until it ends.

    Returns:
        The exit code: 0 when it is DONE, 1 when it ended otherwise, 130 when interrupted.
    """
    out = out or sys.stdout
    try:
        status = follow_run(run, reader, out=out, clock=clock, sleep=sleep)
    except KeyboardInterrupt:
        print("\n".join(farewell(run.name)), file=out, flush=True)
        return INTERRUPTED
    print("\n".join(end_lines(run, status)), file=out, flush=True)
    return 0 if status.state is State.DONE else 1


def follow_run(
    run: RunPaths,
    reader: StatusReader | None = None,
    *,
    out: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Show a run until it ends, and leave the last word to the caller; Ctrl-C goes through."""
    reader = reader or StatusReader(run.root.parent)
    out = out or sys.stdout
    if out.isatty():
        return _watch_on_terminal(run, reader, out, sleep)
    return _watch_through_pipe(run, reader, out, clock, sleep)


def watch_all(
    reader: StatusReader,
    names: Sequence[str] | None,
    *,
    elsewhere: Callable[[], list[RunStatus]] = list,
    out: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Show several runs until all have ended; without names: all that live now, or come.

    Args:
        reader: of the runs of this machine.
        names: of these.
        elsewhere: gives the states of runs on clusters; must not wait.
        out: stdout.
        clock: by which looks are timed.
        sleep: between them.

    Returns:
        As `watch_run`; 0 only when each of them is DONE.
    """
    out = out or sys.stdout
    said: dict[str, str] = {}
    said_at = float("-inf")

    def glance() -> list[RunStatus]:
        return [*reader.glance(names), *elsewhere()]

    over_before = {s.run for s in glance() if s.state.is_final} if names is None else set()
    try:
        with _live(out) as live:
            while True:
                now = clock()
                statuses = [s for s in glance() if s.run not in over_before]
                is_time = now - said_at >= SAY_EVERY_S
                said_at = now if is_time else said_at
                if live is not None:
                    live.update(rich_table(statuses), refresh=True)
                else:
                    _say_changes(statuses, said, out, is_time)
                if all(status.state.is_final for status in statuses):
                    break
                # a look at a thousand runs must not become a load
                sleep(max(2 * LOOK_EVERY_S, 4 * (clock() - now)))
    except KeyboardInterrupt:
        print("\nthe runs go on; look again: clusterlm status", file=out, flush=True)
        return INTERRUPTED
    if not statuses:
        print("no run is under way; those that have ended: clusterlm status", file=out, flush=True)
    return 0 if all(status.state is State.DONE for status in statuses) else 1


def farewell(name: str) -> list[str]:
    """After Ctrl-C: what has become of the run (nothing)."""
    return [
        "",
        f"stopped watching; {name} goes on",
        f"  look again   clusterlm status {name} --watch",
        f"  its logs     clusterlm logs {name} -f",
        f"  end it       clusterlm cancel {name}",
    ]


def end_lines(run: RunPaths, status: RunStatus) -> list[str]:
    """How a run ended, what it has come to, and what to type next."""
    lines = ["", f"{run.name} is {status.state.value}"]
    if status.state is not State.DONE and (text := why(status)):
        lines[-1] += f": {text}"
    lines += [f"  {line}" for line in read_outcome(run).lines()]
    if status.state is State.DONE and run.model.is_dir():
        lines.append(f"  model     {run.model}")
    lines.append(f"next: {next_command(run, status)}")
    return lines


def next_command(run: RunPaths, status: RunStatus) -> str:
    """The command that most people type after this end."""
    if status.state is State.STOPPED:
        return f"clusterlm why {run.name}"
    if status.state is State.CANCELLED:
        return f"clusterlm resume {run.name}"
    if not run.model.is_dir():
        return f"clusterlm logs {run.name}"
    # a base model is measured on what was held back; a chat model is talked with
    is_measured = read_outcome(run).eval_loss is not None
    return f"clusterlm {'eval' if is_measured and not _is_chat_model(run) else 'chat'} {run.name}"


def _is_chat_model(run: RunPaths) -> bool:
    # transformers 5 keeps the template in a file of its own, older ones in the config
    config = read_json(run.model / "tokenizer_config.json") or {}
    return (run.model / "chat_template.jinja").is_file() or bool(config.get("chat_template"))


def _say_changes(
    statuses: Sequence[RunStatus], said: dict[str, str], out: TextIO, is_time: bool
) -> None:
    for status in statuses:
        key = f"{status.state.value} {status.cause} {status.evidence}"
        if said.get(status.run) != key or (is_time and not status.state.is_final):
            said[status.run] = key
            print(readable_text(f"{status.run}  {one_line(status)}"), file=out, flush=True)


def _watch_through_pipe(
    run: RunPaths,
    reader: StatusReader,
    out: TextIO,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> RunStatus:
    offset, said, said_at = 0, "", float("-inf")
    while True:
        status = reader.glance_at(run)
        events, offset = read_jsonl(run.events, offset)
        for event in events:
            if text := words_of(event):
                print(f"{clock_of(event)}  {text}", file=out, flush=True)
        key = f"{status.state.value} {status.cause} {status.evidence}"
        if key != said or clock() - said_at >= SAY_EVERY_S:
            said, said_at = key, clock()
            print(f"{time.strftime('%H:%M:%S')}  {one_line(status)}", file=out, flush=True)
        if status.state.is_final:
            return status
        sleep(LOOK_EVERY_S)


def _watch_on_terminal(
    run: RunPaths, reader: StatusReader, out: TextIO, sleep: Callable[[float], None]
) -> RunStatus:
    offset = 0
    newest: deque[Event] = deque(maxlen=EVENTS_SHOWN)
    with _live(out) as live:
        assert live is not None
        while True:
            status = reader.glance_at(run)
            events, offset = read_jsonl(run.events, offset)
            newest.extend(event for event in events if words_of(event))
            live.update(_picture(status, newest), refresh=True)
            if status.state.is_final:
                return status
            sleep(LOOK_EVERY_S)


def _live(out: TextIO) -> AbstractContextManager[Live | None]:
    if not out.isatty():
        return nullcontext(None)
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(file=out), auto_refresh=False, transient=False)


def _picture(status: RunStatus, events: Sequence[Event]) -> Group:
    """What stands on the terminal at one moment.

    my-run  TRAINING  train, attempt 2 on node1,node3          2 s ago by supervisor
    ━━━━━━━━━━━━━━╸━━━━━━━━━━  step 40/300   train loss 5.12   5,100 tokens/s   2 min left
    attempt 1: rank 1 on node2 failed (exit 3): ValueError: ...
      14:03:07  train attempt 1 ended: ...; trying again
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    attempt = f", attempt {status.attempt}" if status.attempt else ""
    nodes = f" on {','.join(status.nodes)}" if status.nodes else ""
    head = Text.assemble(
        (readable_text(status.run), "bold"),
        "  ",
        (status.state.value, f"bold {COLOURS[status.state]}"),
        f"  {status.phase}{attempt}{nodes}",
        (f"   {seen(status)}", "dim"),
    )
    line = Table.grid(padding=(0, 2))
    if status.step is not None and status.total_steps:
        bar = ProgressBar(total=status.total_steps, completed=status.step, width=32)
        line.add_row(bar, *figures(status))
    elif figures(status):
        line.add_row(*figures(status))
    parts: list[Text | Table] = [head, line]
    if text := why(status):
        parts.append(Text(text, style=COLOURS[status.state] if status.cause else ""))
    parts += [Text(f"  {clock_of(e)}  {words_of(e)}", style="dim") for e in events]
    return Group(*parts)
