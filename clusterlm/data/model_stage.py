"""The model of a job, against the tokenizer of its data: sizes compared, and resized when asked.

    <cache>/models/<key>/        the model, resized, and the tokenizer beside it; DONE last

Comes right behind the tokenizer: what does not fit is said before hours of tokenizing. Filled aside
and published whole, so a full disk or a kill leaves nothing that could be taken for a model; two
that make the same at once are in nobody's way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterlm.data.fingerprint import Parts, tokenizer_folder
from clusterlm.data.hashes import hash_file
from clusterlm.data.model_key import model_key
from clusterlm.data.progress import Progress, Report
from clusterlm.data.store.aside import WRITER, Aside, remove_dead
from clusterlm.data.tokenizer import Vocabulary, load_vocabulary
from clusterlm.data.tokens.spelling import compare, spell
from clusterlm.errors import DataError, WeightsError
from clusterlm.node.files import read_json, write_json
from clusterlm.spec.job import Job
from clusterlm.spec.model import Model, Vocab
from clusterlm.spec.vocabulary import misfit, rows_of
from clusterlm.weights.new_rows import Spelling
from clusterlm.weights.resize import Resize, resize_model
from clusterlm.weights.resized import DONE, model_root, read_done

WEIGHTS_AND_ALL = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.py", "*.jinja"]
MOST_OTHERS = 0.1
"""Share of the old entries that may be spelt otherwise: reserved ones get a name, no more."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ModelStage:
    """What is to be done about the model of a job.

    Attributes:
        key: of the resized model; None when there shall be none.
        parts: of the data, as they were submitted; the key is made of them and the model.
    """

    job: Job
    key: str | None
    parts: Parts
    cache: Path
    report: Report
    tell: Tell

    def prepare(self, tokenizer: Path) -> None:
        """Compare the sizes; make the resized model unless it is there.

        Args:
            tokenizer: the prepared one.

        Raises:
            DataError: they do not go together, or the model is not to be had.
        """
        model = self.job.model
        if model is None or model.name is None or self.job.train.command is not None:
            return
        if self.key is None:
            folder = Path(model.name).expanduser()
            # a config of the hub is read by the trainer, which refuses too
            if folder.is_dir():
                _compare(model.vocab, folder, load_vocabulary(tokenizer).size)
            return
        vocabulary = load_vocabulary(tokenizer)
        root = model_root(self.cache, self.key)
        done = read_done(root)
        if done is not None:
            if why := misfit(model.vocab, done["rows"][0], vocabulary.size):
                raise DataError(f"model.vocab: {why}")
            self.tell(f"the model is ready: {root}")
            return
        self._make(model, vocabulary, root)

    def _make(self, model: Model, vocabulary: Vocabulary, root: Path) -> None:
        self._require_unchanged()
        origin = _fetched(model, self.report)
        rows = _compare(model.vocab, origin, vocabulary.size)
        self.report(Progress(f"resizing the model from {rows:,} rows"))
        root.parent.mkdir(parents=True, exist_ok=True)
        remove_dead(root.parent)
        aside = Aside(root)
        try:
            done = self._fill(aside.folder, origin, vocabulary, rows)
            self._require_unchanged()
            write_json(aside.folder / DONE, done, mode=0o644)
            aside.publish(lambda folder: read_done(folder) is not None)
        except BaseException:
            aside.discard()
            raise

    def _require_unchanged(self) -> None:
        if self.parts and model_key(self.job, self.parts) != self.key:
            raise DataError("model.name: the model is no longer what was submitted; submit again")

    def _fill(
        self, folder: Path, origin: Path, vocabulary: Vocabulary, rows: int
    ) -> dict[str, Any]:
        model = self.job.model
        assert model is not None
        wanted = self._wanted(model.vocab, origin, vocabulary, rows)
        about = {"rows": [rows, rows], "entries": vocabulary.size, "num_old": wanted.num_old}
        if vocabulary.size <= wanted.num_old:
            sizes = f"{rows:,} rows for {vocabulary.size:,} entries"
            self.tell(f"model: {sizes}: it stays as it is (a model is never cut down)")
            return {**about, "as_is": True, "files": {}}
        special = {
            "bos_token_id": _id_of(vocabulary, "bos_token"),
            "eos_token_id": vocabulary.eos_id,
            "pad_token_id": _id_of(vocabulary, "pad_token"),
        }
        about["rows"] = list(
            resize_model(
                origin, vocabulary.folder, folder, wanted, special_ids=special, tell=self.tell
            )
        )
        files = sorted(p for p in folder.iterdir() if p.name != WRITER)
        hashes = {p.name: {"bytes": p.stat().st_size, "xxh3": hash_file(p)} for p in files}
        return {**about, "as_is": False, "model": model.name, "files": hashes}

    def _wanted(self, vocab: Vocab, origin: Path, vocabulary: Vocabulary, rows: int) -> Resize:
        seed, method, multiple = self.job.train.seed, vocab.new_rows, vocab.multiple_of
        old = self._old_tokenizer(origin, rows)
        if old is None:
            if method == "weighted_mean" and vocabulary.size > rows:
                raise DataError(
                    f"model.vocab.new_rows: weighted_mean needs the tokenizer that {origin} was"
                    " trained with, and there is no tokenizer.json in it; put it there, or write"
                    " new_rows: mean"
                )
            return Resize(vocabulary.size, rows, method, multiple, seed=seed)
        agreement = compare(old, vocabulary.folder)
        if agreement.differ:
            told = f"{agreement.differ:,} entries of the model's tokenizer are others in the data's"
            told += f" ({'; '.join(agreement.examples)})"
            if agreement.differ > MOST_OTHERS * agreement.num_old:
                raise DataError(
                    f"model.vocab: {told}: rows would stand for what they do not mean; extend the"
                    " model's own tokenizer (data.tokenizer: {name: MODEL, extend: ...})"
                )
            self.tell(f"model: {told}; their rows stay")
        num_old = min(rows, agreement.num_old)
        spelling = None
        if method == "weighted_mean" and vocabulary.size > num_old:
            new = range(num_old, vocabulary.size)
            spelt = spell(old, vocabulary.folder, new)
            spelling = Spelling.of([[p for p in one if p[0] < num_old] for one in spelt])
        return Resize(vocabulary.size, num_old, method, multiple, spelling, seed)

    def _old_tokenizer(self, origin: Path, rows: int) -> Path | None:
        if (origin / "tokenizer.json").is_file():
            return origin
        data = self.job.data
        # the one that is extended, if it has as many entries as the model has rows
        if data is None or data.tokenizer.extend is None:
            return None
        base = tokenizer_folder(data.tokenizer)
        return base if base and load_vocabulary(base).size == rows else None


def _compare(vocab: Vocab, origin: Path, entries: int) -> int:
    """Rows of the model, when it goes with a tokenizer of so many entries."""
    rows = rows_of(read_json(origin / "config.json") or {})
    if rows is None:
        if vocab.mode == "keep" and vocab.expect is None:
            return 0
        raise DataError(f"model.name: {origin / 'config.json'} says no vocab_size")
    if why := misfit(vocab, rows, entries):
        raise DataError(f"model.vocab: {why}")
    return rows


def _fetched(model: Model, report: Report) -> Path:
    folder = Path(str(model.name)).expanduser()
    if folder.is_dir():
        return folder
    import huggingface_hub

    report(Progress(f"fetching the model {model.name}"))
    try:
        found = huggingface_hub.snapshot_download(
            str(model.name), revision=model.revision, allow_patterns=WEIGHTS_AND_ALL
        )
    except Exception as error:  # offline, gated, misspelt: each has a class of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"model.name: {model.name!r} is no folder here, and was not found on the hub or in its"
            f" local cache ({reason})\n"
            f"  where there is a network:  hf download {model.name} --local-dir FOLDER\n"
            f"  then set  model.name: FOLDER"
        ) from error
    if not any(Path(found).glob("*.safetensors")):
        raise WeightsError(
            f"model.name: {model.name} has no safetensors on the hub; convert it once with"
            " transformers: AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER)"
        )
    return Path(found)


def _id_of(vocabulary: Vocabulary, role: str) -> int | None:
    text = vocabulary.specials.get(role)
    found = None if text is None else vocabulary.encoder.token_to_id(text)
    return None if found is None else int(found)
