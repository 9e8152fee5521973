from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from clusterlm.data import sample
from clusterlm.data.chats.templates import CHATML
from clusterlm.data.reading import reading_order
from clusterlm.data.tokenizer import fetch_tokenizer, load_vocabulary
from clusterlm.errors import DataError
from clusterlm.spec.data import Tokenizer as TokenizerSpec
from tests.data.corpus import (
    chat,
    chat_source,
    data_of,
    documents_in,
    prepare,
    stream_of,
    text_source,
    write_chats,
    write_texts,
)
from tests.data.styles import TEXTS, write_style


def _existing(folder: Path, *, config: dict[str, object] | None, bos: bool = False) -> Path:
    """A tokenizer of single bytes, as somebody may have saved it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>"])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
        )
    # saved with what somebody encoded last
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=50)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transformers_reads_the_trained_tokenizer_and_renders_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    cache = prepare(data_of(chat_source(write_chats(tmp_path / "c.jsonl", 30)), block_size=128))
    loaded = transformers.AutoTokenizer.from_pretrained(cache.tokenizer_dir)
    vocabulary = load_vocabulary(cache.tokenizer_dir)
    assert (loaded.eos_token_id, loaded.pad_token_id) == (vocabulary.eos_id, vocabulary.pad_id)
    assert len(loaded) == vocabulary.size == cache.manifest["vocab_size"] == 300
    text = "Ünïcode <|im_end|> and\n\n  spaces 中文"
    ids = vocabulary.encoder.encode(text, add_special_tokens=False).ids
    assert loaded(text, add_special_tokens=False)["input_ids"] == ids
    assert loaded.decode(ids) == text
    rendered = loaded.apply_chat_template(chat(3), tokenize=False)
    assert rendered == vocabulary.chat.render(chat(3))


def test_a_text_only_tokenizer_has_no_tokens_for_conversations(tmp_path: Path) -> None:
    cache = prepare(data_of(text_source(write_texts(tmp_path / "a.jsonl", 30))))
    vocabulary = load_vocabulary(cache.tokenizer_dir)
    assert vocabulary.template is None
    assert vocabulary.encoder.token_to_id("<|im_start|>") is None
    assert vocabulary.special_ids == {0, 1}


def test_an_existing_tokenizer_neither_cuts_nor_fills_up(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config={"eos_token": "</s>"})
    path = write_texts(tmp_path / "a.jsonl", 5)
    cache = prepare(data_of(text_source(path), tokenizer={"name": str(folder)}))
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert [len(document) for document in documents_in(cache)] == [len(t) + 1 for t in texts]
    assert cache.manifest["eos_id"] == cache.manifest["pad_id"] == 257
    names = sorted(p.name for p in cache.tokenizer_dir.iterdir())
    assert names == ["tokenizer.json", "tokenizer_config.json"]


def test_a_beginning_of_text_stands_once_before_each_document(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config={"eos_token": {"content": "</s>"}}, bos=True)
    path = write_texts(tmp_path / "a.jsonl", 5)
    cache = prepare(data_of(text_source(path), tokenizer={"name": str(folder)}))
    for document in documents_in(cache):
        assert document[0] == 256
        assert document.count(256) == document.count(257) == 1


def test_a_tokenizer_without_a_config_gets_its_usual_end(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config=None)
    path = write_texts(tmp_path / "a.jsonl", 5)
    cache = prepare(data_of(text_source(path), tokenizer={"name": str(folder)}))
    assert cache.manifest["eos_id"] == 257


def test_a_tokenizer_without_an_end_of_text_is_an_error(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config={"bos_token": "<s>"})
    data = data_of(
        text_source(write_texts(tmp_path / "a.jsonl", 5)), tokenizer={"name": str(folder)}
    )
    with pytest.raises(DataError, match="no end-of-text token; set eos_token"):
        prepare(data)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config={"eos_token": "</s>"})
    (folder / "tokenizer.json").write_text("{}")
    data = data_of(
        text_source(write_texts(tmp_path / "a.jsonl", 5)), tokenizer={"name": str(folder)}
    )
    with pytest.raises(DataError, match=r"tokenizer\.json: no readable tokenizer"):
        prepare(data)


@pytest.mark.parametrize("own", ["file", "config", "named", None])
def test_which_chat_template_is_taken(tmp_path: Path, own: str | None) -> None:
    marked = "X" + CHATML
    config: dict[str, object] = {"eos_token": "</s>"}
    if own == "config":
        config["chat_template"] = marked
    if own == "named":
        config["chat_template"] = [{"name": "default", "template": marked}]
    folder = _existing(tmp_path / "tok", config=config)
    tokenizer = {"name": str(folder)}
    if own == "file":
        (tmp_path / "t.jinja").write_text(marked)
        tokenizer["chat_template"] = str(tmp_path / "t.jinja")
    chats = chat_source(write_chats(tmp_path / "c.jsonl", 5))
    cache = prepare(data_of(chats, tokenizer=tokenizer, block_size=512))
    assert (cache.tokenizer_dir / "chat_template.jinja").read_text() == (marked if own else CHATML)
    assert "chat_template" not in (cache.tokenizer_dir / "tokenizer_config.json").read_text()


def test_a_fetched_tokenizer_is_extended(tmp_path: Path) -> None:
    origin = write_style(tmp_path / "origin", "gpt2")
    (origin.parent / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    extend = {"special_tokens": ["<|tool|>"], "learn": 7}
    spec = TokenizerSpec.model_validate({"name": str(origin.parent), "extend": extend})
    before = origin.read_bytes()
    fetch_tokenizer(spec, tmp_path / "copy", [TEXTS], with_chat=False)
    size = Tokenizer.from_file(str(origin)).get_vocab_size()
    vocabulary = load_vocabulary(tmp_path / "copy")
    assert vocabulary.size == size + 8
    assert size in vocabulary.special_ids
    assert origin.read_bytes() == before


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def refuse(*args: object, **options: object) -> None:
        raise FileNotFoundError("Cannot find the snapshot; outgoing traffic is disabled.\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    data = data_of(
        text_source(write_texts(tmp_path / "a.jsonl", 5)), tokenizer={"name": "some/tokenizer"}
    )
    with pytest.raises(DataError, match="is no folder here") as caught:
        prepare(data)
    assert "hf download some/tokenizer" in str(caught.value)
    assert "outgoing traffic is disabled" in str(caught.value)


def test_a_vocabulary_beyond_two_bytes_takes_four(tmp_path: Path) -> None:
    folder = _existing(tmp_path / "tok", config={"eos_token": "</s>"})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"#{i}#" for i in range(65_600)])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = tmp_path / "a.txt"
    path.write_text("#65599#" * 40)
    cache = prepare(data_of(text_source(path), tokenizer={"name": str(folder)}))
    assert cache.manifest["dtype"] == "uint32"
    assert stream_of(cache) == [*[258 + 65_599] * 40, 257]
    assert cache.split("train")[0]["input_ids"].tolist() == [258 + 65_599] * 32


def test_a_large_corpus_is_sampled_evenly_and_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SLICE_BYTES", 400)
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 1000)
    data = data_of(text_source(write_texts(tmp_path / "a.jsonl", 200)))
    found = sample.sample_of(reading_order(data), max_bytes=2000)
    assert len(found.chunks) == 5
    assert found.slice_bytes == 400
    assert found.num_bytes == 2000
    texts = list(found.texts())
    assert [sum(len(t) for t in some) for some in texts] == [400] * 5
    assert [chunk.start for chunk in found.chunks] == sorted(c.start for c in found.chunks)
    assert list(found.texts()) == texts
