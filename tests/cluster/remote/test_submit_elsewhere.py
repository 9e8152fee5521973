from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clusterlm.cli import elsewhere
from clusterlm.cluster.remote import runs_elsewhere
from clusterlm.cluster.remote.lookout import Lookout
from tests.bed.waiting import wait_until
from tests.cluster.remote.conftest import Clusterlm, git
from tests.cluster.remote.local_transport import LocalTransport

JOB = """
name: small
cluster: there
data:
  tokenizer: {train: {vocab_size: 300}}
  block_size: 16
  sources: [{kind: text, path: %s}]
model: {from_scratch: {class: LlamaForCausalLM, config: {hidden_size: 16, num_hidden_layers: 1,
  num_attention_heads: 2, intermediate_size: 16}}}
train: {mode: full, max_steps: 2}
"""


def job(folder: Path, path: str = "data/*.txt") -> Path:
    file = folder / "job.yaml"
    file.write_text(JOB % path)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "a.txt").write_text("some words\n" * 50)
    (folder / "data" / "b.txt").write_text("other words\n" * 50)
    return file


def run_there(there: LocalTransport, name: str = "small") -> Path:
    return there.home / "shared" / "runs" / name


def test_a_job_arrives_with_its_code_and_data(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, err = clusterlm("submit", "job.yaml", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert (answer["run"], answer["cluster"]) == ("small", "there")
    assert answer["job_ids"] == {"preprocess": "101", "train": "102"}
    run = run_there(there)
    spec = json.loads((run / "spec.json").read_text())
    path = spec["data"]["sources"][0]["path"]
    assert path.startswith(str(there.home / "shared" / "uploads"))
    assert path.endswith("/data/*.txt")
    assert sorted(p.name for p in Path(path).parent.iterdir()) == ["a.txt", "b.txt"]
    assert spec["cluster"] == "there"
    lock = json.loads((run / "lock.json").read_text())
    assert lock["code"]["snapshot"] in lock["job_yaml"]
    assert lock["python"].startswith(str(there.home / "shared" / "software"))
    # all of it is said before it goes
    assert "1 file, " in err
    assert "2 files, 1.1 kB, 1.1 kB to send" in err


def test_secrets_travel_on_the_input_and_nowhere_else(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = "hf_cAnArY77'\"$x"
    file = job(laptop)
    file.write_text(file.read_text() + "secrets: [HF_TOKEN, OTHER_TOKEN]\n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    code, _, err = clusterlm("submit", "job.yaml", "--json")
    assert code == 2
    assert "HF_TOKEN, OTHER_TOKEN not set" in err
    monkeypatch.setenv("HF_TOKEN", value)
    beside = Path(os.environ["CLUSTERLM_CONFIG"]).with_name("secrets.json")
    beside.write_text(json.dumps({"OTHER_TOKEN": "other-cAnArY77"}))
    beside.chmod(0o600)
    code, out, err = clusterlm("submit", "job.yaml", "--json")
    assert code == 0, err
    assert "cAnArY77" not in out + err
    secrets = run_there(there) / "secrets.json"
    assert json.loads(secrets.read_text()) == {"HF_TOKEN": value, "OTHER_TOKEN": "other-cAnArY77"}
    assert secrets.stat().st_mode & 0o777 == 0o600
    found = [p for p in there.home.rglob("*") if p.is_file() and b"cAnArY77" in p.read_bytes()]
    assert found == [secrets]


def test_a_dirty_tree_is_written_into_the_lock(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    (laptop / "own.py").write_text("x = 1\n")
    git(laptop, "init", "-q")
    git(laptop, "add", ".")
    git(laptop, "commit", "-qm", "x")
    (laptop / "own.py").write_text("x = 2\n")
    code, _, err = clusterlm("submit", "job.yaml", "--name", "dirty")
    assert code == 0, err
    assert "+ uncommitted changes" in err
    run = run_there(there, "dirty")
    lock = json.loads((run / "lock.json").read_text())
    assert lock["code"]["dirty"]
    assert len(lock["code"]["commit"]) == 40
    assert "+x = 2" in (run / "code.diff").read_text()
    snapshot = Path(lock["job_yaml"]).parent
    assert (snapshot / "own.py").read_text() == "x = 2\n"
    # data that git tracks is of the project
    assert (snapshot / "data" / "a.txt").is_file()


def test_the_same_again_sends_nothing_and_a_changed_file_only_itself(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml", "--name", "first")
    code, _, err = clusterlm("submit", "job.yaml", "--name", "second")
    assert code == 0
    assert err.count("all there already") == 2
    (laptop / "data" / "b.txt").write_text("new\n")
    _, _, err = clusterlm("submit", "job.yaml", "--name", "third")
    assert "2 files, 554 B, 4 B to send" in err


def test_what_somebody_changed_there_is_put_back_and_told(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    (laptop / "own.py").write_text("x = 1\n")
    clusterlm("submit", "job.yaml", "--name", "first")
    own = next((there.home / "shared" / "snapshots").glob("*/own.py"))
    own.chmod(0o600)
    own.write_text("x = 9\n")
    code, _, err = clusterlm("submit", "job.yaml", "--name", "second")
    assert code == 0
    assert "own.py had been changed there" in err
    assert own.read_text() == "x = 1\n"


def test_a_path_that_is_on_the_cluster_is_taken_as_it_is(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    (there.home / "corpus").mkdir()
    (there.home / "corpus" / "x.txt").write_text("words\n" * 99)
    job(laptop, "~/corpus/*.txt")
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 0, err
    spec = json.loads((run_there(there) / "spec.json").read_text())
    assert spec["data"]["sources"][0]["path"] == str(there.home / "corpus" / "*.txt")
    assert not (there.home / "shared" / "uploads").exists()


def test_paths_that_are_nowhere_are_told_at_once(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop, "/nowhere/x.txt")
    code, _, err = clusterlm("submit", "job.yaml", "--set", "model={name: ./gone}")
    assert code == 2
    assert "data.sources[0].path" in err
    assert "neither here nor on there" in err
    assert "model.name" in err
    assert not (there.home / "shared" / "snapshots").exists()


def test_a_mistake_is_told_before_anything_is_connected(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, _, err = clusterlm("submit", "job.yaml", "--set", "train.max_stpes=3")
    assert code == 2
    assert "max_steps" in err
    assert there.calls == []


def test_a_refusal_there_passes_unchanged_and_the_name_stays_free(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, err = clusterlm("submit", "job.yaml", "--set", "resources.partition=gpuu")
    assert (code, out) == (2, "")
    assert "clusterlm: job.yaml: 1 problem" in err
    assert "gpuu" in err
    assert runs_elsewhere.find_elsewhere("small") is None
    code, _, _ = clusterlm("submit", "job.yaml")
    assert code == 0
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 2
    assert "a run named small exists already on there" in err


def test_without_a_connection_nothing_is_written_down(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    there.is_down = True
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 2
    assert "no route to host" in err
    assert runs_elsewhere.all_elsewhere() == []


@pytest.mark.parametrize("after", [0, 300, 900])
def test_an_upload_that_is_cut_goes_on(
    laptop: Path,
    there: LocalTransport,
    clusterlm: Clusterlm,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda s: None)
    job(laptop)
    there.cuts = [after, None]
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 0, err
    assert "going on with what is missing" in err
    objects = there.home / "shared" / "objects"
    # the program of the call that was cut may still be at its last piece
    wait_until(
        lambda: all(len(p.name) == 64 for p in objects.rglob("*") if p.is_file()),
        timeout_s=20,
        what="there are whole objects only",
    )


def test_status_knows_runs_here_and_there_and_says_unknown_when_blind(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml")
    code, out, err = clusterlm("status", "--json")
    assert code == 0, err
    [row] = json.loads(out)
    assert (row["run"], row["cluster"]) == ("small", "there")
    assert row["state"] == "PENDING", str(row)
    there.is_down = True
    code, out, _ = clusterlm("status", "--json")
    assert code == 0
    [row] = json.loads(out)
    assert (row["state"], row["source"]) == ("UNKNOWN", "last look")
    assert "last known: PENDING" in row["evidence"]
    assert "no route to host" in row["evidence"]
    assert "UNKNOWN" in clusterlm("status", "small")[1]


def test_a_lookout_waits_once_and_then_says_what_it_saw_last(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml")
    now = 0.0
    lookout = Lookout(runs_elsewhere.all_elsewhere, elsewhere.remote_of, clock=lambda: now)
    assert [one.state.value for one in lookout.statuses()] == ["PENDING"]
    there.is_down = True
    assert [one.state.value for one in lookout.statuses()] == ["PENDING"]
    now = 20.0
    wait_until(
        lambda: [one.state.value for one in lookout.statuses()] == ["UNKNOWN"],
        timeout_s=30,
        what="the next look is over",
    )


def test_runs_that_another_laptop_sent_are_known_after_a_look_at_the_cluster(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml", "--name", "mine")
    clusterlm("submit", "job.yaml", "--name", "theirs")
    clusterlm("submit", "job.yaml", "--name", "two")
    runs_elsewhere.forget("theirs")
    runs_elsewhere.remember(replace(runs_elsewhere.find_elsewhere("two"), cluster="far"))  # type: ignore[type-var]
    assert clusterlm("why", "theirs")[0] == 2
    code, out, err = clusterlm("status", "--cluster", "there", "--json")
    assert code == 0, err
    assert {row["run"] for row in json.loads(out)} == {"mine", "theirs", "two"}
    _, out, err = clusterlm("status", "--cluster", "there")
    assert "theirs" in out
    assert "two on there: on this machine the name means the run on far" in err
    assert "theirs is PENDING" in clusterlm("why", "theirs")[1]
    missing = f"theirs has no model on there so far ({run_there(there, 'theirs')})"
    assert missing in clusterlm("fetch", "theirs")[2]
    there.is_down = True
    code, _, err = clusterlm("status", "--cluster", "there")
    assert (code, "no route to host" in err) == (2, True)


def test_why_logs_and_cancel_are_done_there(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml")
    code, out, _ = clusterlm("why", "small")
    assert (code, "small is PENDING" in out) == (0, True)
    assert json.loads(clusterlm("why", "small", "--json")[1])["run"] == "small"
    code, out, err = clusterlm("logs", "small")
    assert (code, out) == (0, "")
    assert "no logs so far" in err
    code, out, err = clusterlm("cancel", "small", "--now")
    assert code == 0, err
    assert (run_there(there) / "cancel.json").exists()
    assert clusterlm("report", "small")[0] == 2


def test_fetch_brings_the_model_whole(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    clusterlm("submit", "job.yaml")
    code, _, err = clusterlm("fetch", "small")
    assert code == 2
    assert "no model on there so far" in err
    model = run_there(there) / "model"
    (model / "parts").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "parts" / "a.bin").write_bytes(os.urandom(1000))
    code, out, err = clusterlm("fetch", "small")
    assert (code, out.strip()) == (0, "small/model"), err
    got = laptop / "small" / "model"
    assert (got / "parts" / "a.bin").read_bytes() == (model / "parts" / "a.bin").read_bytes()
    assert not (laptop / "small" / "model.part").exists()
    assert clusterlm("fetch", "small")[0] == 2


def test_a_changed_clusterlm_is_installed_before_it_answers(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterlm.cluster.remote import bootstrap

    job(laptop)
    clusterlm("submit", "job.yaml")
    # a software folder of its own, with the packages but without the code
    software = there.home / "shared" / "software"
    before = software.resolve()
    software.unlink()
    software.mkdir()
    for deps in before.glob("deps-*"):
        (software / deps.name).symlink_to(deps)
    monkeypatch.setattr(bootstrap, "code_digest", lambda: "of changed code")
    code, out, err = clusterlm("why", "small")
    assert (code, "small is PENDING" in out) == (0, True)
    assert err.count("installing clusterlm") == 1
    assert "installing clusterlm" not in clusterlm("why", "small")[2]


def test_a_submit_whose_answer_is_cut_is_one_run(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda s: None)
    job(laptop)
    clusterlm("submit", "job.yaml", "--dry-run")
    # contents are there; the next pipe is the submit, cut before, in and after its answer
    there.cuts = [1, 40, None]
    code, out, err = clusterlm("submit", "job.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["run"] == "small"
    assert len((there.home / "sbatch.calls").read_text().splitlines()) == 2


@pytest.mark.parametrize("fault", ["refused", "after"])
def test_whichever_call_of_a_submit_breaks_it_is_one_run(
    laptop: Path,
    there: LocalTransport,
    clusterlm: Clusterlm,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda s: None)
    job(laptop)
    # each is made a second time; without a first answer a refusal is an error
    there.fault = fault
    code, out, err = clusterlm("submit", "job.yaml", "--json")
    assert code == 0, err
    assert json.loads(out)["run"] == "small"
    assert len((there.home / "sbatch.calls").read_text().splitlines()) == 2
    assert "during `sh`" not in err


def test_a_submit_that_nobody_answered_is_gone_on_with_by_the_same_command(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterlm.cluster.remote import submit_elsewhere

    monkeypatch.setattr(submit_elsewhere, "PERSIST_S", 0.0)
    job(laptop)
    clusterlm("submit", "job.yaml", "--dry-run")
    there.cuts = [200]
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 2
    assert "whether there has taken small is not known" in err
    known = runs_elsewhere.find_elsewhere("small")
    assert known is not None
    assert not known.is_sent
    code, _, err = clusterlm("submit", "job.yaml")
    assert code == 0, err
    assert len((there.home / "sbatch.calls").read_text().splitlines()) == 2
    again = runs_elsewhere.find_elsewhere("small")
    assert again is not None
    assert (again.key, again.is_sent) == (known.key, True)
