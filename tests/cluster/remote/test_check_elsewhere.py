"""check and submit --dry-run from a laptop: one list of mistakes, and nothing sent for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.cluster.remote.conftest import Clusterlm
from tests.cluster.remote.local_transport import LocalTransport
from tests.cluster.remote.test_submit_elsewhere import job, run_there

SACCTMGR = """#!/bin/sh
case "$*" in
  *assoc*) printf 'team-a|||normal|\\nteam-b|||normal|\\n' ;;
  *) echo team-a ;;
esac
"""


def rows(err: str) -> dict[str, str]:
    """Place and message of each mistake that was told; one told twice fails."""
    found = re.findall(r"^  (\S+(?: \S+)?) {2,}(.*)$", err.partition(" problem")[2], re.MULTILINE)
    places = [place for place, _ in found]
    assert len(places) == len(set(places)), err
    return dict(found)


def objects(there: LocalTransport) -> list[Path]:
    return [p for p in (there.home / "shared" / "objects").rglob("*") if p.is_file()]


def slurm_with(there: LocalTransport, **programs: str) -> None:
    """Put programs of one's own before those of the Slurm there."""
    folder = there.home / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with (there.home / ".bash_profile").open("a") as file:
        file.write(f'export PATH="{folder}:$PATH"\n')


def test_a_job_that_fits_is_fine_and_nothing_goes(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, err = clusterlm("check", "job.yaml")
    assert code == 0, err
    assert out.endswith("job.yaml: fine\n")
    assert "partition gpu: " in out
    assert "a submit would send 3 files, 1.5 kB to there" in err
    assert objects(there) == []
    assert not (there.home / "shared" / "snapshots").exists()
    assert not (there.home / "sbatch.calls").exists()


def test_a_submit_that_was_there_already_would_send_nothing(
    laptop: Path, clusterlm: Clusterlm
) -> None:
    job(laptop)
    assert clusterlm("submit", "job.yaml")[0] == 0
    assert "would send nothing to there: 3 files" in clusterlm("check", "job.yaml")[2]
    (laptop / "data" / "b.txt").write_text("new\n")
    assert "send 1 file, 4 B to there, of 3 files" in clusterlm("check", "job.yaml")[2]


def test_mistakes_of_both_sides_are_one_list_with_the_lines_of_the_file(
    laptop: Path, clusterlm: Clusterlm
) -> None:
    text = job(laptop, "/nowhere/x.txt").read_text()
    text = text.replace("max_steps: 2", "max_stpes: 2")
    text += "secrets: [NOT_SET_ANYWHERE]\nresources:\n  partition: gpuu\n  time: 3 hors\n"
    (laptop / "job.yaml").write_text(text)
    code, out, err = clusterlm("check", "job.yaml")
    assert (code, out.count("fine")) == (2, 0)
    found = rows(err)
    assert list(found) == [
        "data.sources[0].path",
        "train.max_stpes",
        "secrets",
        "resources.partition",
        "resources.time",
    ]
    assert "neither here nor on there" in found["data.sources[0].path"]
    assert "export NOT_SET_ANYWHERE=" in found["secrets"]
    assert "accepted: gpu (default)" in found["resources.partition"]
    lines = {place: int(re.findall(r"\(line (\d+)\)", text)[0]) for place, text in found.items()}
    written = text.splitlines()
    assert "path:" in written[lines["data.sources[0].path"] - 1]
    assert "gpuu" in written[lines["resources.partition"] - 1]
    assert "hors" in written[lines["resources.time"] - 1]


def test_a_default_in_the_place_of_a_mistake_is_not_judged(
    laptop: Path, clusterlm: Clusterlm
) -> None:
    file = job(laptop)
    file.write_text(file.read_text() + "resources: {nodes: many, time: 9d}\n")
    found = rows(clusterlm("check", "job.yaml")[2])
    assert set(found) == {"resources.nodes", "resources.time"}
    assert "the longest job is 1-00:00:00 in partition gpu" in found["resources.time"]


def test_a_value_of_the_profile_is_mended_there(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    config = laptop.parent / "clusters.yaml"
    clusters = yaml.safe_load(config.read_text())
    clusters["clusters"]["there"]["resources"] = {"partition": "old"}
    config.write_text(yaml.safe_dump(clusters))
    found = rows(clusterlm("check", "job.yaml")[2])
    assert (
        "it comes from profile there: clusterlm clusters edit there"
        in (found["resources.partition"])
    )


def test_what_a_set_brings_is_named_so(laptop: Path, clusterlm: Clusterlm) -> None:
    job(laptop)
    code, _, err = clusterlm("check", "job.yaml", "--set", "resources.nodes=9")
    assert code == 2
    assert list(rows(err)) == ["--set resources.nodes"]
    assert "partition gpu has 4" in err


def test_mistakes_here_are_told_without_a_connection_and_that_nobody_was_asked(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    there.is_down = True
    code, _, err = clusterlm("check", "job.yaml", "--set", "train.max_stpes=3")
    assert code == 2
    assert "the cluster was not asked: me@there: no route to host" in err
    assert list(rows(err)) == ["--set train.max_stpes"]
    code, _, err = clusterlm("check", "job.yaml")
    assert (code, "no route to host" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [("name: [small\n", "cannot be read as YAML"), ("name: x\ncluster: tehre\n", "not known")],
)
def test_a_file_that_names_no_cluster_says_that_none_was_asked(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, text: str, words: str
) -> None:
    (laptop / "job.yaml").write_text(text)
    code, _, err = clusterlm("check", "job.yaml")
    assert code == 2
    assert "was asked" in err.replace("was not asked", "was asked")
    assert words in err
    assert there.calls == []


def test_files_are_judged_where_they_are(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    corpus = there.home / "corpus"
    corpus.mkdir()
    (corpus / "x.jsonl").write_text('{"text": "words"}\n')
    (laptop / "empty.jsonl").write_text('{"txet": "words"}\n')
    text = job(laptop).read_text()
    sources = "sources: [{kind: text, path: ~/corpus/x.jsonl, field: body},"
    sources += " {kind: text, path: empty.jsonl, field: text},"
    sources += " {kind: custom, path: good.jsonl, converter: own.py:f}]"
    text = re.sub(r"sources: .*", sources, text)
    text = text.replace("mode: full", "mode: full, strategy: deepspeed, deepspeed: ds.json")
    (laptop / "own.py").write_text("def f(record):\n    return record['text']\n")
    (laptop / "good.jsonl").write_text('{"text": "words"}\n')
    (laptop / "ds.json").write_text('{"train_micro_batch_size_per_gpu": 2}')
    (laptop / "job.yaml").write_text(text)
    _, _, err = clusterlm("check", "job.yaml")
    found = rows(err)
    assert set(found) == {"data.sources[0].path", "data.sources[1].path"}, err
    assert "body" in found["data.sources[0].path"]
    assert "txet" in found["data.sources[1].path"] or "text" in found["data.sources[1].path"]


def test_a_project_that_cannot_go_is_one_mistake_among_the_others(
    laptop: Path, clusterlm: Clusterlm
) -> None:
    job(laptop)
    (laptop / "out").symlink_to("/etc")
    code, _, err = clusterlm("check", "job.yaml", "--set", "resources.partition=gpuu")
    assert code == 2
    assert "a link to /etc, outside of the project" in err
    assert "gpuu" in err


@pytest.mark.parametrize(("enforced", "code"), [("associations", 2), ("none", 0)])
def test_a_foreign_account_is_told_with_those_that_are_yours(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, enforced: str, code: int
) -> None:
    config = f"#!/bin/sh\necho 'AccountingStorageEnforce = {enforced}'\n"
    slurm_with(there, sacctmgr=SACCTMGR, scontrol=config)
    job(laptop)
    done = clusterlm("check", "job.yaml", "--set", "resources.account=theirs")
    assert done[0] == code, done
    assert "theirs is none of yours; you have team-a, team-b" in done[1] + done[2]
    assert clusterlm("check", "job.yaml", "--set", "resources.account=team-b")[0] == 0


def test_an_account_that_nobody_can_judge_is_told_to_be_so(
    laptop: Path, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, _ = clusterlm("check", "job.yaml", "--set", "resources.account=theirs")
    assert code == 0
    assert "whether theirs is yours is not known" in out


def test_dry_run_says_all_on_stderr_and_prints_the_files_alone(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, err = clusterlm("submit", "job.yaml", "--dry-run")
    assert code == 0, err
    assert re.search(r"^ +\d+  job.yaml$", err, re.MULTILINE)
    assert "partition gpu: " in err
    assert out.startswith("==> spec.json <==\n")
    heads = re.findall(r"^==> (.*) <==$", out, re.MULTILINE)
    assert heads[:3] == ["spec.json", "preprocess.sbatch", "train.sbatch"]
    assert str(there.home / "shared" / "uploads") in out
    assert not run_there(there).exists()
    assert not (there.home / "sbatch.calls").exists()


def test_dry_run_of_a_job_with_mistakes_prints_no_file_and_sends_nothing(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm
) -> None:
    job(laptop)
    code, out, err = clusterlm("submit", "job.yaml", "--dry-run", "--set", "train.max_stpes=3")
    assert (code, out) == (2, "")
    assert "train.max_stpes" in err
    assert objects(there) == []


def test_an_answer_that_is_none_is_told(
    laptop: Path, there: LocalTransport, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clusterlm.cluster.remote import check_elsewhere

    job(laptop)
    answer: list[object] = [["x"]]
    monkeypatch.setattr(check_elsewhere, "last_json", lambda lines: {"problems": answer})
    code, _, err = clusterlm("check", "job.yaml")
    assert code == 2
    assert "what came back of the check is no answer" in err
    # a place that is none, and words that would be lines of their own
    answer[0] = ["data.a[b", "one\n  clusterlm: run this\x1b[2J", None]
    code, _, err = clusterlm("check", "job.yaml")
    assert code == 2
    assert "  data.a[b  one   clusterlm: run this\n" in err
