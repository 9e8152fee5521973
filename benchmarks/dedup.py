"""Duplicates: ours against datasketch and rensa, on real texts with planted near duplicates.

    python -m benchmarks.dedup [--corpus FILE.jsonl] [--tokenizer tokenizer.json] [--megabytes 25]

Needs `pip install datasketch rensa tokenizers` beside the package. Seconds are those of the
processor, one core each, so that a busy machine distorts less. Ours makes shingles of 8 tokens of
the stream that is there anyway once a text is tokenized; the others make shingles of 5 words of the
text, as their users do. So each is measured by its own similarity: recall is over the planted pairs
that are 0.8 or more alike by it, precision over all documents that it drops. Without --corpus the
machine's own documentation and Python code serve; without --tokenizer a byte-level BPE is learned
from them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

# before rensa is imported: one core
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import numpy as np
import tokenizers
import xxhash

from clusterlm.data.alike.contaminated import contaminated, index_validation
from clusterlm.data.alike.near import bands_of, near_duplicates, similarities_of
from clusterlm.data.alike.shingles import shingles_of, windows_of
from clusterlm.data.alike.signatures import signatures_of
from clusterlm.data.dedup import digest_of, first_occurrences
from clusterlm.spec.data import Decontaminate, NearDuplicates

SPEC = NearDuplicates()
FOLDERS = ("/usr/share/doc", "/usr/share/common-licenses", "/usr/share/perl", "/usr/lib/python3")
ENDINGS = frozenset((".txt", ".md", ".rst", ".py", ".pod", ".pm", ".gz", ".html", ".c", ".h", ""))
NUM_PLANTED = 1000
ROUNDS = 3
WORDS = 5


@dataclass
class Corpus:
    """Texts, the last NUM_PLANTED of them changed copies of the first."""

    texts: list[str]
    tokens: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @property
    def megabytes(self) -> float:
        return sum(len(text.encode()) for text in self.texts) / 1e6

    def tokens_of(self, row: int) -> np.ndarray:
        return self.tokens[self.starts[row] : self.starts[row] + self.lengths[row]]


@dataclass
class Side:
    """One way to do it: `sketch` gives what `find` needs, `find` the dropped rows."""

    name: str
    sketch: Callable[[Corpus], Any]
    find: Callable[[Corpus, Any], set[int]] | None = None
    sketch_s: list[float] = field(default_factory=list)
    find_s: list[float] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)

    def run(self, corpus: Corpus) -> None:
        began = time.process_time()
        sketches = self.sketch(corpus)
        self.sketch_s.append(time.process_time() - began)
        if self.find is not None:
            began = time.process_time()
            self.dropped = self.find(corpus, sketches)
            self.find_s.append(time.process_time() - began)

    @property
    def total_s(self) -> list[float]:
        return [a + b for a, b in zip(self.sketch_s, self.find_s, strict=True)]


# -- the corpus ----------------------------------------------------------------------------------


def read_texts(path: Path | None, limit: int) -> Iterator[str]:
    """Texts of 700 to 100,000 characters until there are `limit` bytes of them."""
    size = 0
    for text in _of_jsonl(path) if path else _of_machine():
        if 700 <= len(text) <= 100_000:
            size += len(text.encode())
            yield text
        if size >= limit:
            return


def _of_jsonl(path: Path) -> Iterator[str]:
    with path.open() as file:
        for line in file:
            yield str(json.loads(line)["text"])


def _of_machine() -> Iterator[str]:
    own = Path(np.__file__).parents[1]
    files = [file for folder in (*FOLDERS, str(own)) for file in Path(folder).rglob("*")]
    files = sorted(file for file in files if file.suffix in ENDINGS and file.is_file())
    random.Random(0).shuffle(files)
    for file in files:
        raw = file.read_bytes()
        try:
            yield (gzip.decompress(raw) if file.suffix == ".gz" else raw).decode()
        except (UnicodeDecodeError, OSError, EOFError):
            continue


def plant(texts: list[str]) -> list[str]:
    """Copies of the first texts with up to 5 of 100 words changed."""
    chance = random.Random(1)
    words = [word for text in texts[:200] for word in text.split()]
    copies = []
    for text in texts[:NUM_PLANTED]:
        parts = text.split(" ")
        for _ in range(round(len(parts) * chance.uniform(0, 0.05))):
            parts[chance.randrange(len(parts))] = chance.choice(words)
        copies.append(" ".join(parts))
    return copies


def learn_tokenizer(texts: list[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE of 32000 entries."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=32_000,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_corpus(args: argparse.Namespace) -> Corpus:
    texts = list(dict.fromkeys(read_texts(args.corpus, args.megabytes * 1_000_000)))
    texts += plant(texts)
    tokenizer = (
        tokenizers.Tokenizer.from_file(str(args.tokenizer))
        if args.tokenizer
        else learn_tokenizer(texts[:-NUM_PLANTED])
    )
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 65_536 else np.uint32
    encoded = [np.array(each.ids, dtype) for each in tokenizer.encode_batch_fast(texts)]
    lengths = np.array([len(each) for each in encoded], dtype=np.int64)
    return Corpus(texts, np.concatenate(encoded), np.cumsum(lengths) - lengths, lengths)


# -- the sides -----------------------------------------------------------------------------------


def sketch_ours(corpus: Corpus) -> np.ndarray:
    return signatures_of(corpus.tokens, corpus.starts, corpus.lengths, SPEC)


def find_ours(corpus: Corpus, signatures: np.ndarray) -> set[int]:
    def shingles(row: int) -> np.ndarray:
        return shingles_of(corpus.tokens_of(row), SPEC.shingle)

    count = partial(similarities_of, shingles_of=shingles)
    found = near_duplicates(signatures, SPEC, count_shingles=count)
    return set(found.pairs[:, 0].tolist())


def word_shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]


def sketch_datasketch(corpus: Corpus) -> list[Any]:
    from datasketch import MinHash

    sketches = []
    for text in corpus.texts:
        sketch = MinHash(num_perm=SPEC.permutations)
        sketch.update_batch([shingle.encode() for shingle in word_shingles(text)])
        sketches.append(sketch)
    return sketches


def find_datasketch(_: Corpus, sketches: list[Any]) -> set[int]:
    from datasketch import MinHashLSH

    index, dropped = MinHashLSH(threshold=SPEC.threshold, num_perm=SPEC.permutations), set()
    for row, sketch in enumerate(sketches):
        near = (sketches[other].jaccard(sketch) >= SPEC.threshold for other in index.query(sketch))
        if any(near):
            dropped.add(row)
        else:
            index.insert(row, sketch)
    return dropped


def sketch_rensa(corpus: Corpus) -> Any:
    from rensa import RMinHash

    sets = (word_shingles(text) for text in corpus.texts)
    return RMinHash.from_token_sets(sets, num_perm=SPEC.permutations, seed=42)


def find_rensa(corpus: Corpus, sketches: Any) -> set[int]:
    from rensa import RMinHashDeduplicator

    index = RMinHashDeduplicator(
        threshold=SPEC.threshold, num_perm=SPEC.permutations, use_lsh=True, num_bands=32
    )
    keep = index.add_pairs((str(row), sketch) for row, sketch in enumerate(sketches))
    return {row for row, kept in enumerate(keep) if not kept}


def sketch_rensa_rho(corpus: Corpus) -> Any:
    from rensa import RMinHash

    sets = (word_shingles(text) for text in corpus.texts)
    return RMinHash.digest_matrix_from_token_sets_rho(sets, num_perm=SPEC.permutations, seed=42)


def sketch_rensa_of_hashes(corpus: Corpus) -> Any:
    from rensa import RMinHash

    parts = list(windows_of(corpus.tokens, corpus.starts, corpus.lengths, SPEC.shingle))
    hashes = np.concatenate([part.hashes for part in parts])
    counts = np.zeros(len(corpus.texts), dtype=np.uint64)
    for part in parts:
        counts[part.rows] += part.counts.astype(np.uint64)
    offsets = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(counts)])
    return RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, num_perm=SPEC.permutations, seed=42
    )


# -- what is true --------------------------------------------------------------------------------


class Truth:
    """True similarities of documents given as sets of hashes."""

    def __init__(self, sets: list[np.ndarray]) -> None:
        self._sizes = np.array([len(each) for each in sets])
        values, owners = np.concatenate(sets), np.repeat(np.arange(len(sets)), self._sizes)
        order = np.argsort(values)
        self._sets, self._values, self._owners = sets, values[order], owners[order]

    def before(self, row: int) -> np.ndarray:
        """Of one document to each before it."""
        left = np.searchsorted(self._values, self._sets[row], side="left")
        right = np.searchsorted(self._values, self._sets[row], side="right")
        holders = np.concatenate([self._owners[a:b] for a, b in zip(left, right, strict=True)])
        common = np.bincount(holders, minlength=len(self._sets))
        return (common / (self._sizes + self._sizes[row] - common))[:row]

    def judge(self, dropped: set[int]) -> tuple[float, int, float]:
        """Recall, of how many planted pairs, and precision."""
        first = len(self._sets) - NUM_PLANTED
        near = [
            first + k
            for k in range(NUM_PLANTED)
            # else its original was near another text, and nothing says that the copy is
            if k not in dropped and self.before(first + k)[k] >= SPEC.threshold
        ]
        recall = float(np.mean([row in dropped for row in near]))
        right = [self.before(row).max(initial=0) >= SPEC.threshold for row in sorted(dropped)]
        return recall, len(near), float(np.mean(right))


def word_sets(corpus: Corpus) -> list[np.ndarray]:
    return [
        np.unique(
            np.array(
                [xxhash.xxh3_64_intdigest(each.encode()) for each in word_shingles(text)], np.uint64
            )
        )
        for text in corpus.texts
    ]


def token_sets(corpus: Corpus) -> list[np.ndarray]:
    rows = range(len(corpus.texts))
    return [shingles_of(corpus.tokens_of(row), SPEC.shingle) for row in rows]


# -- tables --------------------------------------------------------------------------------------


def compare(corpus: Corpus) -> None:
    sides = [
        Side("ours", sketch_ours, find_ours),
        Side("datasketch", sketch_datasketch, find_datasketch),
        Side("rensa R-MinHash", sketch_rensa, find_rensa),
        Side("rensa rho (samples), sketch only", sketch_rensa_rho),
        Side("rensa R-MinHash of our shingles, sketch only", sketch_rensa_of_hashes),
    ]
    for _ in range(ROUNDS):
        for side in sides:
            side.run(corpus)
    by_words, by_tokens = Truth(word_sets(corpus)), Truth(token_sets(corpus))
    ours = sides[0]
    print(f"\nNear duplicates, one core, {bands_of(SPEC)} bands and rows   (goal: 20 x datasketch)")
    print(f"  {'':<46}{'MB/s':>8}{'ours is':>9}{'in all':>9}{'ours is':>9}  recall  precision")
    for side in sides:
        line = f"  {side.name:<46}{corpus.megabytes / statistics.median(side.sketch_s):>8.1f}"
        line += f"{_times(side.sketch_s, ours.sketch_s):>8.1f}x"
        if side.find is not None:
            line += f"{corpus.megabytes / statistics.median(side.total_s):>9.1f}"
            line += f"{_times(side.total_s, ours.total_s):>8.1f}x"
            truth = by_tokens if side is ours else by_words
            recall, count, precision = truth.judge(side.dropped)
            line += f"  {recall:.3f} (of {count})  {precision:.3f} (of {len(side.dropped)})"
        print(line, flush=True)


def _times(theirs: list[float], ours: list[float]) -> float:
    """Median of the ratios round by round."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def other_steps(corpus: Corpus) -> None:
    print("\nThe other steps, one core")
    # every 50th document is validation
    held = np.arange(len(corpus.texts)) % 50 == 0
    began = time.process_time()
    index = index_validation(
        corpus.tokens, corpus.starts[held], corpus.lengths[held], Decontaminate()
    )
    print(f"  index of {held.sum()} validation documents: {time.process_time() - began:.2f} s")
    began = time.process_time()
    found = contaminated(corpus.tokens, corpus.starts[~held], corpus.lengths[~held], index)
    rate = corpus.megabytes * (~held).mean() / (time.process_time() - began)
    print(f"  decontamination: {rate:.0f} MB/s, {found.mask.sum()} documents found")

    count = 1_000_000
    digests = [digest_of(b"%d" % (number % 900_000)) for number in range(count)]
    rows = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    began = time.process_time()
    firsts = first_occurrences(rows)
    ours_s = time.process_time() - began
    began = time.process_time()
    seen: set[bytes] = set()
    repeats = sum(digest in seen or seen.add(digest) is not None for digest in digests)
    set_s = time.process_time() - began
    found_ours = int((firsts != np.arange(count)).sum())
    print(
        f"  exact, a million digests: {found_ours:,} repeats in {ours_s:.2f} s;"
        f" a Python set {repeats:,} in {set_s:.2f} s"
    )


def a_million(count: int) -> None:
    """Random signatures, every fifth document with a near duplicate; then families that share."""
    chance = np.random.default_rng(0)
    signatures = chance.integers(0, 2**32 - 1, (count, SPEC.permutations), dtype=np.uint32)

    def copy(to: np.ndarray, of: np.ndarray, similarity: float) -> None:
        for here in np.array_split(np.arange(len(to)), max(1, len(to) // 50_000)):
            same = chance.random((len(here), SPEC.permutations)) < similarity
            signatures[to[here]] = np.where(same, signatures[of[here]], signatures[to[here]])

    fifth = np.arange(count // 5)
    copy(fifth + count // 2, fifth, 0.85)
    print(f"\n{count:,} documents, signatures of {signatures.nbytes >> 20} MiB")
    _time_million("a fifth near another (0.85)", signatures)
    tenth = np.arange(count // 10)
    copy(tenth + count // 4, fifth[-1] + tenth // 50, 0.9)
    copy(tenth + 8 * count // 10, count // 3 + tenth // 1000, 0.7)
    copy(np.arange(count - count // 20, count), np.full(count // 20, count // 3 - 1), 0.6)
    _time_million("and copies by 50, families of 1,000 (0.5), boilerplate (0.4)", signatures)


def _time_million(name: str, signatures: np.ndarray) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    found = near_duplicates(signatures, SPEC)
    took = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"  {name}: {took:.1f} s, {len(found.pairs):,} dropped,"
        f" {found.num_compared:,} compared, peak memory + {grown >> 10} MiB"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--megabytes", type=int, default=25)
    parser.add_argument("--documents", type=int, default=1_000_000)
    args = parser.parse_args()
    corpus = make_corpus(args)
    size = corpus.megabytes
    print(
        f"{len(corpus.texts):,} documents, {size:.1f} MB,"
        f" {size * 1e6 / len(corpus.tokens):.2f} bytes a token, {NUM_PLANTED} planted"
    )
    compare(corpus)
    other_steps(corpus)
    a_million(args.documents)


if __name__ == "__main__":
    main()
