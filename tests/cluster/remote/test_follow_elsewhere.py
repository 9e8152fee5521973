from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from clusterlm.cluster.follow_place import changes, merged, packed, unpacked
from clusterlm.cluster.remote.follow_elsewhere import follow_elsewhere
from clusterlm.cluster.remote.forward import Remote
from clusterlm.errors import ClusterLMError
from tests.cluster.remote.local_transport import LocalTransport
from tests.cluster.run_folders import RunFolder


def test_no_line_is_lost_or_doubled_over_many_cuts(remote: Remote, there: LocalTransport) -> None:
    run = RunFolder(there.home / "shared" / "runs", "small")
    run.submitted(job_id="101")
    logs = run.paths.attempt("train", 1)
    logs.make()
    written: list[str] = []
    ranks = [logs.rank_log(rank) for rank in range(3)]

    def write() -> None:
        rng = random.Random(1)
        for number in range(150):
            with ranks[number % 3].open("a") as file:
                text = f"line {number} {'x' * rng.randrange(80)}"
                written.append(text)
                file.write(text + "\n")
            # a run that falls silent has ended, for whoever looks
            run.beat(job_id="101")
            time.sleep(0.03)
        run.ended()

    rng = random.Random(7)
    there.cuts = [rng.randrange(50, 4000) for _ in range(8)]
    shown: list[str] = []
    told: list[str] = []
    writer = threading.Thread(target=write)
    writer.start()
    code = follow_elsewhere(
        remote, "small", [], 1000, say=shown.append, tell=told.append, sleep=lambda s: None
    )
    writer.join()
    assert code == 0
    assert there.cuts == []
    assert any("the connection broke" in line for line in told)
    lines = [line.split("] ", 1)[1] for line in shown if "] line " in line]
    assert sorted(lines) == sorted(written)
    for rank in range(3):
        mine = [line for line in lines if int(line.split()[1]) % 3 == rank]
        assert mine == [line for line in written if int(line.split()[1]) % 3 == rank]
    assert shown[-1].startswith("--- small is ")


def test_a_run_that_is_not_there_ends_the_following(remote: Remote, tmp_path: Path) -> None:
    told: list[str] = []
    code = follow_elsewhere(
        remote, "nothing", [], 5, say=lambda line: None, tell=told.append, sleep=pytest.fail
    )
    assert code == 2
    assert "no run 'nothing'" in told[0]


def test_a_place_is_itself_again_after_the_way() -> None:
    place = {
        "events": 812,
        "over": ["attempts/1"],
        "failed": [["train", 1]],
        "files": {f"attempts/2/logs/rank{n}.log": [n, False, True] for n in range(512)},
    }
    assert unpacked(packed(place)) == place
    assert len(packed(place)) < 20_000
    with pytest.raises(ClusterLMError, match="--from"):
        unpacked("nonsense")


def test_changes_added_up_are_the_place() -> None:
    first = {"events": 1, "over": [], "failed": [], "files": {"a/1.log": [1, False, False]}}
    second = {
        "events": 2,
        "over": ["a"],
        "failed": [],
        "files": {"b/1.log": [5, False, False]},
    }
    assert merged(first, changes(first, second)) == second
