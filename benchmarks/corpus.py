"""A corpus of real text: some 500 MB of jsonl out of Debian's documentation and source packages.

Made once, the same on every machine that gets the same packages, kept under `.bench/`. Lines of 24
characters or more occur once in all of it: the same licence in every file would flatter whatever
remembers words. Documents are shuffled, so that the first 15 or 60 MB look like the whole.

Without a package (no `apt-get`, no network) the machine's own documentation fills in, and the table
says so.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.folder import BENCH
from benchmarks.plain_text import text_of

# package -> what to take of it; "": every file of a kind that is known
PACKAGES: dict[str, str] = {
    # Russian
    **dict.fromkeys(("manpages-ru", "manpages-ru-dev", "libreoffice-help-ru", "fortunes-ru"), ""),
    **dict.fromkeys(("debian-faq-ru", "aptitude-doc-ru", "developers-reference-ru"), ""),
    **dict.fromkeys(("maint-guide-ru", "gimp-help-ru"), ""),
    # Chinese
    **dict.fromkeys(("manpages-zh", "libreoffice-help-zh-cn", "libreoffice-help-zh-tw"), ""),
    **dict.fromkeys(("debian-reference-zh-cn", "maint-guide-zh-cn", "debian-faq-zh-cn"), ""),
    # many languages in one package
    **dict.fromkeys(("debian-handbook", "installation-guide-amd64", "gnome-user-docs"), ""),
    "gnucash-docs": "",
    # other languages in Latin letters
    **dict.fromkeys((f"libreoffice-help-{x}" for x in ("de", "es", "fr", "it", "pl", "pt-br")), ""),
    **dict.fromkeys((f"manpages-{x}" for x in ("de", "es", "fr")), ""),
    **dict.fromkeys((f"debian-reference-{x}" for x in ("de", "es", "fr")), ""),
    # English
    "linux-doc-6.1": "*/Documentation/*",
    "python3.11-doc": "*/_sources/*",
    "git-doc": "*.html",
    **dict.fromkeys(("libreoffice-help-en-us", "manpages", "manpages-dev", "perl-doc"), ""),
    **dict.fromkeys(("postgresql-doc-15", "vim-doc", "cppreference-doc-en-html"), ""),
    **dict.fromkeys(("erlang-doc", "python-django-doc", "octave-doc", "dict-foldoc"), ""),
    # code: Go, C++, Rust, Python, TypeScript, Emacs Lisp, C
    **dict.fromkeys(("golang-1.19-src", "libboost1.74-dev", "rust-src", "python3-sympy"), ""),
    **dict.fromkeys(("node-typescript", "emacs-el", "linux-libc-dev", "python3-django"), ""),
}
LOCAL = (
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/locale",
    "/usr/lib/python3",
    "/usr/include",
)

# bytes of text, as far as there is so much; in all some 500 MB of jsonl
WANTED = {"latin": 360_000_000, "code": 80_000_000, "cyrillic": 40_000_000, "cjk": 24_000_000}

CODE = frozenset(
    [".go", ".hpp", ".ipp", ".rs", ".py", ".ts", ".el.gz", ".h", ".c", ".s", ".js", ".java"]
)
PROSE = frozenset(
    [".html", ".htm", ".page", ".docbook", ".txt", ".md", ".pod", ".dz", ".gz", ".rst", ".mo"]
)
MIN_BYTES, MAX_BYTES = 1_200, 3_200_000
SHORTEST_LINE = 24
# a smoke run: few packages, 20 MB
QUICK = (
    *("manpages-ru", "libreoffice-help-zh-cn", "libreoffice-help-en-us"),
    *("perl-doc", "manpages-de", "python3-django"),
)
QUICK_SHARE = 20 / 268
# no one package makes up more than this share of its kind
MAX_SHARE = 0.3


class Document(NamedTuple):
    """One text and where it is from."""

    kind: str
    source: str
    text: str


def build_corpus(*, quick: bool = False) -> dict[str, Any]:
    """Make the corpus if it is not there; what is known of it, `path` included."""
    path = BENCH / ("quick.jsonl" if quick else "corpus.jsonl")
    about = path.with_suffix(".json")
    if about.exists() and path.exists():
        return dict(json.loads(about.read_text())) | {"path": str(path)}
    BENCH.mkdir(parents=True, exist_ok=True)
    print(f"making {path}: some minutes the first time", flush=True)
    wanted = {name: PACKAGES[name] for name in QUICK} if quick else PACKAGES
    documents, packages, missing = _gather(wanted)
    documents = _choose(documents, QUICK_SHARE if quick else 1.0)
    found = _describe(documents) | {
        "sha256": _write(documents, path),
        "jsonl_bytes": path.stat().st_size,
        "packages": packages,
        "missing": missing,
    }
    about.write_text(json.dumps(found, indent=1))
    return found | {"path": str(path)}


def first_megabytes(whole: Path, megabytes: int) -> Path:
    """The head of a corpus as a file of its own, cut behind a record."""
    path = whole.with_name(f"{whole.stem}-{megabytes}.jsonl")
    if not path.exists() or path.stat().st_mtime < whole.stat().st_mtime:
        with whole.open("rb") as corpus, path.open("wb") as part:
            part.write(corpus.read(megabytes * 1_000_000))
            part.write(corpus.readline())
    return path


def _write(documents: Sequence[Document], path: Path) -> str:
    """One row a document; the sha256 of the file."""
    digest = hashlib.sha256()
    aside = path.with_suffix(".part")
    with aside.open("wb") as file:
        for number, document in enumerate(documents):
            row = {"id": str(number), "text": document.text, "kind": document.kind}
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            digest.update(line)
            file.write(line)
    aside.rename(path)
    return digest.hexdigest()


def _gather(
    wanted: Mapping[str, str],
) -> tuple[list[Document], dict[str, str], list[str]]:
    """Documents in the order of the packages, the versions found, the packages not found."""
    seen: set[int] = set()
    documents: list[Document] = []
    versions: dict[str, str] = {}
    missing: list[str] = []
    for name, pattern in wanted.items():
        with tempfile.TemporaryDirectory(dir=BENCH) as folder:
            version = _fetch(name, Path(folder))
            if version is None:
                missing.append(name)
                continue
            versions[name] = version
            documents += _documents_in(Path(folder), name, pattern, seen)
    if missing:
        for folder in LOCAL:
            documents += _documents_in(Path(folder), folder, "", seen)
    return documents, versions, missing


def _fetch(name: str, folder: Path) -> str | None:
    """Download and unpack one package, without installing it; its version."""
    for attempt in range(2):
        argv = ["apt-get", "download", "-q", name]
        try:
            done = subprocess.run(argv, cwd=folder, capture_output=True, check=False)
        except FileNotFoundError:
            return None
        archives = list(folder.glob("*.deb"))
        if done.returncode == 0 and archives:
            subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(folder)], check=True)
            return archives[0].stem.split("_")[1].replace("%3a", ":")
        if attempt == 0 and not _update_lists():
            return None
    return None


@functools.cache
def _update_lists() -> bool:
    """Fetch the lists of packages, once in a process; false if that is not allowed."""
    if os.geteuid() != 0:
        return False
    argv = ["apt-get", "update", "-q"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _documents_in(folder: Path, source: str, pattern: str, seen: set[int]) -> Iterator[Document]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.name.startswith("changelog"):
            continue
        if pattern and not path.match(pattern) and pattern.strip("*/") not in path.parts:
            continue
        is_code = path.suffix in CODE or "".join(path.suffixes[-2:]) in CODE
        if not is_code and path.suffix not in PROSE and "." in path.name:
            continue
        text = text_of(path)
        if text is None:
            continue
        text = _shorten(_drop_seen_lines(text, seen))
        kind = "code" if is_code else _script_of(text)
        if kind and len(text.encode()) >= MIN_BYTES:
            yield Document(kind, source, text)


def _drop_seen_lines(text: str, seen: set[int]) -> str:
    kept = []
    for line in text.split("\n"):
        stripped = line.strip()
        if len(stripped) >= SHORTEST_LINE:
            key = hash(stripped)
            if key in seen:
                continue
            seen.add(key)
        kept.append(line)
    return "\n".join(kept)


def _shorten(text: str) -> str:
    if len(text.encode()) <= MAX_BYTES:
        return text
    head = text.encode()[:MAX_BYTES].decode(errors="ignore")
    return head[: head.rfind("\n") + 1]


def _script_of(text: str) -> str | None:
    """The letters that most of a text is written in."""
    sample = text[:20_000]
    cyrillic = sum("\u0400" <= c <= "\u04ff" for c in sample)
    cjk = sum("\u3040" <= c <= "\u30ff" or "\u4e00" <= c <= "\u9fff" for c in sample)
    latin = sum(c.isascii() and c.isalpha() or "\u00c0" <= c <= "\u024f" for c in sample)
    if cyrillic > 0.3 * (latin + cyrillic):
        return "cyrillic"
    if cjk > 0.2 * (latin + cjk):
        return "cjk"
    return "latin" if latin > 0.4 * len(sample) else None


def _choose(documents: Sequence[Document], share: float) -> list[Document]:
    """Shuffle; of each kind take what is wanted, and no package more than its share."""
    order = sorted(documents)
    random.Random(0).shuffle(order)
    wanted = {kind: share * size for kind, size in WANTED.items()}
    # few packages cannot each be a small share
    most = MAX_SHARE if share == 1 else 1.0
    taken: dict[str, int] = dict.fromkeys(WANTED, 0)
    of_source: dict[tuple[str, str], int] = {}
    chosen = []
    for document in order:
        kind, key, size = document.kind, document[:2], len(document.text.encode())
        if taken[kind] + size > wanted[kind]:
            continue
        if of_source.get(key, 0) + size > most * wanted[kind]:
            continue
        taken[kind] += size
        of_source[key] = of_source.get(key, 0) + size
        chosen.append(document)
    return chosen


def _describe(documents: Sequence[Document]) -> dict[str, Any]:
    sizes = sorted(len(document.text.encode()) for document in documents)
    total = sum(sizes)
    by_kind = dict.fromkeys(WANTED, 0)
    for document in documents:
        by_kind[document.kind] += len(document.text.encode())
    at = {name: sizes[int(len(sizes) * share)] for name, share in _PERCENTILES.items()}
    return {
        "documents": len(sizes),
        "text_bytes": total,
        "bytes_of_kind": by_kind,
        "document_bytes": {**at, "mean": total // len(sizes), "max": sizes[-1]},
        "share_in_documents_over_100_kB": sum(s for s in sizes if s > 100_000) / total,
        "documents_over_1_MB": sum(s > 1_000_000 for s in sizes),
    }


_PERCENTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


if __name__ == "__main__":
    print(json.dumps(build_corpus(), indent=1))
