"""cache ls, rm, gc: what is listed, what goes, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusterlm.data.hashes import hash_file
from clusterlm.data.looks.cache_names import tokenizer_key
from clusterlm.data.looks.store import read_store, remove_folder, superfluous
from clusterlm.data.store.aside import Aside
from clusterlm.data.whole import why_not_whole
from clusterlm.node.files import write_json
from clusterlm.paths import CachePaths
from clusterlm.spec.data import Data
from tests.data.corpus import (
    cache_at,
    chat_source,
    fingerprint_of,
    prepare,
    text_source,
    write_chats,
    write_texts,
)
from tests.data.typed import add_run, types, types_json, write_job

OLD_S = 7200.0


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Data]]:
    """Three prepared data: two share their shards, the third has a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("made")
    sources = (
        text_source(write_texts(folder / "a.jsonl", 60)),
        chat_source(write_chats(folder / "b.jsonl", 10)),
    )
    near = {"near": {"threshold": 0.9}}
    specs = []
    for options in (
        {"block_size": 128, "dedup": near},
        {"block_size": 64, "dedup": near},
        {"tokenizer": {"train": {"vocab_size": 280}}, "dedup": near},
    ):
        _, data = write_job(folder, *sources, **options)
        with cache_at(folder / "cache"):
            prepare(data)
        specs.append(data)
    return folder / "cache", specs


@pytest.fixture
def three(made: tuple[Path, list[Data]], cache_folder: Path) -> list[Data]:
    """A copy of them for each test."""
    shutil.copytree(made[0], cache_folder)
    return made[1]


def age(folder: Path, seconds: float = OLD_S) -> None:
    """Make everything below older."""
    then = time.time() - seconds
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (then, then))


def everything(folder: Path) -> set[str]:
    kinds = ("shards", "tokenizers", "chosen")
    return {f"{k}/{p.name}" for k in kinds if (folder / k).is_dir() for p in (folder / k).iterdir()}


def test_prepared_data_is_listed_with_sizes_sources_and_runs(
    three: list[Data], cache_folder: Path
) -> None:
    add_run("alive", three[0])
    add_run("over", three[0], ended=True)
    code, out, _ = types("cache", "ls")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["DATA", "AGE", "SIZE", "TOKENS", "BLOCKS", "OF", "SOURCES", "RUNS"]
    row = next(line for line in lines if line.startswith(fingerprint_of(three[0])[:16]))
    assert row.endswith("a.jsonl, b.jsonl  alive*, over")
    assert "4 shards, " in out
    assert "2 tokenizers, " in out
    assert "2 lists of duplicates, " in out
    found = types_json("cache", "ls")
    assert len(found["prepared"]) == 3
    assert all(item["used"] for item in found["items"])
    files = [p for p in cache_folder.rglob("*") if p.is_file() and p.parent != cache_folder]
    # shared shards are counted once
    assert found["bytes"] == sum(p.stat().st_size for p in files)
    shards = sum(item["bytes"] for item in found["items"] if item["kind"] == "shard")
    assert sum(one["bytes"] - one["own_bytes"] for one in found["prepared"]) > shards


def test_an_empty_cache_is_told() -> None:
    assert "no prepared data in" in types("cache", "ls")[1]
    assert types("cache", "gc") == (0, "nothing to remove\n", "")
    assert types("cache", "rm", "abc")[0] == 2


def test_rm_takes_the_plan_only_and_gc_the_rest(three: list[Data], cache_folder: Path) -> None:
    age(cache_folder)
    before = everything(cache_folder)
    first, second, third = map(fingerprint_of, three)
    code, out, _ = types("cache", "rm", first[:10])
    assert code == 0
    assert f"removed {first[:16]}" in out
    assert "gc" not in out, "the second needs them all"
    assert everything(cache_folder) == before
    assert types("cache", "gc")[1] == "nothing to remove\n"
    code, out, _ = types("cache", "rm", third, third[:8])
    assert out.count("removed") == 1
    assert "clusterlm cache gc would free" in out
    code, out, _ = types("cache", "gc", "--dry-run")
    assert (code, out.count("would remove shard"), out.count("would remove tokenizer")) == (0, 2, 1)
    assert everything(cache_folder) == before
    types("cache", "gc")
    assert len(everything(cache_folder)) == len(before) - 4
    assert why_not_whole(cache_folder / second) is None
    assert types("data", "verify", second)[0] == 0


def test_what_is_young_stays_unless_all_is_asked_for(three: list[Data], cache_folder: Path) -> None:
    types("cache", "rm", *map(fingerprint_of, three))
    before = everything(cache_folder)
    code, out, _ = types("cache", "gc")
    assert code == 0
    assert "younger than an hour" in out
    assert everything(cache_folder) == before
    types("cache", "gc", "--all")
    assert everything(cache_folder) == set()


def test_what_a_living_run_uses_is_not_removed_unless_forced(three: list[Data]) -> None:
    add_run("alive", three[0])
    add_run("over", three[1], ended=True)
    code, _, err = types("cache", "rm", *map(fingerprint_of, three))
    assert code == 2
    assert "alive" in err
    assert "over" not in err
    assert len(types_json("cache", "ls")["prepared"]) == 3, "all or none"
    assert types("cache", "rm", fingerprint_of(three[1]))[0] == 0
    assert types("cache", "rm", fingerprint_of(three[0]), "--force")[0] == 0


def test_a_prefix_must_be_of_one(three: list[Data], cache_folder: Path) -> None:
    write_json(cache_folder / "x", {})
    prints = sorted(map(fingerprint_of, three))
    twin = cache_folder / (prints[0][:4] + "f" * 28)
    twin.mkdir()
    code, _, err = types("cache", "rm", prints[0][:4])
    assert (code, "several begin with" in err) == (2, True)
    assert types("cache", "rm", "")[0] == 2
    assert types("cache", "rm", twin.name)[0] == 0


@pytest.mark.parametrize("how", ["claim", "lock"])
def test_while_a_run_prepares_data_what_it_may_rely_on_stays(
    three: list[Data], cache_folder: Path, how: str
) -> None:
    types("cache", "rm", *map(fingerprint_of, three))
    age(cache_folder)
    before = everything(cache_folder)
    coming = three[0].model_copy(update={"block_size": 99})
    fingerprint = fingerprint_of(coming)
    run = add_run("maker", coming)
    if how == "claim":
        run.lock.unlink()
        claim = {"run": "maker", "job_id": "7", "cluster": "slurm", "submitted": 1.0, "users": 3}
        write_json(CachePaths.of(fingerprint).claim, claim)
    code, out, _ = types("cache", "gc", "--all")
    assert code == 0
    assert "run maker prepares data" in out
    assert everything(cache_folder) == before
    # a claim whose run has ended is void
    with (run.root / "events.jsonl").open("a") as events:
        events.write(json.dumps({"event": "ended", "time": 1.0, "state": "FAILED", "phase": "x"}))
        events.write("\n")
    types("cache", "gc", "--all")
    assert everything(cache_folder) == set()


def test_what_somebody_is_writing_is_never_touched(three: list[Data], cache_folder: Path) -> None:
    types("cache", "rm", *map(fingerprint_of, three))
    age(cache_folder)
    before = everything(cache_folder)
    aside = Aside(cache_folder / "shards" / ("e" * 32))
    try:
        code, out, _ = types("cache", "gc", "--all")
        assert code == 0
        assert "somebody is writing here right now" in out
        assert aside.folder.is_dir()
        assert everything(cache_folder) == before | {f"shards/{aside.folder.name}"}
        assert "1 in the making" in types("cache", "ls")[1]
    finally:
        aside.leave()
    # now it is a dead writer's
    assert "1 leftover of a killed writer" in types("cache", "ls")[1]
    types("cache", "gc")
    assert aside.folder.is_dir(), "its chunks may spare the next one work"
    types("cache", "gc", "--all")
    assert everything(cache_folder) == set()


def test_damaged_and_foreign_files_end_nothing(three: list[Data], cache_folder: Path) -> None:
    first, second, _ = map(fingerprint_of, three)
    (cache_folder / first / "READY").unlink()
    manifest = cache_folder / second / "manifest.json"
    manifest.write_text("[1")
    for name, content in (
        ("a" * 32, {"x": 1}),
        ("b" * 32, {"format": 2, "shards": [3], "sources": None, "parts": 7}),
        ("c" * 32, {"format": 2, "shards": {"key": 1}, "files": 3, "fingerprint": 1}),
    ):
        (cache_folder / name).mkdir()
        (cache_folder / name / "manifest.json").write_text(json.dumps(content))
        ready = {"manifest": hash_file(cache_folder / name / "manifest.json")}
        (cache_folder / name / "READY").write_text(json.dumps(ready))
    (cache_folder / ("d" * 32)).write_text("a file")
    (cache_folder / "shards" / "README").write_text("mine")
    (cache_folder / "shards" / ("f" * 32)).mkdir()
    (cache_folder / "chosen" / "x.npz").write_text("mine")
    (cache_folder / f"{'9' * 32}.claim.json").write_text('{"run": 3, "users": [1, "../.."]}')
    code, out, _ = types("cache", "ls")
    assert code == 0
    assert out.count("damaged") >= 4
    assert types_json("cache", "ls")["prepared"]
    age(cache_folder)
    assert types("cache", "gc", "--all")[0] == 0
    assert (cache_folder / "shards" / "README").read_text() == "mine"
    assert (cache_folder / "chosen" / "x.npz").read_text() == "mine"
    assert not (cache_folder / "shards" / ("f" * 32)).exists()
    assert types("cache", "rm", "aaaa", "bbbb", "cccc")[0] == 0


def test_data_that_is_damaged_keeps_what_its_manifest_names(
    three: list[Data], cache_folder: Path
) -> None:
    age(cache_folder)
    third = fingerprint_of(three[2])
    (cache_folder / third / "train.starts.npy").unlink()
    before = everything(cache_folder)
    types("cache", "gc", "--all")
    assert everything(cache_folder) == before


def test_a_tokenizer_is_known_from_the_manifest(three: list[Data], cache_folder: Path) -> None:
    for data in three:
        paths = CachePaths.of(fingerprint_of(data))
        parts = json.loads(paths.manifest.read_text())["parts"]
        assert (cache_folder / "tokenizers" / tokenizer_key(parts)).is_dir()


def test_nobody_sees_half_of_a_removed_folder(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "a").write_text("")
    remove_folder(folder)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_superfluous_is_pure(three: list[Data], cache_folder: Path) -> None:
    types("cache", "rm", *map(fingerprint_of, three))
    store = read_store(cache_folder, now=time.time())
    now = time.time()
    assert superfluous(store, now=now) == []
    assert len(superfluous(store, now=now + OLD_S)) == len(store.items) == 8
    assert superfluous(store, now=now + OLD_S, is_busy=True) == []


def test_the_commands_are_light(cache_folder: Path) -> None:
    heavy = ("numpy", "torch", "tokenizers", "rich", "pyarrow", "orjson")
    code = (
        "import sys, clusterlm.cli.cache as c; c.ls(); c.gc(dry_run=True, everything=False); "
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
