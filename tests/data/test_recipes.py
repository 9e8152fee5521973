"""The recipes in `jobs/`: each is sound, and its samples become what its comments say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from clusterlm.cluster.submit import rendered
from clusterlm.data.cache import IGNORE_INDEX, Cache
from clusterlm.data.files import list_files
from clusterlm.data.store.shards import open_shard
from clusterlm.data.whole import shards_folder
from clusterlm.spec.load import LoadedJob, load_job
from tests.data.corpus import cache_at, decoded, documents_in, prepare
from tests.person import Person

ROOT = Path(__file__).parents[2]
JOBS, SAMPLES = ROOT / "jobs", ROOT / "jobs" / "samples"
LARGEST_SAMPLE, LARGEST_MODEL = 60_000, 300_000

# of each source: records read, and why some were left out
READ: dict[str, list[tuple[int, dict[str, int]]]] = {
    "saiga": [
        (16, {"not_alternating": 1, "empty_turn": 1, "duplicate": 1, "near_duplicate": 1}),
        (16, {"filtered": 3, "empty_turn": 1}),
        (6, {"unknown_role": 1}),
        (4, {"no_answer": 1}),
        (7, {"not_asked_for": 1}),
    ],
    "function-call": [(10, {"tool_order": 2}), (8, {})],
    "darulm": [
        (3, {"filtered": 1}),
        (13, {"filtered": 2, "too_short": 1, "empty": 1, "near_duplicate": 1}),
    ],
    "pile": [
        (29, {"filtered": 22, "duplicate": 1}),
        (29, {"filtered": 18, "empty": 1}),
        (29, {"filtered": 18, "near_duplicate": 1}),
    ],
    "chinese-llama": [(39, {"too_short": 1, "duplicate": 1})],
    "vicuna": [(18, {"empty": 1, "not_alternating": 1, "no_answer": 1, "duplicate": 1})],
    "own-converter": [(12, {"filtered": 1, "left_out": 3, "no_question": 1})],
}
RECIPES = sorted(READ)


def load(name: str, *overrides: str) -> LoadedJob:
    return load_job(JOBS / f"{name}.yaml", list(overrides))


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Cache]]:
    """The prepared data of every recipe."""
    with cache_at(tmp_path_factory.mktemp("recipes")):
        yield {name: prepare(_data_of(name)) for name in RECIPES}


def _data_of(name: str) -> Any:
    data = load(name).job.data
    assert data is not None
    return data


def texts_of(cache: Cache, split: str = "train", *, trained: bool = False) -> list[str]:
    """What the blocks of a split say, or only what is trained of it."""
    texts = []
    for sample in cache.split(split):
        ids = sample["input_ids"]
        chosen = ids[sample["labels"] != IGNORE_INDEX] if trained else ids
        texts.append(decoded(cache, chosen.tolist()))
    return texts


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("overrides", [[], ["cluster=slurm", "resources.nodes=2"]])
def test_a_recipe_is_sound_and_renders(path: Path, overrides: list[str]) -> None:
    loaded = load(path.stem, *overrides)
    assert not loaded.notes
    assert loaded.job.name == path.stem
    files = rendered(loaded, path.stem)
    assert ("train.sbatch" in files) == (loaded.job.cluster == "slurm")


def test_every_recipe_is_in_the_page_and_every_sample_in_a_recipe() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    assert all(f"(../jobs/{path.name})" in page for path in JOBS.glob("*.yaml"))
    used = {SAMPLES / name for name in ("own_converter.py", "own_model.py", "ranks.json")}
    for folder in ("english-llama", "tiny-llama", "tiny-adapter"):
        used |= set((SAMPLES / folder).iterdir())
    for name in RECIPES:
        data = _data_of(name)
        for source in [*data.sources, *data.validation.sources]:
            used |= {file.path for file in list_files(source)}
    there = {p for p in SAMPLES.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    assert there == used
    sizes = {path: path.stat().st_size for path in there}
    models = {path for path in there if path.suffix == ".safetensors"}
    assert max(size for path, size in sizes.items() if path not in models) < LARGEST_SAMPLE
    assert max(sizes[path] for path in models) < LARGEST_MODEL


@pytest.mark.parametrize("name", RECIPES)
def test_the_samples_are_left_out_for_the_reasons_that_were_meant(
    caches: dict[str, Cache], name: str
) -> None:
    manifest = caches[name].manifest
    found = [(source["documents"], source["dropped"]) for source in manifest["sources"]]
    assert found == READ[name]
    for source in manifest["sources"]:
        assert source["kept"] == source["documents"] - sum(source["dropped"].values())
        assert source["supervised_tokens"] > 0
    assert manifest["bad_records"] == []


@pytest.mark.parametrize("name", RECIPES)
def test_there_is_something_to_train_and_to_validate_on(
    caches: dict[str, Cache], name: str
) -> None:
    cache = caches[name]
    assert cache.splits == ["train", "validation"]
    for split in cache.splits:
        samples = list(cache.split(split))
        assert samples
        assert all((sample["labels"] != IGNORE_INDEX).any() for sample in samples)
    held_back = {text for block in texts_of(cache, "validation") for text in _documents(block)}
    trained_on = {text for block in texts_of(cache) for text in _documents(block)}
    assert held_back.isdisjoint(trained_on)


def _documents(block: str) -> list[str]:
    return [text for text in block.replace("<|pad|>", "").split("<|endoftext|>") if text.strip()]


def test_saiga_trains_the_answers_of_every_form(caches: dict[str, Cache]) -> None:
    cache = caches["saiga"]
    everything = "".join(texts_of(cache) + texts_of(cache, "validation"))
    answers = "".join(texts_of(cache, trained=True) + texts_of(cache, "validation", trained=True))
    # dialog, instruct, sharegpt, character, reasoning
    for words in (
        "Лучше всего подойдёт тёмное",
        "The train is twenty minutes late.",
        "date_trunc",
        "Чаю?",
        "<think>\nК 9:40 прибавляю 3 часа",
    ):
        assert words in answers
    for words in ("Купили с мужем", "Исправь ошибки", "SQL: выбрать", "Захар сорок лет"):
        assert words in everything
        assert words not in answers
    # what was filtered, sliced off, or was a copy
    for words in ("девять планет", "Сколько углов у куба", "Добрый день! Купили с мужем"):
        assert words not in everything
    # what is seen twice
    assert everything.count("Скучно тем, кто моря не слышит") >= 2
    assert cache.manifest["counts"]["notes"] == {"end_cut": 1, "opening_cut": 1}


def test_function_calls_are_trained_and_their_results_are_not(caches: dict[str, Cache]) -> None:
    cache = caches["function-call"]
    everything = "".join(texts_of(cache) + texts_of(cache, "validation"))
    trained = "".join(texts_of(cache, trained=True) + texts_of(cache, "validation", trained=True))
    for call in (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Тверь", "day": "tomorrow"}}',
        '<tool_call>\n{"name": "local_time", "arguments": {"zone": "Asia/Tokyo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "local_time", "arguments": {"zone": "America/Lima"}}',
    ):
        assert call in trained
    for result in ('"temperature": -3', '"time": "22:05"', '"description"', "Какая завтра погода"):
        assert result in everything
        assert result not in trained
    # the turn that says so is read, not learnt
    mistake = '"create_order", "arguments": {"article": "BE-1"'
    assert mistake in everything
    assert mistake not in trained
    assert cache.manifest["splits"]["train"]["dropped"].get("overlong", 0) == 0


def test_darulms_blocks_begin_with_a_document_or_a_paragraph(caches: dict[str, Cache]) -> None:
    cache = caches["darulm"]
    rows = _rows(SAMPLES / "darulm" / "train.jsonl") + _rows(SAMPLES / "darulm" / "val.jsonl")
    documents = [row["text"] for row in rows if row["domain"] != "enwiki"]
    for split in cache.splits:
        for text in texts_of(cache, split):
            start = text.split("<|endoftext|>")[0].strip()
            assert any(d.startswith(start) or f"\n{start}" in d for d in documents), start[:40]
    assert "Derwick" not in "".join(texts_of(cache))
    domains = {"ruwiki", "news", "librusec", "habr", "law", "forum"}
    assert _domains(cache) == domains
    lost = cache.manifest["splits"]["train"]["lost"]
    assert 0 < lost["between"] < cache.manifest["counts"]["tokens"] / 3


def test_piles_parts_have_the_shares_of_their_weights(caches: dict[str, Cache]) -> None:
    cache = caches["pile"]
    tokens = np.array([use["tokens"] for use in cache.manifest["splits"]["train"]["sources"]])
    # documents are taken whole, and there are few
    assert tokens / tokens.sum() == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.08)
    assert len(_domains(cache)) == 6
    # nothing is lost but the very tail
    assert cache.manifest["splits"]["train"]["lost"].keys() == {"tail"}
    assert cache.manifest["splits"]["train"]["lost"]["tail"] < cache.manifest["block_size"]


def test_chinese_lines_are_documents_and_new_tokens_shorten_them(
    caches: dict[str, Cache],
) -> None:
    cache = caches["chinese-llama"]
    old = Tokenizer.from_file(str(SAMPLES / "english-llama" / "tokenizer.json"))
    new = Tokenizer.from_file(str(cache.tokenizer_dir / "tokenizer.json"))
    old_ids = old.get_vocab(with_added_tokens=True)
    assert old_ids.items() <= new.get_vocab(with_added_tokens=True).items()
    assert 0 < new.get_vocab_size() - len(old_ids) <= 300
    text = "渡口的老周养了一只会说话的八哥，可是它只会说一句话：“船来了。”"
    assert len(new.encode(text).ids) < len(old.encode(text).ids)
    assert new.encode("an English text").ids == old.encode("an English text").ids
    texts = {decoded(cache, document[:-1]) for document in documents_in(cache)}
    files = (SAMPLES / "chinese").glob("*.txt")
    lines = [line for file in files for line in file.read_text("utf-8-sig").splitlines()]
    assert texts == {line for line in lines if len(line) >= 5}


def test_vicunas_long_conversations_are_cut_and_still_train(caches: dict[str, Cache]) -> None:
    cache = caches["vicuna"]
    train = cache.manifest["splits"]["train"]
    assert train["dropped"]["truncated"] >= 1
    assert train["dropped"].get("untrained", 0) == 0
    everything = "".join(texts_of(cache) + texts_of(cache, "validation"))
    answers = "".join(texts_of(cache, trained=True))
    assert "USER: Which one lives in towns? ASSISTANT: Mostly crows." in everything
    assert "USER:" not in answers
    assert "Mostly crows." in answers
    # what stood before the first question
    assert "that is how the tide works" not in everything


def test_an_own_converters_turns_are_trained(caches: dict[str, Cache]) -> None:
    cache = caches["own-converter"]
    everything = "".join(texts_of(cache) + texts_of(cache, "validation"))
    assert (
        "user\nThe lamp blinks orange\nAnd the phone does not work either<|im_end|>" in everything
    )
    assert "Ticket opened" not in everything
    assert "I give up." not in everything
    assert cache.manifest["quarantined"] == 0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="needs what trains")
def test_a_recipe_trains(tmp_path: Path) -> None:
    user = Person(tmp_path)
    job = str(JOBS / "own-converter.yaml")
    done = user.types("submit", job, "--set", "train.max_steps=2", "--watch")
    assert done.returncode == 0, done.stdout
    assert (user.run("own-converter").model / "model.safetensors").exists()


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _domains(cache: Cache) -> set[str]:
    """Those kept for statistics."""
    shards = [open_shard(shards_folder(cache.root) / s["key"]) for s in cache.manifest["shards"]]
    return {name for shard in shards if shard for chunk in shard.chunks for name in chunk.domains}
