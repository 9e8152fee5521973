"""GPT-2's, Llama-3's and Qwen-3's tokenizers, put together from vocabularies on PyPI.

No hub is asked. GPT-2's ranks lie in the package openai-whisper; Llama-3's and Qwen-3's are inside
splintr-rs, which also gives a second opinion on the ids. A vocabulary in order of ranks is all that
byte-level BPE needs: the merges follow from it. What is not as on the hub: no beginning-of-text
token is put in front by itself.

    python -m benchmarks.tokenizers_real FOLDER     (with the Python of `.bench/venv`)
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS_ON = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _LETTERS_ON
QWEN_REGEX = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _LETTERS_ON

_QWEN_PAIRS = ("object_ref", "box", "quad", "vision")
QWEN_SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *(f"<|{name}_{side}|>" for name in _QWEN_PAIRS for side in ("start", "end")),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>"),
    *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>"),
    *("<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
]
LLAMA3_SPECIALS = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}

CHAT_TEMPLATE = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.role == 'assistant' %}
{%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
{%- else %}{{ message.content + '<|im_end|>' }}{% endif %}
{{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

Merge = tuple[bytes, bytes]


class Kind(NamedTuple):
    """What makes one tokenizer different from the others."""

    ranks: list[bytes]
    regex: str | None
    specials: list[str]
    eos: str
    unspecial: frozenset[str] = frozenset()
    all_merges: bool = False
    normalizer: dict[str, Any] | None = None


def kinds() -> dict[str, Kind]:
    """The three, by name."""
    llama3_names = [LLAMA3_SPECIALS.get(i) for i in range(256)]
    unnamed = iter(range(256))
    llama3 = [name or f"<|reserved_special_token_{next(unnamed)}|>" for name in llama3_names]
    unspecial = frozenset(name for name in QWEN_SPECIALS if name[1] != "|" or "fim" in name)
    nfc = {"type": "NFC"}
    return {
        "gpt2": Kind(_whisper_ranks(), None, ["<|endoftext|>"], "<|endoftext|>"),
        "llama3": Kind(
            _splintr_ranks("llama3", 128_000),
            LLAMA3_REGEX,
            llama3,
            "<|end_of_text|>",
            all_merges=True,
        ),
        "qwen3": Kind(
            _splintr_ranks("qwen3", 151_643),
            QWEN_REGEX,
            QWEN_SPECIALS,
            "<|endoftext|>",
            unspecial=unspecial,
            normalizer=nfc,
        ),
    }


def build_tokenizers(folder: Path) -> None:
    """Write `<folder>/<name>/tokenizer.json` and its config, where they are not yet."""
    for name, kind in kinds().items():
        place = folder / name
        if (place / "tokenizer_config.json").exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_tokenizer_json(kind), ensure_ascii=False)
        (place / "tokenizer.json").write_text(text)
        _require_same_ids(name, text)
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": kind.eos,
            "pad_token": kind.eos,
            "model_max_length": 10**9,
            "clean_up_tokenization_spaces": False,
        }
        if name == "qwen3":
            config["chat_template"] = CHAT_TEMPLATE
        (place / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
        print(f"{place}: {len(kind.ranks) + len(kind.specials)} entries", flush=True)


def _whisper_ranks() -> list[bytes]:
    """GPT-2's tokens, by rank, from openai-whisper's own copy."""
    found = importlib.util.find_spec("whisper")
    if found is None or found.origin is None:
        raise RuntimeError("openai-whisper is not installed here; it holds GPT-2's vocabulary")
    lines = (Path(found.origin).parent / "assets/gpt2.tiktoken").read_text().splitlines()
    ranks = {int(rank): base64.b64decode(token) for token, rank in map(str.split, lines)}
    return [ranks[i] for i in range(len(ranks))]


def _splintr_ranks(name: str, count: int) -> list[bytes]:
    from splintr import Tokenizer

    tokenizer = Tokenizer.from_pretrained(name)
    return [tokenizer.decode_token_bytes(i) for i in range(count)]


def _tokenizer_json(kind: Kind) -> dict[str, Any]:
    letter = _byte_letters()
    spelled = {token: "".join(letter[b] for b in token) for token in kind.ranks}
    rank_of = {token: rank for rank, token in enumerate(kind.ranks)}
    merges = _all_merges(rank_of) if kind.all_merges else _own_merges(rank_of)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    pre: dict[str, Any] = byte_level | {"use_regex": True}
    if kind.regex:
        split = {"pattern": {"Regex": kind.regex}, "behavior": "Isolated", "invert": False}
        by_bytes = byte_level | {"use_regex": False}
        pre = {"type": "Sequence", "pretokenizers": [{"type": "Split"} | split, by_bytes]}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(kind, i, name) for i, name in enumerate(kind.specials)],
        "normalizer": kind.normalizer,
        "pre_tokenizer": pre,
        "post_processor": byte_level | {"use_regex": True, "trim_offsets": False},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": kind.all_merges,
            "vocab": {spelled[token]: rank for token, rank in rank_of.items()},
            "merges": [[spelled[left], spelled[right]] for left, right in merges],
        },
    }


def _added(kind: Kind, number: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = name not in kind.unspecial
    return {"id": len(kind.ranks) + number, "content": name, **flags, "special": special}


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in byte-level BPE: 32 -> Ġ."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(spare)) for byte in range(256)]


def _own_merges(rank_of: dict[bytes, int]) -> Iterator[Merge]:
    """The one merge that made each token: what the merges before it leave of its bytes."""
    for token, rank in rank_of.items():
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            ranks = [rank_of.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            at = min(range(len(ranks)), key=ranks.__getitem__)
            if ranks[at] >= rank:
                raise ValueError(f"token {rank} {token!r} cannot be made by merges")
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        yield parts[0], parts[1]


def _all_merges(rank_of: dict[bytes, int]) -> Iterator[Merge]:
    """Every pair of tokens that spells a token, as Llama-3's file lists them."""
    for token in rank_of:
        pairs = ((token[:i], token[i:]) for i in range(1, len(token)))
        known = [(a, b) for a, b in pairs if a in rank_of and b in rank_of]
        yield from sorted(known, key=lambda pair: (rank_of[pair[0]], rank_of[pair[1]]))


def _require_same_ids(name: str, text: str) -> None:
    """What was put together gives the ids of splintr's own implementation."""
    if name == "gpt2":
        return
    from splintr import Tokenizer as Second
    from tokenizers import Tokenizer

    sample = (
        Path(json.__file__).read_text() + "Привет, мир! 你好，世界。 naïve café\r\n\n  12345 don't"
    )
    ours = Tokenizer.from_str(text).encode(sample, add_special_tokens=False).ids
    if ours != list(Second.from_pretrained(name).encode_ordinary(sample)):
        raise RuntimeError(f"{name}: the tokenizer that was put together gives other ids")


if __name__ == "__main__":
    build_tokenizers(Path(sys.argv[1]))
