from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clusterlm.data.cache import Cache, open_cache
from clusterlm.data.preprocess import preprocess
from clusterlm.data.store.aside import STALE_AFTER_S, Aside, remove_dead
from clusterlm.errors import CacheNotReady, DataError
from clusterlm.paths import CachePaths
from clusterlm.spec.data import Data
from tests.data.corpus import (
    chat_source,
    data_of,
    files_of,
    fingerprint_of,
    prepare,
    text_source,
    write_chats,
    write_texts,
)


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return data_of(text_source(write_texts(tmp_path / "a.jsonl", 60)))


@pytest.fixture
def cache(data: Data) -> Cache:
    return prepare(data)


KEPT = (".hashes.json", "shards", "tokenizers", "chosen")


def _left_in(folder: Path) -> list[str]:
    """What lies there but for what every run may use again."""
    return sorted(path.name for path in folder.iterdir() if path.name not in KEPT)


def _shard_of(cache: Cache) -> Path:
    (shard,) = cache.shards
    return shard.tokens.parent


def test_a_cache_that_is_not_there_says_so(cache_folder: Path) -> None:
    with pytest.raises(CacheNotReady, match="is not there; run the preprocess phase first"):
        open_cache(cache_folder / "abc")


def test_a_cache_without_ready_is_not_used(cache: Cache) -> None:
    CachePaths(cache.root).ready.unlink()
    with pytest.raises(CacheNotReady, match="has no READY: it was never finished"):
        open_cache(cache.root)


def test_a_cache_of_other_content_is_not_used(cache: Cache) -> None:
    with pytest.raises(CacheNotReady, match=f"holds {cache.root.name}, and .* is asked for"):
        open_cache(cache.root, "0" * 32)


def _tokens_of(root: Path) -> Path:
    (path,) = (root.parent / "shards").glob("*/tokens.bin")
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: _tokens_of(root).write_bytes(b"x"), "tokens.bin has 1 bytes"),
        (lambda root: _tokens_of(root).unlink(), "tokens.bin is missing"),
        (lambda root: (root / "train.starts.npy").unlink(), "train.starts.npy is missing"),
        (lambda root: (root / "manifest.json").write_text("{}"), "manifest.json is not the one"),
        (lambda root: (root / "tokenizer" / "tokenizer.json").unlink(), "is missing"),
    ],
)
def test_a_damaged_cache_is_not_used_and_is_made_again(
    data: Data, cache: Cache, change: object, told: str
) -> None:
    good = files_of(cache.root.parent)
    assert callable(change)
    change(cache.root)
    with pytest.raises(CacheNotReady, match=told):
        open_cache(cache.root)
    assert files_of(prepare(data).root.parent) == good
    assert _left_in(cache.root.parent) == [cache.root.name]


def test_a_batch_holds_the_blocks_one_by_one(tmp_path: Path) -> None:
    data = data_of(
        text_source(write_texts(tmp_path / "a.jsonl", 30)),
        chat_source(write_chats(tmp_path / "c.jsonl", 20)),
        block_size=96,
        packing="best_fit",
    )
    blocks = prepare(data).split("train")
    indices = [3, 0, len(blocks) - 1, 3]
    batch = blocks.batch(indices)
    for row, index in enumerate(indices):
        single = blocks[index]
        for name, array in single.items():
            assert (batch[name][row] == array).all()
    assert {name: array.dtype for name, array in batch.items()} == {
        "input_ids": np.int32,
        "labels": np.int32,
        "position_ids": np.int32,
    }
    assert len(list(blocks)) == len(blocks)
    assert (blocks[-1]["input_ids"] == blocks[len(blocks) - 1]["input_ids"]).all()
    with pytest.raises(IndexError, match=r"block \d+ of \d+"):
        blocks[len(blocks)]


def test_blocks_travel_to_a_worker_without_their_tokens(cache: Cache) -> None:
    blocks = cache.split("train")
    first = blocks[0]
    sent = pickle.dumps(blocks)
    assert len(sent) < 5000
    assert (pickle.loads(sent)[0]["input_ids"] == first["input_ids"]).all()


def test_a_split_that_is_not_there_is_named(cache: Cache) -> None:
    with pytest.raises(CacheNotReady, match="no split 'validation'; it has train"):
        cache.split("validation")


# what a writer does until somebody ends it in the middle
SLOW_WRITER = """
    import sys, time
    from pathlib import Path
    from tests.data.corpus import fingerprint_of
    from clusterlm.data import encoding
    from clusterlm.data.preprocess import preprocess
    from clusterlm.paths import CachePaths
    from clusterlm.spec.data import Data

    def report(progress):
        if progress.text.startswith(sys.argv[2]):
            print("here", flush=True)
            time.sleep(float(sys.argv[3]))

    if __name__ == "__main__":
        data = Data.model_validate_json(sys.argv[1])
        root = CachePaths.of(fingerprint_of(data)).root
        encoding.SMALL_BYTES = 0
        preprocess(data, root, workers=int(sys.argv[4]), report=report)
        print("done", flush=True)
"""


def _writer(
    tmp_path: Path, data: Data, stage: str, *, pause_s: float = 60, workers: int = 1
) -> subprocess.Popen[str]:
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(SLOW_WRITER))
    argv = [sys.executable, str(script), data.model_dump_json(), stage, str(pause_s), str(workers)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "here\n"
    return writer


def _end(writer: subprocess.Popen[str], number: int) -> int:
    writer.send_signal(number)
    code = writer.wait(timeout=60)
    assert writer.stdout is not None
    writer.stdout.close()
    return code


@pytest.mark.parametrize("stage", ["tokenizing 5 kB of 5 kB", "making blocks"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_writer_leaves_no_ready_and_the_next_run_is_clean(
    tmp_path: Path, cache_folder: Path, stage: str, workers: int
) -> None:
    data = data_of(text_source(write_texts(tmp_path / "a.jsonl", 40)))
    writer = _writer(tmp_path, data, stage, workers=workers)
    children = _children(writer.pid)
    assert _end(writer, signal.SIGKILL) == -signal.SIGKILL
    root = CachePaths.of(fingerprint_of(data)).root
    assert not root.exists()
    folder = cache_folder / "shards" if stage.startswith("tokenizing") else cache_folder
    assert any(path.name.endswith(".building") for path in folder.iterdir())
    prepare(data)
    assert _left_in(cache_folder) == [root.name]
    assert len(list((cache_folder / "shards").iterdir())) == 1
    # its workers do not outlive it
    deadline = time.monotonic() + 10
    while any(map(_is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_alive, children))


def test_ctrl_c_leaves_nothing(tmp_path: Path, data: Data, cache_folder: Path) -> None:
    writer = _writer(tmp_path, data, "making blocks")
    assert _end(writer, signal.SIGINT) == -signal.SIGINT
    assert _left_in(cache_folder) == []


def test_two_writers_at_once_both_end_well_and_one_wins(
    tmp_path: Path, data: Data, cache_folder: Path
) -> None:
    writer = _writer(tmp_path, data, "making blocks", pause_s=1)
    here = prepare(data)
    first = {path: path.stat().st_ino for path in here.root.rglob("*")}
    out, _ = writer.communicate(timeout=60)
    assert (out, writer.returncode) == ("done\n", 0)
    # the second one saw the first and threw its own away
    assert {path: path.stat().st_ino for path in here.root.rglob("*")} == first
    assert _left_in(cache_folder) == [here.root.name]
    open_cache(here.root)


def test_the_folder_of_a_living_writer_is_left_alone(cache_folder: Path) -> None:
    aside = Aside(cache_folder / "abc")
    remove_dead(cache_folder, now=time.time() + 10 * STALE_AFTER_S)
    assert aside.folder.is_dir()
    aside.leave()
    remove_dead(cache_folder)
    assert _left_in(cache_folder) == []


def test_the_folder_of_a_writer_elsewhere_goes_when_it_is_a_day_old(cache_folder: Path) -> None:
    aside = cache_folder / ".abc.123.building"
    aside.mkdir(parents=True)
    (aside / ".writer").write_text(f"not-{socket.gethostname()}")
    remove_dead(cache_folder, now=time.time() + STALE_AFTER_S / 2)
    assert aside.is_dir()
    remove_dead(cache_folder, now=time.time() + 2 * STALE_AFTER_S)
    assert not aside.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB; where it cannot be mounted, a limit on the size of files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if shutil.which("mount") and subprocess.run(argv, capture_output=True).returncode == 0:
        yield disk
        subprocess.run(["umount", str(disk)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield disk
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_leaves_nothing_half_done(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(small_disk / "cache"))
    data = data_of(text_source(write_texts(tmp_path / "a.jsonl", 4000)))
    with pytest.raises(DataError, match=r"the disk of .* is full \(.*CLUSTERLM_CACHE_DIR"):
        prepare(data)
    # with room, the next run is clean
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(small_disk / "other"))
    prepare(data_of(text_source(write_texts(tmp_path / "b.jsonl", 40))))


def test_too_little_memory_is_told(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("clusterlm.data.planning.plan_splits", fail)
    with pytest.raises(DataError, match="out of memory .* resources.preprocess.mem"):
        prepare(data)


def test_a_killed_worker_is_told(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterlm.data.encoding.SMALL_BYTES", 0)
    monkeypatch.setattr("clusterlm.data.formats.chunks.CHUNK_BYTES", 300)

    def report(progress: object) -> None:
        for child in _children(os.getpid()):
            if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(child, signal.SIGKILL)

    root = CachePaths.of(fingerprint_of(data)).root
    big = data.model_copy(update={"sources": data.sources * 20})
    with pytest.raises(DataError, match="a worker process was killed"):
        preprocess(big, root, workers=2, report=report)


def test_ready_is_the_hash_of_the_manifest(cache: Cache) -> None:
    import xxhash

    ready = json.loads(CachePaths(cache.root).ready.read_text())
    manifest = CachePaths(cache.root).manifest.read_bytes()
    assert ready == {"manifest": xxhash.xxh3_128_hexdigest(manifest)}
    for name, file in cache.manifest["files"].items():
        content = (cache.root / name).read_bytes()
        assert file == {"bytes": len(content), "xxh3": xxhash.xxh3_128_hexdigest(content)}


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
