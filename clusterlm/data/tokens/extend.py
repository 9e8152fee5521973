"""More entries for an existing tokenizer: words, marks, and what further training would merge.

Old ids keep their meaning, and new ones come behind them, in this order: special tokens, words,
learned entries. Learning goes on where the tokenizer's own training (byte-level BPE) stopped: the
texts are split into its words and its tokens, and the pair of tokens that stands side by side most
often becomes an entry, again and again. New merges rank behind all old ones, so a text is first
merged as before, and then further.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tokenizers

from clusterlm.data.tokens.token_bytes import byte_alphabet, is_byte_level, read_tokenizer
from clusterlm.errors import DataError
from clusterlm.node.files import read_json
from clusterlm.spec.data import ExtendTokenizer

# they tell the old vocabulary; tokenizer.json holds everything
_OUTDATED = ("vocab.json", "merges.txt", "added_tokens.json")
_CONFIG = "tokenizer_config.json"
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}

Pair = tuple[int, int]


def extend_tokenizer(folder: Path, spec: ExtendTokenizer, texts: Iterable[list[str]] = ()) -> None:
    """Add to the tokenizer in `folder` what `spec` asks for.

    Args:
        folder: with a tokenizer.json, which is replaced.
        spec: what to add.
        texts: to learn from; drawn from only when `spec.learn` is set.

    Raises:
        DataError: the tokenizer is not of the kind that can learn; a word cannot be added to it.
    """
    path = folder / "tokenizer.json"
    parts = read_tokenizer(path)
    if spec.learn and not is_byte_level(parts):
        raise DataError(
            "data.tokenizer.extend.learn: only byte-level BPE tokenizers (GPT-2, Llama-3, Qwen)"
            " can learn; leave it out, and name words in tokens"
        )
    added = [*_add_tokens(parts, spec)]
    if spec.learn:
        _learn(parts, spec, texts)
    text = json.dumps(parts, ensure_ascii=False)
    _confirm_ids(text, parts)
    path.write_text(text, encoding="utf-8")
    for name in _OUTDATED:
        (folder / name).unlink(missing_ok=True)
    _add_to_config(folder / _CONFIG, added)


def _add_tokens(parts: dict[str, Any], spec: ExtendTokenizer) -> Iterator[dict[str, Any]]:
    """Put special tokens and words behind the vocabulary; those that are there already stay."""
    added = parts["added_tokens"] = parts.get("added_tokens") or []
    _pin_ids(parts)
    present = {token["content"] for token in added}
    wanted = [(text, True) for text in spec.special_tokens] + [
        (text, False) for text in spec.tokens
    ]
    for text, is_special in dict(wanted).items():
        if text in present:
            continue
        if is_byte_level(parts):
            _refuse_byte_letters(text)
        vocab = parts["model"]["vocab"]
        known = vocab.get(text) if isinstance(vocab, dict) else None
        number = _next_id(parts) if known is None else known
        token = {"id": number, "content": text, **_FLAGS, "special": is_special}
        added.append(token)
        _pin_ids(parts)
        yield token
    # the library wants them in this order
    added.sort(key=lambda token: token["id"])


def _refuse_byte_letters(text: str) -> None:
    # é is also how the vocabulary spells the byte 0xE9, and is taken for that when decoded
    if not text.isascii() and all(letter in byte_alphabet() for letter in text):
        raise DataError(
            f"data.tokenizer.extend: {text!r} cannot be added to a byte-level tokenizer, which"
            " would decode it to something else; leave it out, or let it be learned"
        )


def _pin_ids(parts: dict[str, Any]) -> None:
    # an added token that the model does not know gets the number behind the model's last entry,
    # whatever the file says; a learned entry would move it
    if parts["model"].get("type") == "BPE":
        parts["model"]["vocab"] |= {t["content"]: t["id"] for t in parts["added_tokens"]}


def _next_id(parts: dict[str, Any]) -> int:
    vocab = parts["model"]["vocab"]
    ids = range(len(vocab)) if isinstance(vocab, list) else vocab.values()
    added = (token["id"] for token in parts["added_tokens"])
    return 1 + int(max(max(ids, default=-1), max(added, default=-1)))


def _confirm_ids(text: str, parts: dict[str, Any]) -> None:
    encoder = tokenizers.Tokenizer.from_str(text)
    for token in parts["added_tokens"]:
        found = encoder.token_to_id(token["content"])
        if found != token["id"]:
            raise DataError(
                f"data.tokenizer.extend: this tokenizer cannot hold {token['content']!r} at"
                f" {token['id']} (it reads {found}); extend it with transformers, and name the"
                " folder that you save it in"
            )


def _add_to_config(config_file: Path, added: list[dict[str, Any]]) -> None:
    config = read_json(config_file) or {}
    # only some configs repeat the added tokens
    if added and "added_tokens_decoder" in config:
        for token in added:
            flags = {key: value for key, value in token.items() if key != "id"}
            config["added_tokens_decoder"][str(token["id"])] = flags
        config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _learn(parts: dict[str, Any], spec: ExtendTokenizer, texts: Iterable[list[str]]) -> None:
    """Append the entries and merges that the texts ask for."""
    vocab, merges = parts["model"]["vocab"], parts["model"]["merges"]
    # older files write "Ġ t", newer ones ["Ġ", "t"]
    is_joined = bool(merges) and isinstance(merges[0], str)
    spelling = {number: entry for entry, number in vocab.items()}
    words = _Words(_count_words(parts, texts))
    number = _next_id(parts)
    last = number + spec.learn
    while number < last and (pair := words.most_frequent(spec.min_frequency)):
        left, right = (spelling[token] for token in pair)
        # another pair has this entry already: two ways to it would change what old texts give
        if left + right in vocab:
            words.forget(pair)
            continue
        words.merge(pair, number)
        vocab[left + right] = number
        spelling[number] = left + right
        merges.append(f"{left} {right}" if is_joined else [left, right])
        number += 1


def _count_words(parts: dict[str, Any], texts: Iterable[list[str]]) -> dict[tuple[int, ...], int]:
    """How often each word of the texts occurs, as the ids that it has now."""
    encoder = tokenizers.Tokenizer.from_str(json.dumps(parts, ensure_ascii=False))
    contents = sorted((token["content"] for token in parts["added_tokens"]), key=len, reverse=True)
    # never merged with anything, so never part of a word
    apart = re.compile("|".join(map(re.escape, contents)) or r"(?!)")
    counts: Counter[str] = Counter()
    for some in texts:
        for text in some:
            for piece in apart.split(text):
                plain = encoder.normalizer.normalize_str(piece) if encoder.normalizer else piece
                words = encoder.pre_tokenizer.pre_tokenize_str(plain)
                counts.update(word for word, _ in words)
    ids: Counter[tuple[int, ...]] = Counter()
    for word, count in counts.items():
        ids[tuple(token.id for token in encoder.model.tokenize(word))] += count
    return ids


class _Words:
    """Words as lists of tokens, with the count of every pair of neighbours kept up to date."""

    def __init__(self, counts: dict[tuple[int, ...], int]) -> None:
        kept = [(list(word), count) for word, count in counts.items() if len(word) > 1]
        self._words = [word for word, _ in kept]
        self._counts = [count for _, count in kept]
        self._pairs: Counter[Pair] = Counter()
        self._places: defaultdict[Pair, set[int]] = defaultdict(set)
        self._forgotten: set[Pair] = set()
        for place, (word, count) in enumerate(kept):
            for pair in zip(word, word[1:], strict=False):
                self._pairs[pair] += count
                self._places[pair].add(place)
        # of equal counts the pair of the lower ids is first
        self._heap = [(-count, pair) for pair, count in self._pairs.items()]
        heapq.heapify(self._heap)

    def most_frequent(self, least: int) -> Pair | None:
        """The pair that occurs most often; None when none occurs `least` times."""
        while self._heap:
            count, pair = self._heap[0]
            now = self._pairs.get(pair, 0)
            if -count == now and pair not in self._forgotten:
                return pair if now >= least else None
            heapq.heappop(self._heap)
            # it has lost some since it was put there; what gains is put there anew
            if 0 < now < -count and pair not in self._forgotten:
                heapq.heappush(self._heap, (-now, pair))
        return None

    def forget(self, pair: Pair) -> None:
        """Never give `pair` again."""
        self._forgotten.add(pair)

    def merge(self, pair: Pair, number: int) -> None:
        """Put the token `number` in the place of `pair`, in every word."""
        gained: set[Pair] = set()
        for place in self._places.pop(pair):
            gained |= self._merge_in(place, pair, number)
        del self._pairs[pair]
        for new in gained:
            if new in self._pairs:
                heapq.heappush(self._heap, (-self._pairs[new], new))

    def _merge_in(self, place: int, pair: Pair, number: int) -> set[Pair]:
        word, count = self._words[place], self._counts[place]
        merged: list[int] = []
        i = 0
        while i < len(word):
            if word[i] == pair[0] and word[i + 1 : i + 2] == [pair[1]]:
                merged.append(number)
                i += 2
            else:
                merged.append(word[i])
                i += 1
        self._words[place] = merged
        for old in zip(word, word[1:], strict=False):
            self._pairs[old] -= count
        for new in zip(merged, merged[1:], strict=False):
            self._pairs[new] += count
            self._places[new].add(place)
        return {new for new in zip(merged, merged[1:], strict=False) if number in new}
