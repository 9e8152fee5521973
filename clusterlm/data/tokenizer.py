"""The tokenizer of a cache: taken from a folder or the hub and perhaps extended, or trained.

Whatever its origin, its files are put into the cache's `tokenizer/` and everybody loads it from
there: the workers of this phase with the `tokenizers` library, the trainer with transformers (4.57
and up). A trained one is byte-level BPE with GPT-2's splitting of words: it reads every text, and
has no unknown token. It is trained on at most 20 MB, since more changes a vocabulary little: see
`sample.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from clusterlm.data.chat import ChatTemplate
from clusterlm.data.chats.templates import (
    CHATML,
    CHATML_TOKENS,
    CONFIG_FILE,
    TEMPLATE_FILE,
    special_texts_in,
    template_in,
    template_text,
)
from clusterlm.data.fingerprint import TOKENIZER_FILES, tokenizer_folder
from clusterlm.data.store.documents import Mask
from clusterlm.data.tokens.extend import extend_tokenizer
from clusterlm.errors import DataError
from clusterlm.node.files import read_json, write_json
from clusterlm.spec.data import Tokenizer, TrainTokenizer

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"

FACTS = "facts.json"

# for a tokenizer.json that came without its config
_USUAL_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "<|eot_id|>")


@dataclass(frozen=True)
class Vocabulary:
    """A loaded tokenizer and what is needed around it.

    Attributes:
        prefix: ids that it puts before a text (a beginning-of-text token, or nothing).
        specials: bos_token, eos_token, ... as text, for a chat template.
        special_ids: every token that is not text.
        template: source of its chat template, if it has one.
    """

    folder: Path
    size: int
    eos_id: int
    pad_id: int
    prefix: tuple[int, ...]
    specials: dict[str, str]
    special_ids: frozenset[int]
    template: str | None

    @cached_property
    def encoder(self) -> tokenizers.Tokenizer:
        """The tokenizer itself; it takes half a second, so only who needs it loads it."""
        return _encoder_in(self.folder)

    @cached_property
    def is_special(self) -> Mask:
        """Of each id: is it no text?"""
        table = np.zeros(self.size, dtype=np.bool_)
        table[list(self.special_ids)] = True
        return table

    @property
    def chat(self) -> ChatTemplate:
        """The compiled chat template; ChatML when there is none."""
        return ChatTemplate(self.template or CHATML, self.specials)

    def stop_ids(self, *, with_chat: bool) -> list[int]:
        """Tokens that end a generation: the end of a text, and that of an answer."""
        ids = {self.eos_id}
        if with_chat:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
            text, spans = self.chat.render_with_spans(turns)
            # what ends the span of an answer ends the answer
            answer = next((text[start:end] for start, end, i in spans if i == 1), "")
            last = self.encoder.encode(answer, add_special_tokens=False).ids[-1:]
            ids.update(i for i in last if i in self.special_ids)
        return sorted(ids)


def fetch_tokenizer(
    spec: Tokenizer, folder: Path, texts: Iterable[list[str]] = (), *, with_chat: bool
) -> None:
    """Copy an existing tokenizer into `folder`, with the entries and the template of the spec.

    Args:
        spec: which one, and what to add.
        folder: where it is put.
        texts: to learn entries from; drawn from only when `spec.extend.learn` is set.
        with_chat: it needs a chat template.

    Raises:
        DataError: it is not there, the hub does not answer, or it cannot be extended so.
    """
    origin = tokenizer_folder(spec) or _from_hub(str(spec.name), spec.revision)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (origin / name).is_file():
            shutil.copyfile(origin / name, folder / name)
    if not (folder / CONFIG_FILE).is_file():
        _write_config(folder, {"eos_token": _usual_end(folder)})
    if spec.extend is not None:
        extend_tokenizer(folder, spec.extend, texts)
    _write_template(spec, folder, with_chat=with_chat)


def train_tokenizer(
    spec: Tokenizer, folder: Path, texts: Iterable[list[str]], *, with_chat: bool
) -> None:
    """Train a byte-level BPE tokenizer on `texts` and save it in `folder`."""
    assert spec.train is not None
    specials = [END_OF_TEXT, PAD, *(CHATML_TOKENS if with_chat else ())]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, _trainer(spec.train, specials))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_config(folder, {"eos_token": END_OF_TEXT, "pad_token": PAD})
    _write_template(spec, folder, with_chat=with_chat)


def load_vocabulary(folder: Path) -> Vocabulary:
    """The tokenizer in `folder`: what was noted of it, else what it says itself.

    Raises:
        DataError: it is broken, or has no end-of-text token.
    """
    noted = read_json(folder / FACTS)
    if noted is None:
        return read_vocabulary(folder)
    prefix, special_ids = tuple(noted.pop("prefix")), frozenset(noted.pop("special_ids"))
    return Vocabulary(folder=folder, prefix=prefix, special_ids=special_ids, **noted)


def note_vocabulary(vocabulary: Vocabulary) -> None:
    """Write what is known of a tokenizer beside it, so that nobody need load it for that."""
    noted = {f.name: getattr(vocabulary, f.name) for f in fields(vocabulary) if f.name != "folder"}
    noted["special_ids"] = sorted(vocabulary.special_ids)
    write_json(vocabulary.folder / FACTS, noted, mode=0o644)


def read_vocabulary(folder: Path) -> Vocabulary:
    """What the tokenizer in `folder` says of itself.

    Raises:
        DataError: it is broken, or has no end-of-text token.
    """
    encoder = _encoder_in(folder)
    specials = special_texts_in(folder)
    eos_id = _id_of(encoder, specials.get("eos_token"))
    if eos_id is None:
        raise DataError(f"{folder}: no end-of-text token; set eos_token in {CONFIG_FILE}")
    pad_id = _id_of(encoder, specials.get("pad_token"))
    added = encoder.get_added_tokens_decoder()
    vocabulary = Vocabulary(
        folder=folder,
        size=max(encoder.get_vocab(with_added_tokens=True).values()) + 1,
        eos_id=eos_id,
        pad_id=eos_id if pad_id is None else pad_id,
        prefix=_prefix_of(encoder),
        specials=specials,
        special_ids=frozenset({eos_id, *(i for i, token in added.items() if token.special)}),
        template=template_in(folder),
    )
    # it is loaded already
    vocabulary.__dict__["encoder"] = encoder
    return vocabulary


def _encoder_in(folder: Path) -> tokenizers.Tokenizer:
    try:
        encoder = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise DataError(f"{folder / 'tokenizer.json'}: no readable tokenizer ({error})") from error
    # a saved tokenizer may cut or fill up what it encodes; blocks are made here
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def _trainer(spec: TrainTokenizer, specials: list[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        min_frequency=spec.min_frequency,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def _from_hub(name: str, revision: str | None) -> Path:
    import huggingface_hub

    wanted = list(TOKENIZER_FILES)
    try:
        found = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted)
    except Exception as error:  # offline, gated, misspelt: each has a class of its own
        raise DataError(_hub_failed(name, error)) from error
    if not (Path(found) / "tokenizer.json").is_file():
        raise DataError(
            f"data.tokenizer.name: {name} on the hub has no tokenizer.json; make one with"
            f" transformers: AutoTokenizer.from_pretrained({name!r}).save_pretrained(FOLDER),"
            " and set data.tokenizer.name: FOLDER"
        )
    return Path(found)


def _hub_failed(name: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"data.tokenizer.name: {name!r} is no folder here, and was not found on the hub or in its"
        f" local cache ({reason})\n"
        f"  where there is a network:  hf download {name} --include 'tokenizer*' 'special_tokens*'"
        f" '*.jinja' 'vocab.json' 'merges.txt' --local-dir FOLDER\n"
        f"  then set  data.tokenizer.name: FOLDER"
    )


def _usual_end(folder: Path) -> str | None:
    encoder = _encoder_in(folder)
    return next((end for end in _USUAL_ENDS if encoder.token_to_id(end) is not None), None)


def _write_config(folder: Path, specials: dict[str, str | None]) -> None:
    named = {role: token for role, token in specials.items() if token is not None}
    config = {
        # read by transformers 4 and 5 alike: tokenizer.json holds everything else
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **named,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_template(spec: Tokenizer, folder: Path, *, with_chat: bool) -> None:
    template = template_in(folder)
    if spec.chat_template is not None:
        template = template_text(spec)
    elif template is None and with_chat:
        template = CHATML
    if template is None:
        return
    (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    config = read_json(folder / CONFIG_FILE) or {}
    # one place only: transformers would have to choose
    if config.pop("chat_template", None) is not None:
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _id_of(encoder: tokenizers.Tokenizer, token: str | None) -> int | None:
    found = None if token is None else encoder.token_to_id(token)
    return None if found is None else int(found)


def _prefix_of(encoder: tokenizers.Tokenizer) -> tuple[int, ...]:
    bare = encoder.encode("a", add_special_tokens=False).ids
    full = encoder.encode("a", add_special_tokens=True).ids
    # [bos] a [eos] -> [bos]; an end is always added by us
    starts = (i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return tuple(full[: next(starts, 0)])
