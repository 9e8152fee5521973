"""What lies on a cluster and nobody needs goes; what a run or a submit needs stays."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterlm.cluster.remote import asked, sweep, there
from clusterlm.cluster.remote import bootstrap as boot
from clusterlm.cluster.remote.clean_elsewhere import clean_elsewhere
from clusterlm.cluster.remote.cleaning import clean, rows_of
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.tree import Entry, Tree
from clusterlm.errors import ClusterLMError
from clusterlm.spec.profile import Profile
from tests.cluster.remote.conftest import Clusterlm, profile_of, seed_packages
from tests.cluster.remote.local_transport import LocalTransport
from tests.cluster.run_folders import RunFolder

DAY = 86400.0
MONTH = 30 * DAY


class Folder:
    """A cluster's folder, seen 40 days after all of it was made, unless it is made young."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.now = time.time() + 40 * DAY

    def blob(self, text: str) -> tuple[str, Path]:
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        path = there.blob_path(self.root, sha256)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return sha256, path

    def tree(self, kind: str, *texts: str) -> Path:
        files = {f"f{n}": Entry(self.blob(text)[0], len(text)) for n, text in enumerate(texts)}
        return self.assemble(kind, Tree(files))

    def assemble(self, kind: str, tree: Tree) -> Path:
        request = {"kind": kind, "tree": tree.to_json(), "digest": tree.digest}
        return Path(there.assemble(self.root, request)["path"])

    def run(self, name: str, *, names: str = "", state: str | None = None) -> RunFolder:
        run = RunFolder(self.root / "runs", name)
        run.paths.spec.write_text("{}")
        run.paths.lock.write_text(json.dumps({"job_yaml": names}))
        if state:
            run.event("ended", phase="train", state=state, cause="DONE", evidence="")
        return run

    def software(self, name: str, deps: str | None = None, *, ago: float = 0.0) -> Path:
        root = self.root / "software" / ".made" / f"{name}.0a0a0a0a"
        root.mkdir(parents=True)
        (root / "install.json").write_text(json.dumps({"deps": deps}))
        (root / "READY").write_text(name)
        (root / "lib.py").write_text("x" * 9000)
        os.utime(root / "READY", (time.time() - ago, time.time() - ago))
        link = self.root / "software" / name
        link.symlink_to(f".made/{name}.0a0a0a0a")
        return link

    def look(self, *, remove: bool = False, older_than_s: float = MONTH) -> dict[str, Any]:
        profile = Profile.model_validate({"folder": str(self.root)})
        return clean(profile, older_than_s=older_than_s, remove=remove, now=self.now)

    def clean(self) -> dict[str, int]:
        return {group["kind"]: group["count"] for group in self.look(remove=True)["groups"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "shared" / "runs"))
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "none.yaml"))
    return Folder(tmp_path / "shared")


def make_young(folder: Folder, path: Path) -> None:
    os.utime(path, (folder.now, folder.now))


def test_nothing_is_removed_by_a_look(folder: Folder) -> None:
    code, data = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    folder.software("0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa")
    folder.software("deps-bbbbbbbbbbbb")
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-aaaaaaaaaaaa")
    answer = folder.look()
    assert not answer["removed"]
    found = {group["kind"]: group["count"] for group in answer["groups"]}
    assert found == {"software": 2, "snapshots": 1, "uploads": 1, "objects": 2}
    assert (code / "f0").exists()
    assert (data / "f0").exists()
    assert any("0.1.0-aaaaaaaaaaaa" in row for row in rows_of(answer))
    assert sum(1 for _ in (folder.root / "software").glob("[0-9d]*")) == 3


def test_what_no_run_needs_goes_and_a_second_time_there_is_nothing(folder: Folder) -> None:
    code, data = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    keep = there.keep(folder.root, {"key": "a" * 32, "texts": {"code.json": "{}"}})["path"]
    assert folder.clean() == {"snapshots": 1, "uploads": 1, "objects": 2, "submits": 1}
    assert not any(path.exists() for path in (code, data, Path(keep)))
    assert list((folder.root / ".removed").iterdir()) == []
    assert folder.clean() == {}


@pytest.mark.parametrize("state", [None, "STOPPED", "CANCELLED"])
def test_a_run_that_lives_or_may_be_resumed_keeps_all_that_it_names(
    folder: Folder, state: str | None
) -> None:
    code, data = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    old = folder.software("0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa")
    deps = folder.software("deps-aaaaaaaaaaaa")
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-bbbbbbbbbbbb")
    run = folder.run("r", names=f"{code}/job.yaml", state=state)
    run.paths.spec.write_text(json.dumps({"path": f"{data}/f0"}))
    (run.paths.root / "torchrun.sh").write_text(f"{old}/bin/python -m torch\n")
    assert folder.clean() == {"objects": 1}
    assert (code / "f0").read_text() == "a"
    assert (data / "f0").read_text() == "b"
    assert (old / "lib.py").exists()
    assert (deps / "lib.py").exists()


def test_a_run_that_is_done_keeps_what_its_spec_names(folder: Folder) -> None:
    code, base = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    run = folder.run("r", names=f"{code}/job.yaml", state="DONE")
    run.paths.spec.write_text(json.dumps({"model": f"{base}/f0"}))
    assert folder.clean() == {"snapshots": 1, "objects": 1}
    assert (base / "f0").exists()


def test_a_submit_of_this_very_moment_loses_nothing(folder: Folder) -> None:
    code, data = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    wanted, blob = folder.blob("sent long ago, asked for now")
    fresh = folder.blob("sent a minute ago")[1]
    make_young(folder, fresh)
    there.missing(folder.root, {"blobs": {wanted: 28}})
    for note in (folder.root / "objects" / asked.ASKED).iterdir():
        make_young(folder, note)
    make_young(folder, code)
    make_young(folder, data)
    assert folder.clean() == {"objects": 1}
    assert blob.exists()
    assert fresh.exists()
    assert (data / "f0").exists()


def test_what_is_wanted_between_the_look_and_the_removal_stays(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = folder.tree("snapshots", "a")
    sha256, blob = folder.blob("a")
    whole = sweep._place

    def a_submit_comes(root: Path) -> Path:
        assert there.missing(root, {"blobs": {sha256: 1}})["missing"] == []
        for note in (root / "objects" / asked.ASKED).iterdir():
            make_young(folder, note)
        folder.tree("snapshots", "a")
        make_young(folder, code)
        return whole(root)

    monkeypatch.setattr(sweep, "_place", a_submit_comes)
    assert folder.clean() == {}
    assert (code / "f0").exists()
    assert blob.exists()


def test_a_use_is_noted_by_the_submit_itself(folder: Folder) -> None:
    code = folder.tree("snapshots", "a")
    os.utime(code, (1, 1))
    folder.tree("snapshots", "a")
    assert time.time() - code.stat().st_mtime < 60
    sha256, blob = folder.blob("a")
    os.utime(blob, (1, 1))
    there.missing(folder.root, {"blobs": {sha256: 1, "0" * 64: 5}})
    assert asked.asked_since(folder.root, time.time() - 60) == {sha256}
    # a job that reads another name of it must not take it for changed
    assert blob.stat().st_mtime == 1


def test_a_note_that_is_being_written_counts_for_nothing_and_a_damaged_one_stops(
    folder: Folder,
) -> None:
    notes = folder.root / "objects" / asked.ASKED
    notes.mkdir(parents=True)
    (notes / ".half").write_text("")
    assert asked.asked_since(folder.root, 0) == set()
    (notes / "whole").write_text("")
    with pytest.raises(ClusterLMError, match="damaged"):
        asked.asked_since(folder.root, 0)


def test_a_kill_in_the_middle_is_finished_by_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = folder.tree("snapshots", "a")
    folder.software("0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa")
    folder.software("deps-aaaaaaaaaaaa")
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-bbbbbbbbbbbb")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "_remove", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.look(remove=True)
    assert folder.look()["groups"]
    folder.clean()
    assert folder.clean() == {}
    assert not code.exists()
    assert [path.name for path in (folder.root / "software").glob("[0-9d]*")] == [
        "0.2.0-bbbbbbbbbbbb"
    ]
    assert len(list((folder.root / "software" / ".made").iterdir())) == 1


def test_software_that_somebody_has_just_called_stays(folder: Folder) -> None:
    folder.software("0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa", ago=4000)
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-aaaaaaaaaaaa", ago=60)
    folder.software("0.1.1-cccccccccccc", "deps-aaaaaaaaaaaa", ago=4000)
    folder.now = time.time()
    mark = folder.root / "software" / "0.1.1-cccccccccccc" / "USED"
    mark.touch()
    assert folder.clean() == {"software": 1}
    left = {path.name for path in (folder.root / "software").glob("0*")}
    assert left == {"0.2.0-bbbbbbbbbbbb", "0.1.1-cccccccccccc"}


def test_half_things_go_when_they_are_old(folder: Folder) -> None:
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-bbbbbbbbbbbb")
    folder.software("deps-bbbbbbbbbbbb")
    software = folder.root / "software"
    own = folder.software("somebody-elses")
    for name in ("wheels/0123456789ab", ".made/0.3.0-cccccccccccc.12345678"):
        (software / name).mkdir(parents=True)
    (software / ".0.3.0-cccccccccccc.12345678").symlink_to(".made/nowhere")
    (folder.root / "snapshots").mkdir()
    (folder.root / "snapshots" / f".{'a' * 16}.{'b' * 12}").mkdir()
    part = folder.blob("x")[1].with_name(".half.0123456789abcdef.part")
    part.write_text("half of it")
    there.missing(folder.root, {"blobs": {folder.blob("y")[0]: 1}})
    assert folder.clean() == {"leftovers": 6, "objects": 2}
    assert (own / "lib.py").exists()
    assert (software / "deps-bbbbbbbbbbbb" / "lib.py").exists()
    folder.now = time.time()
    (software / ".made" / "0.3.0-cccccccccccc.12345678").mkdir()
    assert folder.clean() == {}


def test_no_link_and_no_strange_name_leads_out_of_the_folder(
    folder: Folder, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    (outside / "mine").write_text("mine")
    (outside / ("a" * 64)).mkdir()
    (outside / "ab" / ("ab" + "c" * 62)).write_text("mine")
    (outside / "READY").write_text("x")
    before = sorted(path for path in outside.rglob("*"))
    # a whole kind that is a link, a thing of each kind that is one, and links within
    (folder.root / "uploads").symlink_to(outside)
    (folder.root / "snapshots").mkdir()
    (folder.root / "snapshots" / ("b" * 64)).symlink_to(outside)
    code = folder.tree("snapshots", "a")
    (code / "out").symlink_to(outside)
    (folder.root / "objects" / "cd").symlink_to(outside / "ab")
    (folder.root / "submits").mkdir()
    (folder.root / "submits" / ("c" * 32)).symlink_to(outside)
    software = folder.root / "software"
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-bbbbbbbbbbbb")
    (software / "0.1.0-aaaaaaaaaaaa").symlink_to("../../outside")
    (software / "deps-aaaaaaaaaaaa").symlink_to(".made/../../../outside")
    (software / "wheels").symlink_to(outside)
    (folder.root / "snapshots" / "not\nours").mkdir()
    answer = folder.look(remove=True)
    assert not code.exists()
    assert sorted(path for path in outside.rglob("*")) == before
    assert (outside / "mine").read_text() == "mine"
    assert any("uploads is a link" in note for note in answer["notes"])
    assert (folder.root / "snapshots" / "not\nours").is_dir()
    assert (folder.root / "snapshots" / ("b" * 64)).is_symlink()


def test_a_bin_that_is_a_link_is_refused(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    folder.tree("snapshots", "a")
    (folder.root / ".removed").symlink_to(outside)
    with pytest.raises(ClusterLMError, match="no folder of ours"):
        folder.look(remove=True)
    assert (outside / "mine").exists()


@pytest.mark.parametrize("trouble", ["a run", "a profile", "another folder of runs"])
def test_where_not_all_runs_are_known_nothing_goes_that_one_may_need(
    folder: Folder, trouble: str, tmp_path: Path
) -> None:
    code, data = folder.tree("snapshots", "a"), folder.tree("uploads", "b")
    folder.software("0.1.0-aaaaaaaaaaaa", "deps-aaaaaaaaaaaa")
    folder.software("0.2.0-bbbbbbbbbbbb", "deps-bbbbbbbbbbbb")
    if trouble == "a run":
        run = folder.run("r")
        with run.paths.lock.open("r+b") as file:
            file.truncate(100 * 2**20)
    elif trouble == "a profile":
        (folder.root / "profiles" / "x").mkdir(parents=True)
        (folder.root / "profiles" / "x" / "clusters.yaml").write_text("{")
    else:
        # its file system is not mounted on this login node
        asked.note_runs_dir(folder.root, {"CLUSTERLM_RUNS_DIR": str(tmp_path / "work" / "runs")})
    answer = folder.look(remove=True)
    assert [group["kind"] for group in answer["groups"]] == ["objects"]
    assert any("may need stays" in note for note in answer["notes"])
    assert code.is_dir()
    assert data.is_dir()


def test_runs_of_another_folder_of_runs_count_too(folder: Folder, tmp_path: Path) -> None:
    code = folder.tree("snapshots", "a")
    asked.note_runs_dir(folder.root, {"CLUSTERLM_RUNS_DIR": str(tmp_path / "work")})
    run = RunFolder(tmp_path / "work", "r")
    run.paths.lock.write_text(json.dumps({"job_yaml": f"{code}/job.yaml"}))
    assert folder.clean() == {"objects": 1}


def test_a_run_in_the_making_counts_too(folder: Folder) -> None:
    code = folder.tree("snapshots", "a")
    aside = folder.root / "runs" / f".r.{'a' * 32}.{'b' * 12}"
    aside.mkdir(parents=True)
    (aside / "job.yaml").write_text(f"path: {code}/f0\n")
    assert folder.clean() == {"objects": 1}


def test_data_that_shares_a_file_with_data_in_use_waits(folder: Folder) -> None:
    first, second = folder.tree("uploads", "b", "c"), folder.tree("uploads", "b", "d")
    run = folder.run("r", names=f"{second}/f0")
    inode = (second / "f0").stat()
    assert folder.clean() == {}
    assert first.exists()
    # a job that reads it takes another time of change for an edit
    assert (second / "f0").stat().st_ctime_ns == inode.st_ctime_ns
    run.event("ended", phase="train", state="STOPPED", cause="OOM", evidence="")
    assert folder.clean() == {"uploads": 1, "objects": 1}
    assert (second / "f0").read_text() == "b"


def test_a_limit_within_which_things_are_still_sent_is_refused(folder: Folder) -> None:
    with pytest.raises(ClusterLMError, match="at least 1d"):
        folder.look(older_than_s=3600.0)


def test_an_older_clusterlm_goes_and_the_newer_one_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    line = LocalTransport(home)
    seed_packages(line, profile_of())
    old = Path(boot.bootstrap(line, "there", profile_of(), tell=print).python).parents[1]
    monkeypatch.setattr(boot, "code_digest", lambda: "of newer code")
    new = boot.bootstrap(line, "there", profile_of(), tell=print)
    assert new.is_new
    remote = Remote("there", profile_of(), line, tell=print)
    answer = clean_elsewhere(remote, int(MONTH), remove=True, tell=print)
    # it was called a moment ago
    assert answer["groups"] == []
    os.utime(old / "READY", (1, 1))
    answer = clean_elsewhere(remote, int(MONTH), remove=True, tell=print)
    assert [(one["kind"], one["names"]) for one in answer["groups"]] == [("software", [old.name])]
    assert not old.exists()
    made = home / "shared" / "software" / ".made"
    assert [path.name.rpartition(".")[0] for path in made.iterdir()] == [
        Path(new.python).parents[1].name
    ]
    assert remote.ask(["--version"]).code == 0
    assert not boot.bootstrap(line, "there", profile_of(), tell=print).is_new


def test_from_the_laptop(laptop: Path, there: LocalTransport, clusterlm: Clusterlm) -> None:
    shared = there.home / "shared"
    code = shared / "snapshots" / ("a" * 64)
    code.mkdir(parents=True)
    (code / "a.py").write_text("x" * 100_000)
    os.utime(code, (1, 1))
    status, out, err = clusterlm("clusters", "clean", "there")
    assert (status, code.is_dir()) == (0, True), err
    assert "1  code that no run needs" in out
    assert "--yes" in out
    status, out, _ = clusterlm("clusters", "clean", "there", "--yes")
    assert (status, code.exists()) == (0, False)
    assert out.startswith("removed from")
    status, out, _ = clusterlm("clusters", "clean", "there", "--json")
    assert json.loads(out)["groups"] == []
    status, _, err = clusterlm("clusters", "clean", "there", "--older-than", "5m")
    assert (status, "at least 1d" in err) == (2, True)


@pytest.mark.parametrize("says_yes", [False, True])
def test_on_a_terminal_it_asks(
    folder: Folder,
    clusterlm: Clusterlm,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    says_yes: bool,
) -> None:
    config = tmp_path / "none.yaml"
    config.write_text(f"clusters: {{here: {{folder: {folder.root}}}}}\n")
    config.chmod(0o600)
    code = folder.tree("snapshots", "a")
    os.utime(code, (1, 1))
    asked_for: list[str] = []

    def confirm(text: str, **_: Any) -> bool:
        asked_for.append(text)
        return says_yes

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("typer.confirm", confirm)
    status, out, _ = clusterlm("clusters", "clean", "here")
    assert (status, len(asked_for)) == (0, 1)
    assert asked_for[0].startswith("remove ")
    assert (code.exists(), "removed from" in out) == (not says_yes, says_yes)


def test_an_answer_of_another_shape_is_told() -> None:
    for answer in ({}, {"groups": [{}], "notes": []}, {"groups": 5, "notes": []}):
        with pytest.raises(ClusterLMError, match="no answer"):
            rows_of(answer)
