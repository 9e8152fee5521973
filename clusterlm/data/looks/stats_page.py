"""The numbers of prepared data as one page of HTML, for `clusterlm data stats`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterlm.data.looks.page import Bar, bars, heading, page, paragraph, table
from clusterlm.data.looks.stats import Lengths, SourceStats, Stats
from clusterlm.data.summary import LOST, PLANNED, aligned, dropped_in_words, size_in_words

QUANTILES = ("shortest", "10 %", "median", "90 %", "99 %", "longest")


def stats_page(name: str, stats: Stats) -> str:
    """The page; `name` is that of the job."""
    body = [*_overview(stats), *_splits(stats)]
    for source in stats.sources:
        body += _source(source, int(stats.manifest["block_size"]))
    return page(f"{name}: prepared data", [*body, *_domains(stats), *_tokens(stats)])


def _overview(stats: Stats) -> Iterator[str]:
    about = stats.manifest
    counts = about["counts"]
    yield paragraph(
        f"{about['fingerprint']}: blocks of {about['block_size']:,} tokens ({about['packing']}),"
        f" vocabulary of {about['vocab_size']:,}"
    )
    yield heading("Sources")
    head = ("source", "path", "read", "documents", "kept", "tokens", "trained")
    rows = [_row(stats, number) for number in range(len(stats.sources))]
    yield table((*head, "left out"), rows, texts=(0, 1, len(head)))
    dedup, dropped = about["dedup"], counts["dropped"]
    if dropped.get("duplicate"):
        yield paragraph(f"exact duplicates: {dropped['duplicate']:,} dropped")
    if dedup["num_compared"]:
        yield paragraph(
            f"near duplicates: {dedup['num_near']:,} dropped; {dedup['num_compared']:,} pairs were"
            " compared"
        )
    if dropped.get("contaminated"):
        yield paragraph(f"decontamination: {dropped['contaminated']:,} dropped")


def _row(stats: Stats, number: int) -> Sequence[str]:
    source, row = stats.sources[number], stats.manifest["sources"][number]
    share = f" ({source.trained / source.tokens:.0%})" if source.tokens else ""
    return (
        source.place.removeprefix("data."),
        source.path,
        size_in_words(row["bytes"]),
        f"{row['documents']:,}",
        f"{source.documents:,}",
        f"{source.tokens:,}",
        f"{source.trained:,}{share}",
        dropped_in_words(row["dropped"]) or "-",
    )


def _splits(stats: Stats) -> Iterator[str]:
    yield heading("Blocks")
    rows = []
    for name, split in stats.manifest["splits"].items():
        room = split["tokens"] + split["padding"]
        lost = sum(split["lost"].values())
        rows.append(
            (
                name,
                f"{split['documents']:,}",
                f"{split['blocks']:,}",
                f"{split['tokens']:,}",
                f"{split['supervised_tokens']:,}",
                f"{split['tokens'] / room:.2%}" if room else "-",
                f"{stats.blocks[name].pieces_per_block:.1f}",
                f"{lost:,} ({lost / (lost + split['tokens']):.2%})" if lost else "-",
            )
        )
    head = ("split", "documents", "blocks", "tokens", "trained", "filled", "pieces/block")
    yield table((*head, "tokens lost"), rows)
    for name, split in stats.manifest["splits"].items():
        for key, number in split["lost"].items():
            if number:
                yield paragraph(f"{name}: {number:,} tokens {LOST[key]}")
        for key, number in split["dropped"].items():
            if number:
                yield paragraph(f"{name}: {number:,} documents {PLANNED[key]}")
        fill = stats.blocks[name].fill
        if split["padding"]:
            yield heading(f"How full the blocks of {name} are", 3)
            tenths = [
                Bar(f"{10 * i}-{10 * i + 10} %", count, (f"{count:,}",))
                for i, count in enumerate(fill)
            ]
            yield bars(("filled", "blocks"), tenths)


def _source(source: SourceStats, block_size: int) -> Iterator[str]:
    yield heading(f"{source.place}  {source.path}")
    if source.lengths is None:
        yield paragraph("no document is kept")
        return
    yield paragraph(lengths_in_words(source.lengths, block_size))
    yield bars(
        ("tokens in a document", "documents", "", "tokens", ""),
        [
            Bar(
                f"{first:,}-{last:,}" if first != last else f"{first}",
                count,
                (
                    f"{count:,}",
                    f"{count / source.documents:.1%}",
                    f"{tokens:,}",
                    f"{tokens / source.tokens:.1%}",
                ),
            )
            for first, last, count, tokens in source.lengths.bins
        ],
    )


def lengths_in_words(lengths: Lengths, block_size: int) -> str:
    """One line on how long the documents of a source are."""
    spread = ", ".join(f"{n} {q:,}" for n, q in zip(QUANTILES, lengths.quantiles, strict=True))
    words = f"tokens in a document: {spread}, mean {lengths.mean:,.0f}"
    if lengths.num_longer:
        words += f"; {lengths.num_longer:,} longer than a block of {block_size:,}"
    return words


def lengths_table(stats: Stats) -> list[str]:
    """The same of all sources, for a terminal."""
    head = ("tokens in a document", *QUANTILES, "mean", "longer than a block")
    rows = [
        (
            source.place.removeprefix("data."),
            *(f"{number:,}" for number in source.lengths.quantiles),
            f"{source.lengths.mean:,.0f}",
            f"{source.lengths.num_longer:,}",
        )
        for source in stats.sources
        if source.lengths is not None
    ]
    return aligned([head, *rows])


def _domains(stats: Stats) -> Iterator[str]:
    if not stats.domains:
        return
    total = sum(domain.tokens for domain in stats.domains) or 1
    yield heading("Domains")
    yield bars(
        ("domain", "documents", "tokens", "", "trained"),
        [
            Bar(
                domain.name,
                domain.tokens,
                (
                    f"{domain.documents:,}",
                    f"{domain.tokens:,}",
                    f"{domain.tokens / total:.1%}",
                    f"{domain.trained:,}",
                ),
            )
            for domain in stats.domains
        ],
    )


def _tokens(stats: Stats) -> Iterator[str]:
    tokens, size = stats.tokens, int(stats.manifest["vocab_size"])
    yield heading("Tokens")
    shares = ", ".join(f"{share:.1%} by the first {n:,}" for n, share in tokens.coverage)
    unused = f"{tokens.unused:,} of {size:,} entries of the vocabulary never occur"
    yield paragraph(f"{tokens.total:,} tokens; {shares or 'few entries'}; {unused}")
    yield heading("How many entries occur how often", 3)
    yield bars(
        ("times", "entries"),
        [
            Bar("never" if not most else f"{least:,}-{most:,}", count, (f"{count:,}",))
            for least, most, count in tokens.by_count
        ],
    )
    yield heading(f"The {len(tokens.top)} most frequent", 3)
    total, upto, rows = tokens.total or 1, 0, []
    for one, word, count in tokens.top:
        upto += count
        cells = (str(one), f"{count:,}", f"{count / total:.2%}", f"{upto / total:.1%}")
        rows.append(Bar(word if word.strip() == word else repr(word), count, cells))
    yield bars(("token", "id", "times", "share", "together"), rows)
