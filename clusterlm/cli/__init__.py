"""The commands. Each parses, calls one verb, prints; errors become text and exit codes here alone.

Exit codes: 0 done, 1 the run failed, 2 a mistake of the user's, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer

from clusterlm.cli import (
    after,
    cache,
    check,
    clusters,
    data,
    doctor,
    dry_run,
    fetch,
    images,
    importing,
    phases,
    plan,
    read,
    recipes,
    report,
    scaling,
    submit,
)
from clusterlm.errors import ClusterLMError

# a mistake on the command line; by what typer shows, since newer ones carry their own copy of click
USAGE_ERROR: Any = typer.BadParameter.__base__


def _shown(text: str) -> str:
    """Without the values of secrets, and without anything that a terminal would obey."""
    from clusterlm.cluster.log_text import readable_text

    # a command that looked up no secret knows none, and does not load what hides them
    values = sys.modules.get("clusterlm.cluster.secret_values")
    return readable_text(values.hidden(text) if values else text)


_echo = typer.echo


def _say(message: Any = None, *args: Any, **options: Any) -> None:
    """`typer.echo`, of whatever a log, a node's name or a server may have put into a message.

    In its place for all commands at once, so that none can forget it.
    """
    _echo(message if message is None else _shown(str(message)), *args, **options)


typer.echo = _say

app = typer.Typer(
    name="clusterlm",
    help="One YAML file, one language model trained on a Slurm cluster.",
    no_args_is_help=True,
    # plain help: importing the rich one would double the start-up time
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = (
    *(submit, read, report, check, plan, importing, recipes, data, cache, images, clusters),
    *(after, doctor, dry_run, scaling, fetch, phases),
)
for group in GROUPS:
    group.register(app)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from clusterlm import __version__

        typer.echo(f"clusterlm {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run a command and leave with its exit code."""
    try:
        # not standalone: typer would turn Ctrl-C into exit code 1
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(2)
    except ClusterLMError as error:
        # one clear error, no traceback: these are for the user to act on
        print(_shown(f"clusterlm: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("\nclusterlm: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            _leave_quietly()
        # a full disk, a folder that may not be written, a path that is no folder
        print(_shown(f"clusterlm: {error}"), file=sys.stderr)
        sys.exit(2)
    except Exception:
        # a bug: the whole traceback, which may quote whatever went through our hands
        import traceback

        print(_shown(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)


def _leave_quietly() -> NoReturn:
    # `clusterlm logs RUN | head`: the reader has gone, and so do we
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
