"""What prepared data is made of, in numbers: lengths, domains and tokens of the kept documents.

Only the cache is read, so the sources may be gone. Which documents are kept follows from the rows
in the shards as it did when the blocks were made (what was found about near duplicates is
remembered there). Tokens are read a few million at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clusterlm.data.blocks import plan_file
from clusterlm.data.cache import open_cache
from clusterlm.data.chosen import choose_documents
from clusterlm.data.fingerprint import sources_of
from clusterlm.data.looks.token_words import TokenWords
from clusterlm.data.planning import fractions_of
from clusterlm.data.reading import Reading
from clusterlm.data.store.documents import Numbers
from clusterlm.data.store.shard_files import ShardFiles
from clusterlm.data.store.shards import StoredShard, open_shard
from clusterlm.data.store.stored import Stored, read_stored
from clusterlm.data.tokenizer import load_vocabulary
from clusterlm.data.whole import Manifest, shards_folder
from clusterlm.errors import CacheNotReady
from clusterlm.spec.data import Data

PART_TOKENS = 4_000_000
PART_BLOCKS = 1_000_000
TOP_TOKENS = 100
TOP_DOMAINS = 50
_FILL_BINS = 10

Report = Callable[[str], None]


@dataclass(frozen=True)
class Lengths:
    """How long the documents are, in tokens.

    Attributes:
        bins: (first length, last length, documents, tokens) of each power of two.
        quantiles: of the documents: least, 10 %, half, 90 %, 99 %, most.
        num_longer: than a block.
    """

    bins: list[tuple[int, int, int, int]]
    quantiles: list[int]
    mean: float
    num_longer: int


@dataclass(frozen=True)
class SourceStats:
    """The kept documents of one source."""

    place: str
    path: str
    documents: int
    tokens: int
    trained: int
    lengths: Lengths | None


@dataclass(frozen=True)
class DomainStats:
    """The kept documents of one domain, over all sources."""

    name: str
    documents: int
    tokens: int
    trained: int


@dataclass(frozen=True)
class TokenStats:
    """How often the entries of the vocabulary occur.

    Attributes:
        top: (id, text, count) of the most frequent.
        coverage: (entries, share of all tokens) that the most frequent ones make up.
        unused: entries that never occur.
        by_count: (least, most, entries) by how often they occur.
    """

    total: int
    top: list[tuple[int, str, int]]
    coverage: list[tuple[int, float]]
    unused: int
    by_count: list[tuple[int, int, int]]


@dataclass(frozen=True)
class BlockStats:
    """How full the blocks of a split are: blocks by tenths, and documents in one."""

    fill: list[int]
    pieces_per_block: float


@dataclass(frozen=True)
class Stats:
    """Everything that `data stats` shows; `manifest` holds what the summary table does."""

    manifest: Manifest
    sources: list[SourceStats]
    domains: list[DomainStats]
    tokens: TokenStats
    blocks: dict[str, BlockStats]

    def to_json(self) -> dict[str, Any]:
        """What `data stats --json` prints."""
        told = ("fingerprint", "block_size", "packing", "vocab_size", "counts", "dedup", "splits")
        return {
            **{name: self.manifest[name] for name in told},
            "sources": [asdict(source) for source in self.sources],
            "domains": [asdict(domain) for domain in self.domains],
            "tokens": asdict(self.tokens),
            "blocks": {name: asdict(blocks) for name, blocks in self.blocks.items()},
        }


def stats_of(root: Path, data: Data, *, workers: int, report: Report) -> Stats:
    """Look at prepared data.

    Args:
        root: `<cache>/<fingerprint>`.
        data: the spec that it was made for.
        workers: processes, where near duplicates have to be looked for again.
        report: told how far it is.

    Raises:
        CacheNotReady: it is not there, or damaged.
    """
    cache = open_cache(root)
    manifest = cache.manifest
    readings = _readings(data)
    shards = shards_by_source(root, manifest, [reading.place for reading in readings])
    files = cache.tokens()
    report("choosing documents")
    kept = choose_documents(
        read_stored(readings, shards),
        files.shards,
        manifest["dtype"],
        data.dedup,
        fractions_of(readings, data),
        root.parent,
        workers=workers,
        report=lambda progress: report(progress.text),
    ).stored
    block_size = int(manifest["block_size"])
    return Stats(
        manifest=manifest,
        sources=[_source(kept, i, row, block_size) for i, row in enumerate(manifest["sources"])],
        domains=_domains(kept, isolated=data.isolate_documents),
        tokens=_tokens(kept, files, cache.tokenizer_dir, int(manifest["vocab_size"]), report),
        blocks={name: _blocks(root, name, block_size) for name in manifest["splits"]},
    )


def shards_by_source(
    root: Path, manifest: Manifest, places: Sequence[str]
) -> list[list[StoredShard]]:
    """The shards of prepared data, those of each source together.

    Raises:
        CacheNotReady: one cannot be opened.
    """
    own: dict[str, list[StoredShard]] = {place: [] for place in places}
    for about in manifest["shards"]:
        folder = shards_folder(root) / about["key"]
        shard = open_shard(folder, about["first_file"])
        if shard is None or about["source"] not in own:
            raise CacheNotReady(
                f"prepared data: {root} is damaged: {folder} cannot be used; run the preprocess"
                " phase again"
            )
        own[about["source"]].append(shard)
    return list(own.values())


def count_tokens(files: ShardFiles, starts: Numbers, lengths: Numbers, size: int) -> Numbers:
    """How often each id occurs in documents that ascend by address."""
    counts = np.zeros(size, dtype=np.int64)
    ends = starts + lengths
    for base, end in zip(files.bases, files.bases[1:], strict=False):
        for begin in range(base, end, PART_TOKENS):
            stop = min(begin + PART_TOKENS, end)
            rows = slice(np.searchsorted(ends, begin, side="right"), np.searchsorted(starts, stop))
            if rows.start >= rows.stop:
                continue
            steps = np.zeros(stop - begin + 1, dtype=np.int32)
            np.add.at(steps, np.maximum(starts[rows] - begin, 0), 1)
            np.subtract.at(steps, np.minimum(ends[rows], stop) - begin, 1)
            tokens = files[begin:stop][np.cumsum(steps[:-1]) > 0]
            counts += np.bincount(tokens, minlength=size)[:size]
    return counts


def _readings(data: Data) -> list[Reading]:
    """The sources in reading order; their files are not looked for."""
    own = len(data.sources)
    readings = [
        Reading(place, source, [], is_held_back=i >= own)
        for i, (place, source) in enumerate(sources_of(data))
    ]
    return sorted(readings, key=lambda reading: not reading.is_held_back)


def _source(kept: Stored, number: int, row: Manifest, block_size: int) -> SourceStats:
    here = kept.table.source == number
    lengths = kept.table.lengths[here]
    return SourceStats(
        place=row["place"],
        path=row.get("path", ""),
        documents=len(lengths),
        tokens=int(lengths.sum()),
        trained=row["supervised_tokens"],
        lengths=_lengths(lengths, block_size) if len(lengths) else None,
    )


def _lengths(lengths: Numbers, block_size: int) -> Lengths:
    # 1, 2-3, 4-7, 8-15 ...
    place = np.frexp(np.maximum(lengths, 1).astype(np.float64))[1] - 1
    documents = np.bincount(place)
    tokens = np.bincount(place, weights=lengths)
    first = int(np.flatnonzero(documents)[0])
    bins = [
        (1 << i, (2 << i) - 1, int(documents[i]), int(tokens[i]))
        for i in range(first, len(documents))
    ]
    asked = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
    quantiles = np.quantile(lengths, asked, method="lower").tolist()
    num_longer = int(np.count_nonzero(lengths > block_size))
    return Lengths(bins, [int(q) for q in quantiles], float(lengths.mean()), num_longer)


def _domains(kept: Stored, *, isolated: bool) -> list[DomainStats]:
    if not kept.domains:
        return []
    size = len(kept.domains) + 1
    # -1 for none goes to the end
    place = np.where(kept.domain < 0, size - 1, kept.domain)
    documents = np.bincount(place, minlength=size)
    tokens = np.bincount(place, weights=kept.table.lengths, minlength=size)
    supervised = kept.table.num_trained(isolated=isolated)
    trained = np.bincount(place, weights=supervised, minlength=size)
    names = [*kept.domains, "(none)"]
    order = np.argsort(-tokens, kind="stable").tolist()
    rows = [
        DomainStats(names[i], int(documents[i]), int(tokens[i]), int(trained[i]))
        for i in order
        if documents[i]
    ]
    rest = rows[TOP_DOMAINS:]
    if not rest:
        return rows
    sums = (sum(getattr(r, name) for r in rest) for name in ("documents", "tokens", "trained"))
    return [*rows[:TOP_DOMAINS], DomainStats(f"({len(rest):,} others)", *sums)]


def _tokens(
    kept: Stored, files: ShardFiles, tokenizer: Path, size: int, report: Report
) -> TokenStats:
    report("counting tokens")
    counts = count_tokens(files, kept.table.starts, kept.table.lengths, size)
    total = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    words = TokenWords(tokenizer / "tokenizer.json", load_vocabulary(tokenizer).is_special)
    top = [(i, words.word(i), int(counts[i])) for i in order[:TOP_TOKENS].tolist() if counts[i]]
    upto = np.cumsum(counts[order])
    sizes = [n for n in (10, 100, 1000, 10_000, 100_000) if n < size]
    edges = [0, *(10**i for i in range(len(str(int(counts.max(initial=0))))))]
    by_count = [
        (low, high - 1, int(np.count_nonzero((counts >= low) & (counts < high))))
        for low, high in zip(edges, [1, *(e * 10 for e in edges[1:])], strict=True)
    ]
    return TokenStats(
        total=total,
        top=top,
        coverage=[(n, float(upto[n - 1]) / total if total else 0.0) for n in sizes],
        unused=int(np.count_nonzero(counts == 0)),
        by_count=by_count,
    )


def _blocks(root: Path, split: str, block_size: int) -> BlockStats:
    offsets = np.load(root / plan_file(split, "offsets"), mmap_mode="r")
    lengths = np.load(root / plan_file(split, "lengths"), mmap_mode="r")
    fill = np.zeros(_FILL_BINS, dtype=np.int64)
    count = len(offsets) - 1
    for first in range(0, count, PART_BLOCKS):
        some = np.asarray(offsets[first : first + PART_BLOCKS + 1])
        upto = np.cumsum(lengths[some[0] : some[-1]], dtype=np.int64)
        ends = np.concatenate([np.zeros(1, dtype=np.int64), upto])[some - some[0]]
        # a full block belongs to the last tenth
        tenths = np.minimum(np.diff(ends) * _FILL_BINS // block_size, _FILL_BINS - 1)
        fill += np.bincount(tenths, minlength=_FILL_BINS)
    return BlockStats(fill.tolist(), float(offsets[-1]) / count if count else 0.0)
