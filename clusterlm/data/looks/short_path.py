"""The end of a path, by which people know it."""

from __future__ import annotations

from clusterlm.spec.wording import printable


def short_path(path: str) -> str:
    """`texts.jsonl`; of a glob the folder too: `corpus/**/*.txt`; of a hub dataset all of it."""
    parts = path.rstrip("/").split("/")
    if len(parts) == 2 and not path.startswith("/"):
        # OWNER/NAME
        return printable(path)
    glob = next((n for n, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return printable("/".join(parts[max(0, glob - 1) :]))
