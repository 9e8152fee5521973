from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from clusterlm.data.files import list_files
from clusterlm.data.formats import hub
from clusterlm.data.formats.hub import resolve_files
from clusterlm.data.sources import read_unit, units_of
from clusterlm.errors import DataError
from clusterlm.spec.sources import TextSource


def _source(**options: Any) -> TextSource:
    return TextSource(kind="text", hub="owner/name", **options)


def _loads(monkeypatch: pytest.MonkeyPatch, given: Any) -> list[tuple[Any, ...]]:
    asked = []

    def load_dataset(name: str, subset: str | None, **options: Any) -> Any:
        asked.append((name, subset, options["split"], options["revision"]))
        if isinstance(given, Exception):
            raise given
        return given if options["split"] is None else given[options["split"]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.fixture
def splits(tmp_path: Path) -> dict[str, Any]:
    """Two splits, as `load_dataset` gives them: arrow files of its cache."""
    out = {}
    for name in ("train", "test"):
        rows = datasets.Dataset.from_list([{"text": f"{name} {i}"} for i in range(30)])
        rows.save_to_disk(str(tmp_path / name), num_shards=3)
        out[name] = datasets.load_from_disk(str(tmp_path / name))
    return out


def test_a_hub_dataset_is_read_from_the_cache_of_datasets(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, Any]
) -> None:
    asked = _loads(monkeypatch, splits)
    for options, name in [({}, "train"), ({"split": "test[:5]", "subset": "en"}, "test")]:
        files = resolve_files(_source(revision="v1", **options))
        found = [r.value for unit in units_of(files, 0) for r in read_unit(unit)]
        assert found == [{"text": f"{name} {i}"} for i in range(30)]
    assert asked == [("owner/name", None, None, "v1"), ("owner/name", "en", "test", "v1")]


def test_files_are_listed_as_ever(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    source = TextSource(kind="text", path=str(tmp_path))
    assert resolve_files(source) == list_files(source)


def test_a_split_must_be_chosen_where_none_is_train(
    monkeypatch: pytest.MonkeyPatch, splits: dict[str, Any]
) -> None:
    _loads(monkeypatch, {"a": splits["train"], "b": splits["test"]})
    with pytest.raises(DataError, match=r"'owner/name': say which split; there are: a, b"):
        resolve_files(_source())


NOT_FOUND = "Dataset 'owner/name' doesn't exist on the Hub or cannot be accessed."
GATED = "Dataset 'owner/name' is a gated dataset on the Hub. Visit the page to ask for access."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (datasets.exceptions.DatasetNotFoundError(NOT_FOUND), "there is none of that name, or"),
        (datasets.exceptions.DatasetNotFoundError(GATED), "it is gated; ask for access on its"),
        (RuntimeError("Dataset scripts are no longer supported"), "refs/convert/parquet"),
        (ConnectionError("Couldn't reach 'owner/name'"), "this machine cannot reach it"),
        (ValueError("Unknown split \"x\". Should be one of ['train']."), "Should be one of"),
        (
            ValueError("Config name is missing.\nPlease pick one among: ['en']"),
            "missing. Please pick",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_why_it_cannot_be_had_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    _loads(monkeypatch, error)
    monkeypatch.setattr(hub, "_is_offline", lambda _: False)
    with pytest.raises(DataError) as caught:
        resolve_files(_source(split="x[:5]", revision="abc"))
    text = str(caught.value)
    assert text.startswith("data source 'owner/name' on the hub, split x[:5], revision abc: ")
    assert told in text
    assert (
        "hf download owner/name --repo-type dataset --revision abc --local-dir FOLDER\n"
        "  then write `path: FOLDER` in place of `hub: owner/name`"
    ) in text


def test_offline_is_told_without_waiting(tmp_path: Path) -> None:
    code = (
        "from clusterlm.data.formats.hub import resolve_files;"
        "from clusterlm.spec.sources import TextSource;"
        "resolve_files(TextSource(kind='text', hub='owner/name'))"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**__import__("os").environ, **environment},
        check=False,
    )
    assert "DataError: data source 'owner/name' on the hub: it is not in the cache, and" in (
        done.stderr
    )
    assert "HF_HUB_OFFLINE is set" in done.stderr
