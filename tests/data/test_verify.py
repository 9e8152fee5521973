"""data verify: every hash compared, what is damaged named and made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clusterlm.data.cache import Cache
from clusterlm.data.looks.verify import repair, verify
from clusterlm.spec.data import Data
from tests.data.corpus import chat_source, files_of, prepare, text_source, write_chats, write_texts
from tests.data.typed import add_run, types, types_json, write_job


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))


@pytest.fixture
def job(tmp_path: Path) -> tuple[str, Data]:
    return write_job(
        tmp_path,
        text_source(write_texts(tmp_path / "a.jsonl", 60)),
        chat_source(write_chats(tmp_path / "b.jsonl", 20), role_weights={"user": 0.5}),
        block_size=128,
    )


def _files(cache: Cache) -> list[Path]:
    """Every file that prepared data is made of."""
    shards = [shard.tokens.parent for shard in cache.shards]
    return [p for folder in (cache.root, *shards) for p in sorted(folder.rglob("*")) if p.is_file()]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def test_whole_data_is_whole_by_every_name(job: tuple[str, Data]) -> None:
    file, data = job
    cache = prepare(data)
    add_run("r1", data, ended=True)
    for name in (file, "r1", str(cache.root), cache.root.name, cache.root.name[:8]):
        code, out, err = types("data", "verify", name)
        assert (code, err) == (0, "")
        assert out.startswith("whole: ")
    found = types_json("data", "verify", file)
    assert found["whole"]
    assert found["num_shards"] == 2


def test_one_flipped_bit_anywhere_is_found_and_made_again(job: tuple[str, Data]) -> None:
    file, data = job
    cache = prepare(data)
    whole = files_of(cache.root.parent)
    for path in _files(cache):
        if path.name in ("READY", "shard.json"):
            continue
        _flip(path)
        code, out, _ = types("data", "verify", file)
        assert code == 1, path
        assert str(path.parent.relative_to(cache.root.parent).parts[0]) in out
        assert path.exists(), "only told"
        code, out, _ = types("data", "verify", file, "--repair")
        assert code == 1
        assert "removed 1 folder" in out
        prepare(data)
        assert types("data", "verify", file)[0] == 0
    found = files_of(cache.root.parent)
    assert {k: v for k, v in found.items() if "hashes" not in k and not k.endswith(".lock")} == {
        k: v for k, v in whole.items() if "hashes" not in k and not k.endswith(".lock")
    }


def test_lost_cut_and_foreign_files_are_damage_and_no_traceback(job: tuple[str, Data]) -> None:
    _, data = job
    cache = prepare(data)
    shard = cache.shards[0].tokens.parent
    tokens = cache.shards[1].tokens
    tokens.write_bytes(tokens.read_bytes()[:-2])
    (shard / "shard.json").write_text(json.dumps({"format": 2, "files": {}}))
    (cache.root / "train.lengths.npy").unlink()
    verdict = verify(cache.root, lambda done, total: None)
    assert sorted(d.folder.name for d in verdict.damages) == sorted(
        [cache.root.name, shard.name, tokens.parent.name]
    )
    assert set(repair(verdict)) == {cache.root, shard, tokens.parent}
    assert not cache.root.exists()
    assert list(cache.root.parent.glob(".*.building")) == []
    prepare(data)
    assert verify(cache.root, lambda done, total: None).is_whole


def test_progress_ends_at_the_total(job: tuple[str, Data]) -> None:
    told: list[tuple[int, int]] = []
    cache = prepare(job[1])
    verify(cache.root, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def test_what_is_not_there_is_told_with_what_to_do(job: tuple[str, Data]) -> None:
    file, data = job
    code, _, err = types("data", "verify", file)
    assert code == 2
    assert f"is prepared by: clusterlm submit {file}" in err
    prepare(data)
    code, _, err = types("data", "verify", file, "--set", "data.block_size=64")
    assert code == 2
    assert "data.block_size: 128 then, 64 now" in err
    code, _, err = types("data", "verify", "nobody")
    assert code == 2
    assert "no run 'nobody'" in err
