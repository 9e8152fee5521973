"""Lines that are printed as they come, and written as a page at the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class Page:
    """What a benchmark tells."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def line(self, text: str = "") -> None:
        self._lines.append(text)
        print(text, flush=True)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column to the left, numbers to the right."""
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        self.line()
        self.line(title)
        for row in [head, *rows]:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            self.line("  " + "  ".join(cells).rstrip())

    def write(self, path: Path, title: str) -> None:
        """As a markdown file; notes that are written below by hand are kept."""
        notes = ""
        if path.exists():
            _, _, notes = path.read_text().partition("\n## Notes\n")
        text = f"# {path.stem[:10]}, {title.lower()}\n\n```\n" + "\n".join(self._lines) + "\n```\n"
        path.write_text(text + (f"\n## Notes\n{notes}" if notes else ""))
        print(f"written: {path}")
