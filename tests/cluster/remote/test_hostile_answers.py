"""What a login node that lies may say: it is refused in words, and harms nothing here."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from clusterlm.cli.elsewhere import _lines
from clusterlm.cluster.host import Completed
from clusterlm.cluster.remote import bootstrap as boot
from clusterlm.cluster.remote import runs_elsewhere
from clusterlm.cluster.remote.fetch import MODEL, checkpoint, fetch
from clusterlm.cluster.remote.follow_elsewhere import follow_elsewhere
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.look_elsewhere import look_over
from clusterlm.cluster.remote.objects import missing
from clusterlm.cluster.remote.runs_elsewhere import job_ids_of
from clusterlm.cluster.run_status import RunStatus
from clusterlm.cluster.ssh import talk
from clusterlm.cluster.ssh.frames import Frame
from clusterlm.cluster.ssh.transfer import fetch_file
from clusterlm.cluster.table import plain_table
from clusterlm.errors import ClusterLMError, ConnectionLost, RunError, SshError, SshRefused
from clusterlm.node.manifest import MANIFEST
from tests.cluster.remote.conftest import profile_of

EMPTY = hashlib.sha256(b"").hexdigest()


class Liar:
    """A transport whose other side answers with `says(argv)`: output and errors."""

    name = "me@there"

    def __init__(self, says: Callable[[Sequence[str]], tuple[str, str]]) -> None:
        self._says = says

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        return Completed(tuple(argv), 0, *self._says(argv))

    def pipe(self, argv: Sequence[str], *, sink: BinaryIO | None = None, **_: Any) -> Completed:
        out, err = self._says(argv)
        (sink or io.BytesIO()).write(out.encode())
        return Completed(tuple(argv), 0, "", err)


def remote_that_says(says: Callable[[Sequence[str]], tuple[str, str]]) -> Remote:
    remote = Remote("there", profile_of(), Liar(says), tell=lambda line: None)  # type: ignore[arg-type]
    remote.__dict__["installed"] = boot.Installed("/s/python", "/s", "/home/me")
    return remote


@pytest.mark.parametrize(
    "told",
    [
        {"size": 0, "mode": 0o600, "sha256": "/../../../other/"},
        {"size": -1, "mode": 0o600, "sha256": EMPTY},
        {"size": "many", "mode": 0o600, "sha256": EMPTY},
        {"size": 0, "mode": None, "sha256": EMPTY},
        {"a": 1},
    ],
)
def test_no_digest_that_is_told_leads_out_of_the_folder(told: Any, tmp_path: Path) -> None:
    inner = tmp_path / "deep" / "model"
    # what makes a name of `.NAME.DIGEST.part` a way upwards
    (inner / ".a.").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    victim = tmp_path / "other" / ".part"
    victim.write_text("mine")
    liar = Liar(lambda argv: ("", f"\n{json.dumps(told)}\n"))
    with pytest.raises(SshRefused, match="what came back"):
        fetch_file(liar, "/there/a", inner / "a", pause=lambda _: None)  # type: ignore[arg-type]
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    "answer", [{}, {"files": [1]}, {"files": {"model/a": "x"}}, {"files": {"model/\ud800": 1}}]
)
def test_a_listing_that_is_none_is_refused(answer: Any, tmp_path: Path) -> None:
    remote = remote_that_says(lambda argv: (json.dumps(answer), ""))
    with pytest.raises(ClusterLMError):
        fetch(remote, "r", "/runs/r", MODEL, tmp_path / "o", tell=lambda line: None)


def test_a_manifest_that_is_none_harms_no_fetch(tmp_path: Path) -> None:
    text = '{"files": [1]}'
    told = {"size": len(text), "mode": 0o600, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def says(argv: Sequence[str]) -> tuple[str, str]:
        if "listing" in argv:
            return json.dumps({"files": {f"checkpoints/checkpoint-5/{MANIFEST}": len(text)}}), ""
        return ("", f"\n{json.dumps(told)}\n") if "tell" in argv else (text, "\n{}\n")

    with pytest.raises(ClusterLMError, match=MANIFEST):
        fetch(
            remote_that_says(says), "r", "/r", checkpoint(5), tmp_path / "o", tell=lambda line: None
        )


@pytest.mark.parametrize("answer", ["{}", '{"missing": 5, "free_bytes": "x"}', "[" * 100_000])
def test_an_answer_of_another_shape_is_no_answer(answer: str) -> None:
    with pytest.raises(SshRefused, match="no answer"):
        missing(remote_that_says(lambda argv: (answer, "")), {EMPTY: 0})


@pytest.mark.parametrize("python", ["{x", "5", "{}", '{"executable": 5}'])
def test_a_look_that_says_something_else_is_told(python: str) -> None:
    liar = Liar(lambda argv: (f"home /h\nfolder /f\npython {python}\n", ""))
    with pytest.raises(ClusterLMError, match="what came back"):
        boot._probe(liar, "there", profile_of())  # type: ignore[arg-type]
    with pytest.raises(ClusterLMError, match="what came back"):
        boot._probe(Liar(lambda argv: ("", "")), "there", profile_of())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": "x", "step": "many", "job_ids": 5, "nodes": "n", "updated_s_ago": "z"},
        {"eta_s": float("inf"), "updated_s_ago": float("inf"), "step": float("inf")},
        {"eta_s": 1e300, "loss": float("nan"), "tokens_per_s": [1], "mfu": {"a": 1}},
        {"run": {"a": 1}, "phase": ["x"], "evidence": {"a": 1}, "cause": [], "state": {}},
        {"evidence": "\ud800", "attempt": True, "total_steps": 10**30},
    ],
)
def test_no_status_of_one_cluster_hides_those_of_others(fields: Any) -> None:
    status = RunStatus.from_json({"run": "r", "state": "TRAINING", **fields})
    assert "TRAINING" in plain_table([status])[1] or fields.get("state") == {}
    assert json.dumps(status.to_json())


@pytest.mark.parametrize("line", ['{"lines": 5}', '{"place": 5}', '{"place": {"files": 5}}', "[1]"])
def test_news_that_are_none_count_for_nothing(line: str) -> None:
    said: list[str] = []
    text = f'{line}\n{{"lines": ["a\\ud800", null, "b"]}}\n{{"end": "over"}}\n'
    remote = remote_that_says(lambda argv: (text, ""))
    assert follow_elsewhere(remote, "r", [], 5, say=said.append, tell=said.append) == 0
    assert said == ["a?", "b", "over"]


def test_an_answer_to_a_submit_may_hold_anything() -> None:
    value = {"job_ids": [1], "fingerprint": 5, "cache_hit": True, "run_dir": ["\x1b]0;x\x07"]}
    assert job_ids_of(value) == {}
    assert job_ids_of({"job_ids": {"train": 7}}) == {"train": "7"}
    lines = _lines("there", "r", value)
    assert all(line.isprintable() for line in lines)


class Flood:
    """A session that prints for ever."""

    def __init__(self, begin: bytes) -> None:
        self._first = iter([begin])
        self._errors = iter([begin])

    def read_out(self) -> bytes:
        return next(self._first, b"x" * 4096)

    def read_err(self) -> bytes:
        piece = next(self._errors, None)
        return piece if piece is not None else time.sleep(0.2) or b"y"

    def write(self, data: bytes) -> None: ...
    def close_input(self) -> None: ...
    def close(self) -> None: ...
    def release(self) -> None: ...

    def exit_code(self) -> int | None:
        return None


class Flooded(talk.SshTransport):
    def __init__(self, begins: bool) -> None:
        super().__init__("there")
        self._begins = begins

    def close(self) -> None: ...

    def _command(self, argv: Sequence[str], **options: object) -> str:
        return str(options["mark"])

    def _open(self, command: str) -> Any:
        return Flood(f"{command}:begin\n".encode() if self._begins else b"MOTD")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk, "LOGIN_S", 0.5)
    monkeypatch.setattr(talk, "ANSWER_S", 0.2)
    monkeypatch.setattr(talk, "JOIN_S", 0.5)


@pytest.mark.parametrize("begins", [False, True])
def test_an_output_without_end_does_not_outlast_the_time(quick: None, begins: bool) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="in [01] s"):
        Flooded(begins).run(["true"], timeout_s=0.3)
    assert time.monotonic() - began < 60


def test_an_output_without_end_does_not_fill_the_memory(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "LONGEST_ANSWER", 10_000)
    with pytest.raises(SshRefused, match="more than"):
        Flooded(True).run(["true"], timeout_s=60)


def test_whatever_a_library_raises_at_a_broken_line_is_its_end() -> None:
    class Broken(Flooded):
        def _open(self, command: str) -> Any:
            def broken() -> bytes:
                raise RuntimeError("Key-exchange timed out")

            session = Flood(b"")
            session.read_out = session.read_err = broken  # type: ignore[method-assign]
            return session

    with pytest.raises(ConnectionLost, match="broke during"):
        # no time limit: it would be waited for without end
        Broken(True).pipe(["true"])


def test_a_mark_without_end_is_not_waited_for() -> None:
    frame = Frame("mark" * 8)
    for piece in itertools.repeat(b"mark" * 8 + b"x" * 1000, 50):
        frame.feed(piece)
    assert len(frame._held) < 2000


@pytest.mark.parametrize("key", ["foo", "run", "evidence", "job_ids"])
@pytest.mark.parametrize("depth", [100, 800])
def test_an_answer_of_a_thousand_levels_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, depth: int
) -> None:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path))
    rows = f'[{{"run": "a", "{key}": {"[" * depth}{"]" * depth}}}]'
    with pytest.raises(SshError):
        look_over("there", lambda name: remote_that_says(lambda argv: (rows, "")))
    assert not list(tmp_path.rglob("*.json"))


def test_no_cluster_takes_over_a_run_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLUSTERLM_RUNS_DIR", raising=False)
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(tmp_path / "clusters.yaml"))
    # one whose cluster is this machine's own, and has a folder of its own
    (tmp_path / "clusters.yaml").write_text(f"clusters: {{here: {{folder: {tmp_path}/here}}}}\n")
    (tmp_path / "clusters.yaml").chmod(0o600)
    (tmp_path / "here" / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "runs" / "mine" / "events.jsonl").touch()
    assert "a run of its own" in runs_elsewhere.adopt("mine", "big", {})
    # nor is it hidden by what an older clusterlm has believed
    runs_elsewhere.remember(runs_elsewhere.Elsewhere("mine", "big", "k", 0.0))
    assert runs_elsewhere.find_elsewhere("mine") is None
    with pytest.raises(RunError, match="on this machine"):
        runs_elsewhere.refuse_taken("mine", "big", "")
