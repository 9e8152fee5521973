"""cache ls|rm|gc: prepared data, and what lies beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from clusterlm.cli.typed import AsJson

if TYPE_CHECKING:
    from clusterlm.cluster.cache_users import Users
    from clusterlm.data.looks.store import Item, Prepared, Store

HEAD = ("DATA", "AGE", "SIZE", "TOKENS", "BLOCKS", "OF", "SOURCES", "RUNS")
SHOWN = 2
"""Sources, and runs, that a row names."""

KINDS = {
    "shard": "shard",
    "tokenizer": "tokenizer",
    "chosen": "list of duplicates",
    "model": "resized model",
    "leftover": "leftover of a killed writer",
}
"""What lies beside prepared data, in words; for several see `_several`."""

cache = typer.Typer(help="The data that was prepared.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(cache, name="cache")


@cache.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List prepared data, the newest first, and what lies beside it."""
    store, users = _look()
    if as_json:
        _print_json(store, users)
        return
    if not store.prepared and not store.items:
        typer.echo(f"no prepared data in {store.root}")
        return
    rows = [HEAD, *(_row(one, store, users) for one in store.prepared)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    for row in rows:
        typer.echo("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip())
    for one in store.prepared:
        if one.problem:
            typer.echo(f"{one.short}: {one.problem.removeprefix(f'prepared data: {one.root} ')}")
    _print_rest(store, users)


@cache.command("rm")
def rm(
    fingerprints: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Fingerprints, or their beginnings.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Also what unfinished runs use.")] = False,
) -> None:
    """Remove prepared data.

    Its tokens stay in shards, which other data may use, until `cache gc`.
    """
    from clusterlm.cluster.cache_users import refuse_used
    from clusterlm.cluster.claims import locked
    from clusterlm.data.looks.store import choose_prepared, remove_folder
    from clusterlm.paths import CachePaths

    store, users = _look()
    named = [choose_prepared(store.prepared, prefix) for prefix in fingerprints]
    chosen = list({one.root: one for one in named}.values())
    if not force:
        refuse_used([one.fingerprint for one in chosen], users)
    for one in chosen:
        # no submit looks at it meanwhile
        with locked(CachePaths(one.root)):
            remove_folder(one.root)
        typer.echo(f"removed {one.short} ({_size(one.own_bytes)})")
    store, users = _look()
    for option, young_too in (("", False), (" --all", True)):
        if free := sum(i.num_bytes for i in _superfluous(store, users, young_too=young_too)):
            typer.echo(f"clusterlm cache gc{option} would free {_size(free)} more")
            break


@cache.command("gc")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is younger than an hour.")
    ] = False,
) -> None:
    """Remove what no prepared data refers to.

    Shards, tokenizers, found duplicates, leftovers of killed writers; resized models that no run
    refers to. While a run prepares data, what it may rely on stays.
    """
    from clusterlm.data.looks.store import remove

    store, users = _look()
    going = _superfluous(store, users, young_too=everything)
    verb = "would remove" if dry_run else "removed"
    for item in going:
        if not dry_run:
            remove(item)
        typer.echo(f"{verb} {KINDS[item.kind]} {item.path} ({_size(item.num_bytes)})")
    size = _size(sum(item.num_bytes for item in going))
    typer.echo(f"{verb} {len(going)}, {size} in all" if going else "nothing to remove")
    for line in _staying(store, users, going):
        typer.echo(line)


def _look() -> tuple[Store, Users]:
    from clusterlm.cluster.cache_users import read_users
    from clusterlm.data.looks.store import read_store
    from clusterlm.paths import cache_dir

    users = read_users(cache_dir())
    return read_store(cache_dir(), now=time.time(), models=users.models), users


def _superfluous(store: Store, users: Users, *, young_too: bool) -> list[Item]:
    from clusterlm.data.looks.store import superfluous

    is_busy = bool(users.preparing)
    return superfluous(store, now=time.time(), is_busy=is_busy, young_too=young_too)


def _staying(store: Store, users: Users, going: list[Item]) -> Iterator[str]:
    """Why something stays that no prepared data refers to."""
    staying = [item for item in store.items if not item.is_used and item not in going]
    if not staying:
        return
    size = _size(sum(item.num_bytes for item in staying))
    if users.preparing:
        run = next(iter(users.preparing.values()))
        why = f"run {run} prepares data and may rely on them; try again when it has ended"
    elif store.living:
        why = "somebody is writing here right now"
    else:
        why = "younger than an hour, so perhaps in the making; --all removes them too"
    yield f"{len(staying)} that no data refers to stay ({size}): {why}"


def _row(one: Prepared, store: Store, users: Users) -> tuple[str, ...]:
    from clusterlm.data.looks.short_path import short_path

    manifest = one.manifest
    splits = manifest.get("splits") or {}
    runs = [f"{run}*" if run in users.unfinished else run for run in users.of(one.fingerprint)]
    blocks = sum(int(split.get("blocks") or 0) for split in splits.values())
    tokens = (manifest.get("counts") or {}).get("tokens")
    return (
        one.short,
        _age(time.time() - one.written),
        _size(store.size_of(one)),
        _number(tokens) if tokens is not None else "-",
        _number(blocks) if splits else "-",
        str(manifest.get("block_size") or "-"),
        "damaged" if one.problem else _some([short_path(path) for path in one.sources]),
        _some(runs),
    )


def _print_rest(store: Store, users: Users) -> None:
    for kind, words in KINDS.items():
        items = store.of_kind(kind)
        if not items:
            continue
        unused = [item for item in items if not item.is_used]
        text = f"{_several(len(items), words)}, {_size(sum(item.num_bytes for item in items))}"
        if unused and kind != "leftover":
            size = _size(sum(item.num_bytes for item in unused))
            whom = "of no run" if kind == "model" else "of no data above"
            text += f"; {len(unused):,} of them, {size}, {whom}"
        typer.echo(text)
    if store.living:
        typer.echo(f"{len(store.living):,} in the making")
    free = sum(item.num_bytes for item in _superfluous(store, users, young_too=False))
    hint = f"; clusterlm cache gc frees {_size(free)}" if free else ""
    typer.echo(f"{_size(store.num_bytes)} in {store.root}{hint}")


def _print_json(store: Store, users: Users) -> None:
    import json

    from clusterlm.data.looks.store import as_json

    items = [
        {
            "kind": item.kind,
            "path": str(item.path),
            "bytes": item.num_bytes,
            "written": item.written,
            "used": item.is_used,
        }
        for item in store.items
    ]
    prepared = [
        as_json(one, store, users.of(one.fingerprint), users.unfinished_of(one.fingerprint))
        for one in store.prepared
    ]
    found = {"root": str(store.root), "bytes": store.num_bytes, "prepared": prepared}
    living = [str(path) for path in store.living]
    typer.echo(json.dumps({**found, "items": items, "being_written": living}))


def _some(names: list[str]) -> str:
    from clusterlm.spec.wording import printable

    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return printable(", ".join([*names[:SHOWN], *more])) or "-"


def _several(number: int, words: str) -> str:
    first, of, rest = words.partition(" of ")
    return f"{number:,} {first}{'' if number == 1 else 's'}{of}{rest}"


def _number(value: int) -> str:
    if value < 1_000_000:
        return f"{value:,}"
    return f"{value / 1e6:.1f} M" if value < 1_000_000_000 else f"{value / 1e9:.1f} G"


def _size(num_bytes: int) -> str:
    if num_bytes < 1e3:
        return f"{num_bytes} bytes"
    if num_bytes < 1e6:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e6:.0f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
