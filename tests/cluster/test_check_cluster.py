"""A cluster is tried out step by step; each verdict says what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterlm.cluster.check_cluster import Verdict, check_cluster
from clusterlm.cluster.host import Completed
from clusterlm.cluster.remote import bootstrap as real
from clusterlm.cluster.remote.bootstrap import Installed
from clusterlm.errors import ClusterLMError, SshError
from clusterlm.spec.profile import Profile

FAR = Profile.model_validate({"host": "login", "folder": "~/x", "user": "anna", "port": 2222})
PROGRAMS = {"sbatch", "squeue", "scancel", "scontrol", "srun", "sinfo"}


class FakeTransport:
    """A login node that answers as it is told; an exception as an answer is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {
            "uname": (0, "login1\n", ""),
            "squeue": (0, "slurm 22.05.8\n", ""),
            "programs": PROGRAMS,
            **answers,
        }
        self.name, self.is_closed = "anna@login", False

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 30.0,
        stdin: bytes | None = None,
        doing: str = "",
    ) -> Completed:
        answer = self.answers[argv[0]]
        if isinstance(answer, Exception):
            raise answer
        return Completed(tuple(argv), *answer)

    def has(self, program: str) -> bool:
        return program in self.answers["programs"]

    def close(self) -> None:
        self.is_closed = True


told: list[str] = []
Try = Callable[..., "tuple[bool, list[str], FakeTransport]"]


@pytest.fixture
def try_out(monkeypatch: pytest.MonkeyPatch) -> Try:
    def try_out(installs: Any = None, **answers: Any) -> tuple[bool, list[str], FakeTransport]:
        transport = FakeTransport(**answers)

        def bootstrap(*args: Any, **named: Any) -> Any:
            if isinstance(installs, Exception):
                raise installs
            assert args == (transport, "far", FAR)
            assert (named["wheelhouse"], named["extras"]) == (Path("/w"), ["train"])
            return Installed("/x/bin/python", "/x", "/h", is_new=installs == "anew")

        for name, members in {
            "ssh.connect": SimpleNamespace(connect=lambda name, profile: transport),
            "remote.bootstrap": SimpleNamespace(**{**vars(real), "bootstrap": bootstrap}),
        }.items():
            monkeypatch.setitem(sys.modules, f"clusterlm.cluster.{name}", members)
        said: list[Verdict] = []
        told.clear()
        fine = check_cluster("far", FAR, Path("/w"), ["train"], say=said.append, tell=told.append)
        return fine, [line for verdict in said for line in verdict.lines()], transport

    return try_out


def test_three_steps_make_a_cluster_that_can_be_used(try_out: Try) -> None:
    fine, lines, transport = try_out()
    assert fine
    assert [line.split()[:2] for line in lines] == [
        ["ok", "connect"],
        ["ok", "clusterlm"],
        ["ok", "slurm"],
    ]
    assert "node login1" in lines[0]
    assert "slurm 22.05.8" in lines[2]
    assert transport.is_closed


@pytest.mark.parametrize(
    ("installs", "answers", "words"),
    [
        (None, {"uname": SshError("login: no route to host")}, "ssh -p 2222 anna@login true"),
        (None, {"uname": SshError("key changed\n  look at it")}, "look at it"),
        (None, {"uname": (None, "", "no answer in 60 s")}, "~/.bashrc"),
        (ClusterLMError("no Python there\n  name one"), {}, "name one"),
        (SshError("it broke"), {}, "it broke"),
        (None, {"squeue": (127, "", "squeue: not found")}, "setup: [module load slurm]"),
        (None, {"squeue": (1, "", "squeue: fatal: no config")}, "squeue fails on anna@login"),
        (None, {"programs": PROGRAMS - {"srun", "sinfo"}}, "no srun, sinfo"),
    ],
)
def test_the_first_step_that_fails_ends_it_with_what_to_do(
    try_out: Try, installs: Any, answers: dict[str, Any], words: str
) -> None:
    fine, lines, transport = try_out(installs, **answers)
    assert not fine
    assert sum(line.startswith("FAILED") for line in lines) == 1
    assert words in "\n".join(lines)
    assert transport.is_closed


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            '{"groups": [{"kind": "software", "bytes": 64e7}, {"kind": "objects", "bytes": 9}]}',
            "older software there takes 640 MB; take it away: clusterlm clusters clean far",
        ),
        ('{"groups": []}', ""),
        ('{"groups": [{"kind": "software", "bytes": "many"}]}', ""),
        ("nonsense", ""),
    ],
)
def test_a_newer_clusterlm_says_what_the_older_ones_take(
    try_out: Try, said: str, words: str
) -> None:
    fine, _, _ = try_out("anew", sh=(0, said, ""))
    assert fine
    assert "\n".join(told) == (f"far: {words}" if words else "")
    # in doubt it is left out
    assert try_out("anew", sh=SshError("it broke"))[0]
    assert not told


def test_what_comes_from_there_is_no_command_for_the_terminal(try_out: Try) -> None:
    _, lines, _ = try_out(uname=(0, "\x1b]0;owned\x07login\n", ""), squeue=(1, "", "\x1b[2Jno"))
    assert "\x1b" not in "".join(lines)


def test_this_machine_is_tried_out_without_a_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fakes = tmp_path / "bin"
    fakes.mkdir()
    for program in PROGRAMS:
        (fakes / program).write_text("#!/bin/sh\necho slurm 24.11.5\n")
        (fakes / program).chmod(0o700)
    monkeypatch.setenv("PATH", f"{fakes}:/usr/bin:/bin")
    said: list[Verdict] = []
    here = Profile.model_validate({"folder": str(tmp_path / "shared")})
    assert check_cluster("here", here, None, None, say=said.append, tell=print)
    assert [verdict.step for verdict in said] == ["slurm", "folders"]
    assert (tmp_path / "shared" / "runs").is_dir()
    (tmp_path / "file").write_text("")
    wrong = Profile.model_validate({"folder": str(tmp_path / "file")})
    assert not check_cluster("here", wrong, None, None, say=said.append, tell=print)
    assert "every node sees" in said[-1].advice
