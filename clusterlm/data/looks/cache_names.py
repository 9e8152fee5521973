"""Names of what is kept beside prepared data, as they follow from its manifest.

    tokenizers/<tokenizer_key>/          by name and options, or by what it is trained on
    chosen/<chosen_prefix>-<hash>.npz    duplicates that were found among these shards

Light: `cache gc` asks them of every manifest, to see what is still of use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clusterlm.data.fingerprint import hash_of

TOKENIZERS, SHARDS, CHOSEN = "tokenizers", "shards", "chosen"

TOKENIZER_RULES = 1
"""Raise it when the same sources would give another tokenizer than before."""

_KIND = re.compile(r"data\.(?:validation\.)?sources\[\d+\]\.kind")


def learns_of_sources(parts: Mapping[str, Any]) -> bool:
    """Whether a tokenizer's entries follow from the sources: it is trained, or learns new ones."""
    extend = parts.get("data.tokenizer.extend") or {}
    return "data.tokenizer.train" in parts or extend.get("learn", 0) > 0


def tokenizer_key(parts: Mapping[str, Any]) -> str:
    """The tokenizer of a spec.

    Args:
        parts: of the fingerprint; those of the sources count only where it is trained on them.
    """
    wanted = ("data.tokenizer.", "data.sources") if learns_of_sources(parts) else "data.tokenizer."
    key = {name: value for name, value in parts.items() if name.startswith(wanted)}
    with_chat = any(kind != "text" for name, kind in parts.items() if _KIND.fullmatch(name))
    return hash_of(key | {"rules": TOKENIZER_RULES, "with_chat": with_chat})


def chosen_prefix(shards: Sequence[str]) -> str:
    """What was found among shards, by their keys in reading order."""
    return hash_of(list(shards))
