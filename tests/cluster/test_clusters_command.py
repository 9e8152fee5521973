"""clusters add|ls|show|test|rm|edit as they are typed, and --cluster on the commands of a job."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from clusterlm.cli import main
from clusterlm.cluster.preflight import refuse_impossible
from clusterlm.errors import SlurmError
from clusterlm.node.files import write_json
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe
from tests.cluster.fake_host import FakeHost
from tests.cluster.run_folders import RunFolder

Command = Callable[..., "Done"]
JOB = """\
name: tiny
resources: {gpus_per_node: 2}
train: {command: [train.py]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config" / "clusters.yaml"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@dataclass
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


@pytest.fixture
def clusterlm(config: Path, home: Path) -> Command:
    env = {key: value for key, value in os.environ.items() if not key.startswith("CLUSTERLM_")}
    env |= {"CLUSTERLM_CONFIG": str(config), "HOME": str(home)}

    def run(*args: str, code: int = 0, typed: str = "", **further: str) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            # a command may change its environment; the next one is another process
            patch.setattr(os, "environ", {**env, **further})
            patch.setattr(sys, "argv", ["clusterlm", *args])
            for name, stream in {"stdin": io.StringIO(typed), "stdout": out, "stderr": err}.items():
                patch.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == code, out.getvalue() + err.getvalue()
        return Done(out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def job(tmp_path: Path) -> str:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "job.yaml").write_text(JOB)
    return str(tmp_path / "job.yaml")


def test_a_cluster_is_added_listed_shown_and_taken_out(clusterlm: Command, config: Path) -> None:
    words = clusterlm("clusters", "ls").stdout
    assert "clusters add NAME --host" in words
    added = clusterlm(
        *("clusters", "add", "mine", "--host", "anna@login.example.org", "--port", "2222"),
        *("--partition", "gpu", "--account", "team", "--setup", "module load slurm"),
        *("--fabric", "ethernet", "--set", "resources.mem=64G", "--set", "env.NUM=0755"),
        "--no-connect",
    )
    assert "clusterlm clusters test mine" in added.stdout
    assert yaml.safe_load(config.read_text())["clusters"]["mine"] == {
        "host": "login.example.org",
        "user": "anna",
        "port": 2222,
        "folder": "~/clusterlm",
        "setup": ["module load slurm"],
        "resources": {"partition": "gpu", "account": "team", "mem": "64G"},
        "fabric": "ethernet",
        "env": {"NUM": "0755"},
    }
    assert config.stat().st_mode & 0o777 == 0o600
    clusterlm("clusters", "add", "here", "--folder", "/shared/here", "--no-connect")
    rows = clusterlm("clusters", "ls").stdout.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [
        ["mine", "anna@login.example.org"],
        ["here", "this"],
    ]
    shown = clusterlm("clusters", "show", "mine").stdout
    assert "from profile mine: partition gpu, account team, mem 65536M" in shown
    assert "NCCL_IB_DISABLE=1" in shown
    assert "doctor --cluster mine" in shown
    fields = json.loads(clusterlm("clusters", "ls", "--json").stdout)
    assert [one["name"] for one in fields] == ["mine", "here"]
    assert fields[0]["profile"]["resources"]["mem"] == "65536M"
    assert fields[0]["probe"] is None
    clusterlm("clusters", "rm", "mine")
    assert list(yaml.safe_load(config.read_text())["clusters"]) == ["here"]


def test_what_doctor_found_is_shown_and_forgotten_with_the_cluster(
    clusterlm: Command, config: Path
) -> None:
    clusterlm("clusters", "add", "mine", "--no-connect")
    probe = Probe(
        time=1.0,
        slurm_version="22.05.8",
        pyxis=False,
        enroot="3.4.1",
        gpu_requests_accepted=("gpus-per-node",),
        partitions=({"name": "gpu", "is_default": True}, {"name": "cpu"}),  # type: ignore[arg-type]
    )
    file = config.parent / "probes" / "mine.json"
    file.parent.mkdir()
    file.write_text(probe.model_dump_json())
    shown = clusterlm("clusters", "show", "mine").stdout
    assert "from doctor on mine: gpu_request gpus-per-node" in shown
    assert "partitions gpu*, cpu" in shown
    assert "22.05.8" in clusterlm("clusters", "ls").stdout
    assert json.loads(clusterlm("clusters", "show", "mine", "--json").stdout)["probe"]["enroot"]
    clusterlm("clusters", "rm", "mine")
    assert not file.exists()


def test_what_cannot_be_a_cluster_is_refused_and_nothing_is_written(
    clusterlm: Command, config: Path
) -> None:
    done = clusterlm(
        *("clusters", "add", "bad", "--host=-oProxyCommand=x", "--runtime", "podman"),
        *("--set", "colour=red", "--no-connect"),
        code=2,
    )
    assert "clusters add bad: 3 problems" in done.stderr
    assert "line" not in done.stderr
    for name in ("local", "a b", "../x"):
        clusterlm("clusters", "add", name, "--no-connect", code=2)
    assert not config.exists()
    clusterlm("clusters", "add", "a", "--no-connect")
    before = config.read_text()
    assert "already" in clusterlm("clusters", "add", "a", "--no-connect", code=2).stderr
    assert "did you mean" in clusterlm("clusters", "show", "aa", code=2).stderr
    assert config.read_text() == before


def test_a_tilde_that_the_shell_here_wrote_out_is_that_of_the_cluster(
    clusterlm: Command, config: Path, home: Path
) -> None:
    add = ("clusters", "add", "a", "--host", "h", "--no-connect", "--folder", f"{home}/work/x")
    assert "taken as ~/work/x there" in clusterlm(*add).stderr
    assert "folder: ~/work/x" in config.read_text()


def test_a_cluster_with_runs_is_not_taken_out_without_a_word(
    clusterlm: Command, config: Path, home: Path
) -> None:
    clusterlm("clusters", "add", "far", "--host", "h", "--no-connect")
    elsewhere = home / ".local/share/clusterlm/runs/.elsewhere"
    elsewhere.mkdir(parents=True)
    write_json(elsewhere / "my-run.json", {"cluster": "far"})
    write_json(elsewhere / "other.json", {"cluster": "another"})
    done = clusterlm("clusters", "rm", "far", code=2)
    assert "1 of your runs lie on far: my-run" in done.stderr
    assert (
        "its folder stays there: h:~/clusterlm"
        in clusterlm("clusters", "rm", "far", "--force").stdout
    )


def test_an_edit_counts_only_when_it_is_right(
    clusterlm: Command, config: Path, tmp_path: Path
) -> None:
    clusterlm("clusters", "add", "a", "--no-connect")
    before = config.read_text()
    editor = tmp_path / "my editor"

    def edit_with(line: str) -> str:
        editor.write_text(f"#!/bin/sh\n{line}\n")
        editor.chmod(0o700)
        return f"'{editor}'"

    wrong = edit_with("echo '  b: {colour: red}' >> \"$1\"")
    done = clusterlm("clusters", "edit", code=2, typed="n\n", EDITOR=wrong)
    assert "clusters.b.colour" in done.stderr
    assert config.read_text() == before
    # the wrong text comes again, to be mended
    twice = edit_with(
        'if grep -q colour "$1"; then sed -i s/colour.*/}/ "$1";'
        " else echo '  b: {colour: red}' >> \"$1\"; fi"
    )
    clusterlm("clusters", "edit", typed="y\n", EDITOR=twice)
    assert config.read_text() == f"{before}  b: {{}}\n"
    assert "nothing changed" in clusterlm("clusters", "edit", EDITOR="true").stdout
    assert "exit 1" in clusterlm("clusters", "edit", code=2, EDITOR="false").stderr
    assert "set EDITOR" in clusterlm("clusters", "edit", code=2, EDITOR="/no/editor").stderr


def test_a_job_is_rendered_for_the_cluster_that_is_named(
    clusterlm: Command, config: Path, job: str, tmp_path: Path
) -> None:
    clusterlm(
        *("clusters", "add", "mine", "--partition", "gpu", "--folder", str(tmp_path / "shared")),
        *("--set", "resources.gpu_request=gpus-per-node", "--fabric", "efa", "--no-connect"),
    )
    out = str(tmp_path / "out")
    done = clusterlm("render", job, "--cluster", "mine", "-o", out)
    assert "note: from profile mine: partition gpu, gpu_request gpus-per-node\n" in done.stderr
    sbatch = (tmp_path / "out" / "train.sbatch").read_text()
    assert "#SBATCH --gpus-per-node=2\n" in sbatch
    assert "#SBATCH --partition=gpu\n" in sbatch
    assert str(tmp_path / "shared" / "runs" / "tiny") in sbatch
    assert "export FI_PROVIDER=efa" in (tmp_path / "out" / "torchrun.sh").read_text()
    # what the environment says wins
    clusterlm("render", job, "--cluster", "mine", "-o", out, CLUSTERLM_RUNS_DIR="/mine")
    assert "/mine/tiny" in (tmp_path / "out" / "train.sbatch").read_text()
    for command in ("check", "submit", "render", "plan", "dry-run", "scaling"):
        further = ("-o", out) if command == "render" else ()
        done = clusterlm(command, job, "--cluster", "mien", *further, code=2)
        assert "--set cluster" in done.stderr
        assert "did you mean `mine`" in done.stderr


def test_runs_in_the_folder_of_a_cluster_are_found_again(
    clusterlm: Command, tmp_path: Path, home: Path
) -> None:
    shared = tmp_path / "shared"
    clusterlm("clusters", "add", "mine", "--folder", str(shared), "--no-connect")
    RunFolder(shared / "runs", "there", cluster="mine").event(
        "ended", state="DONE", cause="COMPLETED", evidence=""
    )
    RunFolder(home / ".local/share/clusterlm/runs", "usual").event(
        "ended", state="DONE", cause="COMPLETED", evidence=""
    )
    rows = json.loads(clusterlm("status", "--json").stdout)
    assert {row["run"]: row["cluster"] for row in rows} == {"there": "mine", "usual": "slurm"}
    assert json.loads(clusterlm("status", "there", "--json").stdout)[0]["run"] == "there"
    clusterlm("why", "there")
    clusterlm("logs", "there")
    missing = clusterlm("why", "thare", code=2).stderr
    assert "did you mean `there`" in missing
    assert str(shared / "runs") in missing


def test_a_cluster_behind_ssh_is_never_taken_for_this_machine(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.parent.mkdir()
    config.write_text("clusters: {far: {host: h, folder: /f}}\n")
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(config))
    job = Job.model_validate({"name": "x", "cluster": "far", "train": {"command": ["run"]}})
    host = FakeHost(sbatch=(0, "", ""))
    with pytest.raises(SlurmError, match="reached over SSH"):
        refuse_impossible(job, host)
    assert host.calls == []
