"""Small tokenizers of every style, trained on a few texts: the pipelines of the large ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace("{1,3}", "")
QWEN_35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

BYTE_LEVEL = (
    "gpt2",
    "neox",
    "roberta",
    "starcoder",
    "llama3",
    "qwen2",
    "qwen35",
    "o200k",
    "deepseek",
)
SENTENCEPIECE = ("llama2", "mistral", "metaspace", "gemma")
STYLES = (*BYTE_LEVEL, *SENTENCEPIECE)

TEXTS = [
    Path(__file__).read_text(),
    "The cat sat on the mat. It's 2024, isn't it?\n\nThey've said: 'we'll go', at 12:30 /\n"
    "and 1234567 more; don't you think so?  Two  spaces, three   spaces.\n\n\n\tTabs\tand\r\n"
    "lines\r\n",
    "Привет, мир. Это длинный текст о погоде,\nкоторый не кончается: погода, погодой, погоду.\n"
    * 3,
    "中文的句子没有空格。它们很长，但是有标点、逗号。\n第二段落在这里，也有标点。\n日本語の文もある。"
    * 3,
    "é e\u0301 ñ ü — “quoted” … naïve café αβγ δέζ 한국어 문장 שלום עולם สวัสดี 🙂👩‍🔧",
]
"""What all of them are trained on."""


@cache
def tokenizer_text(style: str) -> str:
    """The tokenizer.json of a style."""
    if style in BYTE_LEVEL:
        return _byte_level(style).to_str()
    return json.dumps(_sentencepiece(style), ensure_ascii=False)


def write_style(folder: Path, style: str, added: list[dict[str, Any]] | None = None) -> Path:
    """Write the tokenizer.json of a style, with more added tokens, and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(with_added(tokenizer_text(style), added or []), encoding="utf-8")
    return path


def with_added(text: str, added: list[dict[str, Any]]) -> str:
    """A tokenizer.json with more added tokens; each needs only its `content`."""
    parts = json.loads(text)
    ids = [*parts["model"]["vocab"].values(), *(t["id"] for t in parts["added_tokens"])]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    parts["added_tokens"] += [
        {"id": max(ids) + 1 + i, **flags, "special": False, **token}
        for i, token in enumerate(added)
    ]
    return json.dumps(parts, ensure_ascii=False)


def encoded(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    """Ids of texts, one behind the other."""
    rows = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [i for row in rows for i in row.ids]


def _byte_level(style: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=style == "llama3"))
    tokenizer.pre_tokenizer = _words(style)
    tokenizer.decoder = decoders.ByteLevel()
    if style in ("neox", "qwen2", "qwen35"):
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        show_progress=False,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if style == "neox":
        tokenizer.add_tokens([" " * n for n in (4, 3, 2)])
    return tokenizer


def _words(style: str) -> pre_tokenizers.PreTokenizer:
    if style in ("gpt2", "neox", "roberta"):
        return pre_tokenizers.ByteLevel(add_prefix_space=style == "roberta")
    if style == "starcoder":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    single = {"llama3": LLAMA_3, "qwen2": QWEN_2, "qwen35": QWEN_35, "o200k": O200K}
    patterns = DEEPSEEK if style == "deepseek" else (single[style],)
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, last])


def _sentencepiece(style: str) -> dict[str, Any]:
    """BPE over pieces such as `▁the`, what is not in the vocabulary as bytes `<0xE4>`."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=tokens)
    texts = [text.replace("\n", "") for text in TEXTS[:4]]
    tokenizer.train_from_iterator(texts, trainer)
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    # the bytes are no tokens that a text can spell out
    parts["added_tokens"] = parts["added_tokens"][:3]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if style in ("llama2", "gemma"):
        prepend = [{"type": "Prepend", "prepend": "▁"}] if style == "llama2" else []
        parts["normalizer"] = {"type": "Sequence", "normalizers": [*prepend, space]}
        parts["pre_tokenizer"] = None
    else:
        parts["pre_tokenizer"]["prepend_scheme"] = "first"
        parts["pre_tokenizer"]["split"] = style == "metaspace"
    vocab = parts["model"]["vocab"]
    runs = ["▁▁", "▁▁▁▁"] if style != "gemma" else ["▁▁", "▁▁▁▁", "\n", "\n\n"]
    for run in runs:
        vocab.setdefault(run, len(vocab))
    half = [[run[: len(run) // 2]] * 2 for run in runs if len(run) > 1]
    parts["model"]["merges"] = [*half, *parts["model"]["merges"]]
    return parts
