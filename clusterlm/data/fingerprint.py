"""Which prepared data a spec means: a hash over all that changes the blocks, and nothing else.

In it: the content of every source file in reading order and how it is read, what is taken from it,
the tokenizer, the chat template, an own converter's code, how blocks are made, the version of these
rules. Not in it: where the files lie, their times, their names but for what the end of one says of
the format, the number of workers and tasks, the engine. What comes from the hub counts by name and
revision: pin the revision. Light: standard library, xxhash and the spec only, because a login node
asks too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from clusterlm.data.chats.templates import template_text
from clusterlm.data.files import SourceFile, list_files
from clusterlm.data.hashes import HashMemo
from clusterlm.data.kinds.own_converter import converter_digest
from clusterlm.errors import DataError
from clusterlm.paths import cache_dir
from clusterlm.spec.data import Data, Tokenizer
from clusterlm.spec.sources import CustomSource, Source, TextSource

RULES = 2
"""Raise it when the same sources would give other blocks than before."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""What makes a tokenizer; a model's folder also holds weights, not to be hashed or copied."""

PLACE_FIELDS = {"path", "exclude", "hub", "subset", "revision"}
"""Of a source: where its content lies."""
CHOICE_FIELDS = {"epochs", "weight", "validation", "max_documents", "split"}
"""Of a source: what is chosen of its tokens afterwards."""

Parts = dict[str, Any]


def hash_of(value: Any) -> str:
    """32 hex characters that stand for a value of JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return str(xxhash.xxh3_128(text.encode()).hexdigest())


def fingerprint_of_parts(parts: Mapping[str, Any]) -> str:
    """The fingerprint of what `describe` gave: 32 hex characters, the name of its cache folder."""
    return hash_of(dict(parts))


def describe(data: Data) -> Parts:
    """What the fingerprint is made of, by its place in the YAML.

    Raises:
        DataError: a source, tokenizer folder, template or converter is not there.
    """
    memo = HashMemo(cache_dir() / ".hashes.json")
    parts: Parts = {"rules": RULES}
    for place, source in sources_of(data):
        parts |= _source_parts(place, source, memo)
    parts |= _tokenizer_parts(data.tokenizer, memo)
    has_chat = any(not isinstance(source, TextSource) for _, source in sources_of(data))
    parts |= {
        "data.block_size": data.block_size,
        "data.packing": data.packing,
        "data.isolate_documents": data.isolate_documents,
        # a text is never too long, so the choice changes nothing there
        "data.overlong": data.overlong if has_chat else None,
        "data.on_bad_record": data.on_bad_record,
        "data.dedup": data.dedup.model_dump(mode="json"),
        "data.validation.fraction": data.validation.fraction,
        "data.mix": data.mix.model_dump(mode="json"),
        "data.seed": data.seed,
    }
    memo.save()
    return parts


def sources_of(data: Data) -> list[tuple[str, Source]]:
    """Every source with its place in the YAML; those of the validation come last."""
    own = [(f"data.sources[{i}]", source) for i, source in enumerate(data.sources)]
    held_back = [
        (f"data.validation.sources[{i}]", source)
        for i, source in enumerate(data.validation.sources)
    ]
    return own + held_back


def differences(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each part that differs, with both values."""
    return [
        f"{place}: {_shown(asked, place)} then, {_shown(found, place)} now"
        for place in sorted({*asked, *found})
        if asked.get(place) != found.get(place)
    ]


def source_options(source: Source) -> Parts:
    """What makes tokens of a source's content: its options, and the code of an own converter."""
    options = source.model_dump(mode="json", exclude=PLACE_FIELDS | CHOICE_FIELDS)
    if isinstance(source, CustomSource):
        function = source.converter.rpartition(":")[2]
        options["converter"] = f"{function} {converter_digest(source.converter)}"
    return options


def _source_parts(place: str, source: Source, memo: HashMemo) -> Parts:
    options = source_options(source)
    choices = source.model_dump(mode="json", include=CHOICE_FIELDS)
    # which files is settled by `files`; how they were named is not what they contain
    if source.hub is not None:
        content = f"{source.hub}@{source.revision or 'main'} {source.subset or ''}".strip()
    else:
        content = _content_of(list_files(source), memo)
    named = {f"{place}.{key}": value for key, value in (options | choices).items()}
    return {f"{place}.files": content} | named


def _content_of(files: Iterable[SourceFile], memo: HashMemo) -> str:
    state = xxhash.xxh3_128()
    count = num_bytes = 0
    for file in files:
        state.update(f"{file.how_read} {memo.hash_of(file.path)}\n".encode())
        count += 1
        num_bytes += file.num_bytes
    return f"{count} files, {num_bytes} bytes, {state.hexdigest()}"


def _tokenizer_parts(spec: Tokenizer, memo: HashMemo) -> Parts:
    parts: Parts = {"data.tokenizer.chat_template": _template_part(spec)}
    if spec.extend is not None:
        parts["data.tokenizer.extend"] = spec.extend.model_dump(mode="json")
    if spec.train is not None:
        return parts | {"data.tokenizer.train": spec.train.model_dump(mode="json")}
    folder = tokenizer_folder(spec)
    if folder is None:
        return parts | {"data.tokenizer.name": f"{spec.name}@{spec.revision or 'main'}"}
    present = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return parts | {"data.tokenizer.files": {p.name: memo.hash_of(p) for p in present}}


def _template_part(spec: Tokenizer) -> str | None:
    text = template_text(spec)
    return None if text is None else hash_of(text)


def tokenizer_folder(spec: Tokenizer) -> Path | None:
    """The folder of an existing tokenizer, or None when its name is a hub id.

    Raises:
        DataError: the name is a path, and nothing is there; or the folder holds no tokenizer.
    """
    if spec.name is None:
        raise DataError("data.tokenizer: set `name` (an existing one) or `train`")
    folder = Path(spec.name).expanduser()
    if folder.is_dir():
        if not (folder / "tokenizer.json").is_file():
            raise DataError(
                f"data.tokenizer.name: {folder} has no tokenizer.json; make one with"
                " transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OTHER)"
            )
        return folder
    # a hub id is NAME or OWNER/NAME; anything else was meant as a path
    if folder.is_absolute() or spec.name.startswith((".", "~")) or spec.name.count("/") > 1:
        raise DataError(f"data.tokenizer.name: the folder {folder} does not exist")
    return None


def _shown(parts: Mapping[str, Any], place: str) -> str:
    return str(parts[place]) if place in parts else "nothing"
