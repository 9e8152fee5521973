"""Conversations out of real sentences: two to eight turns of one to six sentences each."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from benchmarks.folder import BENCH

NUMBER = 8_000
_SENTENCE = re.compile(r"[^.!?。！？\n]{15,300}[.!?。！？]")


def conversations_of(corpus: Path, number: int = NUMBER) -> Path:
    """A jsonl file of `messages`, made once from the prose of the corpus."""
    path = BENCH / f"conversations-{number}-{corpus.stem}.jsonl"
    if path.exists():
        return path
    sentences = _sentences(corpus, wanted=number * 12)
    chance = random.Random(0)
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8") as file:
        for _ in range(number):
            # sentences that stand near each other are of one language
            at = chance.randrange(len(sentences))
            near = sentences[at : at + 40] or sentences[:40]
            file.write(json.dumps({"messages": _messages(near, chance)}, ensure_ascii=False) + "\n")
    aside.rename(path)
    return path


def _messages(sentences: list[str], chance: random.Random) -> list[dict[str, str]]:
    messages = []
    if chance.random() < 0.3:
        messages.append({"role": "system", "content": _words(sentences, chance, 1)})
    for _ in range(chance.randint(1, 4)):
        messages.append({"role": "user", "content": _words(sentences, chance, 2)})
        messages.append({"role": "assistant", "content": _words(sentences, chance, 6)})
    return messages


def _words(sentences: list[str], chance: random.Random, at_most: int) -> str:
    return " ".join(chance.choice(sentences) for _ in range(chance.randint(1, at_most)))


def _sentences(corpus: Path, *, wanted: int) -> list[str]:
    found: list[str] = []
    with corpus.open(encoding="utf-8") as rows:
        for row in rows:
            document = json.loads(row)
            if document["kind"] != "code":
                found += [s.strip() for s in _SENTENCE.findall(document["text"])[:40]]
            if len(found) >= wanted:
                break
    return found
