r"""The line that sshd gets to run `argv`, whatever the account's shell is and whatever it prints.

Three shells stand between us and the program, and each is told as little as possible:

    login shell (bash, csh, ..)  exec /bin/sh -c 'eval "$(printf %b "$1")"' clusterlm '\0145..'
    sh                           keeps our input away from profiles, finds bash
    bash -l                      profiles, the profile's `setup`, then the program

The login shell sees no byte that means something to any of them: no quote, newline, `!` or
backslash other than of an octal number. So any byte arrives in `argv` as it is.

A random mark on both outputs tells what logging in printed from what the program prints, and the
end with its exit code from a connection that broke (`frames.py`). The program has a process group
of its own, so that what it started ends with it:
- `deadline_s`: the machine over there ends it, even when nobody listens any more.
- `leash`: the end of our input ends it, as by Ctrl-C; so does a lost connection.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from clusterlm.cluster.host import STOP_GRACE_S
from clusterlm.errors import SshError

# Linux takes no argument longer than 128 KiB, and the whole command is one
MAX_COMMAND_BYTES = 120_000
# of a timeout: SIGTERM, then SIGKILL
TERM_GRACE_S = 2
# letters that no shell reads as anything else; the rest goes over as octal numbers
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:=,+@%- ")


def make_command(
    argv: Sequence[str],
    *,
    mark: str,
    setup: Sequence[str] = (),
    deadline_s: float | None = None,
    leash: bool = False,
    merged: bool = False,
) -> str:
    """What is given to sshd.

    Args:
        argv: the program; it is looked for on PATH, never among functions or builtins.
        mark: random, for this call alone.
        setup: lines of shell that run before it.
        deadline_s: after this many seconds it is ended over there.
        leash: the end of our input ends it; it then has no input itself.
        merged: both outputs in one, in the order of their writing.

    Raises:
        SshError: too long for one command line.
        ValueError: a NUL, or no program.
    """
    if not argv or any("\0" in word for word in argv) or argv[0].startswith("-"):
        raise ValueError(f"no program and arguments: {list(argv)!r}")
    script = _script(argv, mark, setup, deadline_s, leash, merged)
    first = "\n".join(
        [
            # a profile that reads would eat the program's input
            "exec 7<&0 </dev/null",
            "if command -v bash >/dev/null 2>&1; then shell=bash; else shell=sh; fi",
            f"exec $shell -lc {shlex.quote(script)} clusterlm",
        ]
    )
    command = f"""exec /bin/sh -c 'eval "$(printf %b "$1")"' clusterlm '{_octal(first)}'"""
    if len(command) > MAX_COMMAND_BYTES:
        raise SshError(
            f"{argv[0]}: its arguments are too long for a command over SSH "
            f"({len(command)} of {MAX_COMMAND_BYTES} bytes)"
        )
    return command


def _script(
    argv: Sequence[str],
    mark: str,
    setup: Sequence[str],
    deadline_s: float | None,
    leash: bool,
    merged: bool,
) -> str:
    # in two halves: `set -x` in a profile must not print the mark itself
    halves = f"{mark[:16]} {mark[16:]}"
    program = " ".join(shlex.quote(word) for word in argv)
    lines = [
        *([f"eval {shlex.quote(chr(10).join(setup))}"] if setup else []),
        "set +e +u +x +v",
        # what programs print is read by machines here
        "LC_ALL=C SLURM_TIME_FORMAT=standard; export LC_ALL SLURM_TIME_FORMAT",
        'end() { kill -s "$1" -- "-$2" || kill -s "$1" "$2"; }',
        f"say() {{ printf '%s%s:%s\\n' {halves} \"$1\"; }}",
        # what the shell itself says of its jobs is none of the program's output
        "exec 8>&2 2>/dev/null",
        # job control: the program gets a group of its own, and Ctrl-C is not ignored in it
        "set -m",
        f"{{ say begin; say begin >&2; exec {program}{' 2>&1' if merged else ''}; }} "
        f"2>&8 8>&- {'</dev/null' if leash else '<&7'} 7<&- &",
        "child=$!",
        *_watch(deadline_s, leash),
        # or `wait` would come back when the program is only stopped
        "set +m",
        "exec 7<&-",
        'wait "$child"',
        "code=$?",
    ]
    if deadline_s is not None or leash:
        lines.append('end TERM "$watch"; wait "$watch"')
    lines += ['say "end:$code"', 'say "end:$code" >&8']
    return "\n".join(lines)


def _watch(deadline_s: float | None, leash: bool) -> list[str]:
    """A process beside the program that ends it when the time has come.

    Once the program has ended, what it started has no time left.

    It lets itself be ended while it waits, but not once it has begun to end the program: of a group
    whose first process has gone, others may be left.
    """
    if deadline_s is None and not leash:
        return []
    if leash:
        wait, word, signal, grace_s = "read -r _ <&7", ":", "INT", int(STOP_GRACE_S)
    else:
        seconds = math.ceil(deadline_s or 0)
        wait, word = f"sleep {seconds} 7<&- 8>&- </dev/null >/dev/null", "say late >&8"
        signal, grace_s = "TERM", TERM_GRACE_S
    return [
        f"( {wait}; trap '' TERM; {word}; exec 7<&- 8>&- >/dev/null; end {signal} \"$child\"; n=0",
        f'  while [ $n -lt {grace_s * 10} ] && kill -s 0 "$child"; do',
        "    if sleep 0.1; then n=$((n + 1)); else sleep 1; n=$((n + 10)); fi",
        "  done",
        '  end KILL "$child"; sleep 0.05 ) &',
        "watch=$!",
    ]


def _octal(text: str) -> str:
    """Text as `printf %b` takes it."""
    return "".join(
        chr(byte) if byte in PLAIN else f"\\0{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
