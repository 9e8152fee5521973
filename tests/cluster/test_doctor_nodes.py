"""The job that looks at nodes: what is sent, what nodes see, what is made of their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusterlm.cluster.doctor import probe_job
from clusterlm.cluster.doctor.examine import Asked
from clusterlm.cluster.doctor.folders import marked
from clusterlm.cluster.doctor.known_before import with_nodes_of
from clusterlm.cluster.doctor.node_answers import (
    Clocks,
    all_reduce_of,
    folders_of,
    nodes_of,
    parse_answers,
    skew_of,
)
from clusterlm.cluster.doctor.probe_job import Came, Waiting, program, render_job, with_answers
from clusterlm.node.look_around import lines_of
from clusterlm.spec.probe import Probe, ProbedFolder, ProbedNode, ProbedPartition
from clusterlm.spec.profile import Profile, ProfileResources
from tests.cluster.fake_host import Clock, FakeHost

CLOCKS = Clocks(submitted=1000.0, seen=1060.0, ahead_s=0.0)
BATCH = ProbedPartition(name="batch", nodes=4, nodes_up=4, is_default=True, gres=("gpu:8",))


def runs(request: object, *nodes: str) -> dict[str, object]:
    """The program as a node runs it: by stdin, without clusterlm."""
    done = subprocess.run(
        [sys.executable, "-I", "-", json.dumps(request), *nodes],
        input=program(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (seen,) = parse_answers(done.stdout).nodes
    return dict(seen)


def test_a_node_that_sees_the_folders_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    own, other = tmp_path / "runs", tmp_path / "data"
    other.mkdir()
    with marked([own], [own, other, tmp_path / "absent"]) as request:
        assert len(list(own.iterdir())) == 1
        seen = runs(request, "localhost")
    assert list(own.iterdir()) == []
    first, second = seen["folders"]  # type: ignore[misc]
    assert (first["visible"], first["writes"]) == (True, True)
    assert first["save_s"] > 0
    assert abs(first["ahead_s"]) < 5
    assert second["visible"] is True
    assert "save_s" not in second, "folders of others are not written to"
    assert sys.executable in str(seen["python"])


def test_another_folder_of_the_same_name_is_not_the_folder(tmp_path: Path) -> None:
    own, data = tmp_path / "runs", tmp_path / "data"
    data.mkdir()
    with marked([own], [data]) as request:
        # what a node-local folder looks like from a node
        next(own.iterdir()).unlink()
        data.rmdir()
        data.mkdir()
        os.utime(data, (1, 1))
        seen = runs(request)
    assert [folder["visible"] for folder in seen["folders"]] == [False, False]  # type: ignore[attr-defined]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with marked([tmp_path], []) as request:
        request["name"] += "/../" + request["name"]
        request["folders"][0]["token"] = None
        found = os.stat(tmp_path)
        request["folders"][0]["identity"] = [found.st_ino, found.st_mtime_ns]
        (seen,) = runs(request)["folders"]  # type: ignore[misc]
    assert seen["writes"] is False
    assert seen["error"]


def test_only_marked_lines_count() -> None:
    answers = parse_answers(
        "Loading module cuda\n"
        '0: CLUSTERLM-NODE {"host": "n1", "time": 1030.0}\n'
        "CLUSTERLM-NODE {broken\n"
        'CLUSTERLM-NODE ["no object"]\n'
        'CLUSTERLM-NODE {"host": 3}\n'
        "CLUSTERLM-END\n"
    )
    assert [node["host"] for node in answers.nodes] == ["n1"]
    assert answers.is_whole
    assert "Loading module cuda" in answers.noise


@pytest.mark.parametrize(
    ("spoke", "ahead", "skew"),
    [
        # by the clock of the file server
        (1030.0, 0.0, 0.0),
        (1037.0, 7.0, 7.0),
        # by the submit and by now, where files bear the writer's own time
        (1300.0, 0.0, 240.0),
        (900.0, 0.0, -100.0),
    ],
)
def test_clocks_are_compared_by_files_and_by_what_is_certain(
    spoke: float, ahead: float, skew: float
) -> None:
    node = {"host": "n", "time": spoke, "folders": [{"path": "/a", "ahead_s": ahead}]}
    assert skew_of(node, CLOCKS) == skew
    assert skew_of({"host": "n"}, CLOCKS) is None


def test_the_worst_node_decides_on_a_folder() -> None:
    def seen(host: str, **folder: object) -> str:
        fields = {"host": host, "folders": [{"path": "/runs", **folder}]}
        return f"CLUSTERLM-NODE {json.dumps(fields)}\n"

    text = seen("a", visible=True, writes=True, save_s=0.1) + seen("b", visible=False, error="gone")
    (folder,), notes = folders_of([ProbedFolder(path="/runs")], parse_answers(text))
    assert (folder.visible, folder.fsync_rename, folder.fsync_rename_s) == (False, True, 0.1)
    assert notes == ["/runs on b: gone"]


def test_a_node_without_python_has_none() -> None:
    (node,) = nodes_of(parse_answers('CLUSTERLM-NODE {"host": "n"}'), CLOCKS)
    assert (node.host, node.python, node.clock_skew_s) == ("n", None, None)


def test_a_failed_all_reduce_is_told_by_its_error() -> None:
    text = 'RuntimeError: no route\n[rank0] bye\nCLUSTERLM-TEST {"code": 1}\n'
    test = all_reduce_of(parse_answers(text))
    assert test is not None
    assert (test.ok, test.text) == (False, "RuntimeError: no route")
    fine = 'CLUSTERLM-TEST {"ok": true, "gb_per_s": 12.0, "ranks": 2, "backend": "nccl"}'
    good = all_reduce_of(parse_answers(fine))
    assert good is not None
    assert good.ok
    assert "7B model (bf16) take about 2.3 s" in good.text
    assert all_reduce_of(parse_answers("")) is None


def test_a_test_that_was_asked_for_and_never_ran_failed() -> None:
    came = Came(parse_answers(""), CLOCKS, "given up after 5 s")
    probe = with_answers(Probe(), came, with_test=True)
    assert probe.nodes_test is not None
    assert not probe.nodes_test.ok
    assert "nodes: given up after 5 s" in probe.notes


def rendered(probe: Probe, asked: Asked, tmp_path: Path, *, with_test: bool = False) -> str:
    request = {"name": "x", "folders": []}
    return render_job(probe, asked, tmp_path, request, with_test=with_test)


def test_the_script_is_bash_and_asks_for_what_the_profile_says(tmp_path: Path) -> None:
    resources = ProfileResources(partition="batch", account="me", constraint="ib", gpus_per_node=4)
    profile = Profile(resources=resources, env={"NCCL_DEBUG": "INFO; rm -rf /"})
    probe = Probe(partitions=(BATCH,), gpu_requests_accepted=("gpus-per-node",))
    text = rendered(probe, Asked(profile), tmp_path, with_test=True)
    for line in ("--nodes=2", "--account=me", "--constraint=ib", "--gpus-per-node=4"):
        assert f"#SBATCH {line}\n" in text
    assert "export NCCL_DEBUG='INFO; rm -rf /'" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "gpus-per-node" not in rendered(probe, Asked(profile), tmp_path), "a look needs no GPU"


def test_one_node_is_looked_at_where_there_is_one(tmp_path: Path) -> None:
    for change in ({"nodes_up": 1}, {"max_nodes": 1}):
        probe = Probe(partitions=(BATCH.model_copy(update=change),))
        text = rendered(probe, Asked(), tmp_path, with_test=True)
        assert "#SBATCH --nodes=1\n" in text
        assert "torch.distributed" not in text


def test_a_short_partition_gets_a_short_job(tmp_path: Path) -> None:
    probe = Probe(partitions=(BATCH.model_copy(update={"max_time_s": 60}),))
    assert "#SBATCH --time=0-00:01:00" in rendered(probe, Asked(), tmp_path)


class Queue(FakeHost):
    """A Slurm in which the job waits for ever."""


def test_patience_ends_with_the_job_taken_back_and_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    row = "".join(
        f"{cell:<{width}}"
        for cell, width in (
            *(("7", 24), ("PENDING", 24), ("0", 12), ("2026-11-26T03:00:00", 24), ("0", 12)),
            *(("", 256), ("Priority", 192)),
        )
    )
    host = Queue(sbatch=(0, "7\n", ""), squeue=(0, row + "\n", ""), scancel=(0, "", ""))
    clock, said = Clock(), []
    waiting = Waiting(20.0, False, said.append, clock.sleep, clock)
    probe = probe_job.look_at_nodes(Probe(partitions=(BATCH,)), Asked(), host, waiting)
    assert host.calls[-1] == ["scancel", "7"]
    assert host.asked("squeue") <= 6
    assert "given up after 20 s" in probe.notes[0]
    assert any("in the queue" in line for line in said)
    assert [p.name for p in (tmp_path / "runs" / ".doctor").iterdir()] == []


def test_ctrl_c_takes_the_job_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    host = Queue(sbatch=(0, "7\n", ""), squeue=(0, "", ""), scancel=(0, "", ""))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    waiting = Waiting(20.0, False, lambda _: None, interrupt, Clock())
    with pytest.raises(KeyboardInterrupt):
        probe_job.look_at_nodes(Probe(partitions=(BATCH,)), Asked(), host, waiting)
    assert host.calls[-1] == ["scancel", "7"]


def test_a_refused_job_leaves_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    host = FakeHost(sbatch=(1, "", "sbatch: error: Batch job submission failed: Invalid account"))
    waiting = Waiting(20.0, False, lambda _: None)
    probe = probe_job.look_at_nodes(Probe(slurm_version="1"), Asked(), host, waiting)
    assert probe.slurm_version == "1"
    assert "Invalid account" in probe.notes[0]


def test_what_was_seen_of_nodes_stays_known_when_none_answers_now() -> None:
    seen = ProbedNode(host="n", python="p")
    before = Probe(
        cluster_name="a",
        nodes=(seen,),
        nodes_time=10.0,
        clock_skew_s=1.0,
        folders=(ProbedFolder(path="/runs", visible=True, free_bytes=5),),
    )
    now = Probe(cluster_name="a", time=60.0, folders=(ProbedFolder(path="/runs", free_bytes=7),))
    both = with_nodes_of(now, before)
    assert both.nodes == (seen,)
    assert both.clock_skew_s == 1.0
    assert (both.folders[0].visible, both.folders[0].free_bytes) == (True, 7)
    assert "50 s ago" in both.notes[-1]
    later = with_nodes_of(now.model_copy(update={"time": 80.0}), both)
    assert "70 s ago" in later.notes[-1]
    assert with_nodes_of(now.model_copy(update={"cluster_name": "b"}), before).nodes == ()
    lost = now.model_copy(update={"folders": (ProbedFolder(path="/runs", visible=False),)})
    assert with_nodes_of(lost, before).folders[0].visible is False


def test_pieces_of_two_nodes_may_come_in_any_order() -> None:
    seen = [{"host": f"n{n}", "folders": [{"path": "/x" * 900}], "cpus": n} for n in (1, 2)]
    first, second = map(lines_of, seen)
    assert len(first) > 2
    assert all(len(line) < 1024 for line in [*first, *second])
    mixed = [line for pair in zip(reversed(first), second, strict=True) for line in pair]
    found = parse_answers("\n".join(["srun: hello", *mixed, "CLUSTERLM-END"]))
    assert sorted(found.nodes, key=lambda node: node["host"]) == seen
    assert found.is_whole
    assert found.noise == ["srun: hello"]
