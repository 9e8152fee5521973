from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from clusterlm.cli import doctor
from clusterlm.cluster.remote import bootstrap as boot
from clusterlm.cluster.remote import install_there
from clusterlm.cluster.remote.bootstrap import bootstrap
from clusterlm.cluster.remote.forward import Remote
from clusterlm.cluster.remote.wheelhouse import TargetPython
from clusterlm.errors import ClusterLMError
from tests.bed.wheels import closure, repack
from tests.cluster.remote.conftest import BASE_PYTHON, Clusterlm, profile_of, seed_packages
from tests.cluster.remote.local_transport import LocalTransport


@pytest.fixture
def bare(tmp_path: Path) -> LocalTransport:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".bash_profile").write_text('echo "Welcome!"\necho "quota: 3%" >&2\n')
    return LocalTransport(home)


def wheels_of_this_environment(folder: Path) -> Path:
    folder.mkdir()
    for name in closure("clusterlm"):
        if name != "clusterlm":
            repack(name, folder)
    return folder


def test_from_a_wheelhouse_without_any_index(bare: LocalTransport, tmp_path: Path) -> None:
    # pip would ask nobody: this address refuses
    bare.environ["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    bare.environ["PIP_CONFIG_FILE"] = "/dev/null"
    house = wheels_of_this_environment(tmp_path / "wheels")
    told: list[str] = []
    done = bootstrap(bare, "there", profile_of(), wheelhouse=house, tell=told.append)
    assert done.home == str(bare.home)
    assert done.folder == str(bare.home / "shared")
    version = bare.run([done.python, "-I", "-m", "clusterlm", "--version"])
    assert version.out.strip().splitlines()[-1].startswith("clusterlm ")
    assert any("wheels" in line for line in told)
    # nobody looks at a screen: the steps, and no more
    steps = [line.removeprefix("there: ").split(":")[0] for line in told]
    assert steps[-3:-1] == ["step 1 of 2", "step 2 of 2"]
    assert steps[-1].startswith("installed in ")
    assert not [line for line in told if "  ..." in line]
    told.clear()
    bootstrap(bare, "there", profile_of(), tell=told.append)
    assert told == []
    # private, all of it
    assert (bare.home / "shared" / "software").stat().st_mode & 0o077 == 0


def test_pip_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install_there, "EVERY_S", 0.2)
    text = (
        "import sys, time\n"
        "print('Collecting a>=1'); print('Collecting b'); time.sleep(0.6)\n"
        "print('Installing collected packages: a, b'); time.sleep(0.6)\n"
        "sys.stdout.write('ERROR: no end of line')\n"
        "sys.exit(1)"
    )
    code, lines = install_there._watched([BASE_PYTHON, "-c", text])
    assert (code, lines[-1]) == (1, "ERROR: no end of line")
    said = capsys.readouterr().out
    assert "  ... fetching b (package 2), " in said
    assert "  ... installing 2 packages, " in said


def test_own_packages_come_before_those_of_the_profiles_python(
    bare: LocalTransport, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    subprocess.run([BASE_PYTHON, "-m", "venv", "--without-pip", str(site)], check=True)
    packages = next((site / "lib").glob("python*")) / "site-packages"
    (packages / "clusterlm").mkdir()
    (packages / "clusterlm" / "__init__.py").write_text("raise RuntimeError('the old one')\n")
    (packages / "only_there.py").write_text("X = 1\n")
    profile = profile_of(python=str(site / "bin" / "python"))
    seed_packages(bare, profile)
    done = bootstrap(bare, "there", profile, tell=lambda line: None)
    ran = bare.run([done.python, "-I", "-c", "import clusterlm.cli, only_there; print('fine')"])
    assert "fine" in ran.out, ran.err
    # nothing of the login shell comes before it either
    bare.environ["PYTHONPATH"] = str(packages)
    answer = Remote("there", profile, bare, lambda line: None).ask(["--version"])
    assert (answer.code, answer.out.splitlines()[-1].split()[0]) == (0, "clusterlm")


def test_an_install_that_was_cut_off_leaves_nothing_that_is_used(
    bare: LocalTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_packages(bare, profile_of())
    software = bare.home / "shared" / "software"
    # killed before READY
    half = software / ".made" / "x.1234"
    half.mkdir(parents=True)
    os.utime(half, (1, 1))
    bootstrap(bare, "there", profile_of(), tell=lambda line: None)
    assert not half.exists()
    link = software / boot.software_name(profile_of())
    assert (link / "READY").read_text().strip() == boot.ready_text(profile_of())


def test_no_python_is_told_in_words(bare: LocalTransport) -> None:
    with pytest.raises(ClusterLMError, match=r"no Python 3\.10 or newer .*/opt/none/python"):
        bootstrap(bare, "there", profile_of(python="/opt/none/python"), tell=print)


def test_a_folder_that_cannot_be_made_is_told_once(bare: LocalTransport) -> None:
    with pytest.raises(ClusterLMError) as caught:
        bootstrap(bare, "there", profile_of(folder="/proc/none/folder"), tell=print)
    assert str(caught.value).count("/proc/none/folder") <= 2
    assert str(caught.value).count("cannot create") == 1


def test_a_python_that_says_something_first_is_understood(bare: LocalTransport) -> None:
    script = bare.home / "python"
    script.write_text(f'#!/bin/sh\necho "Loading python/3.11"\nexec {BASE_PYTHON} "$@"\n')
    script.chmod(0o755)
    found = boot._probe(bare, "there", profile_of(python="~/python"))
    assert found.python is not None
    assert Path(found.python["executable"]).name.startswith("python")


def test_the_profile_there_is_of_the_machine_itself_and_absolute(bare: LocalTransport) -> None:
    profile = profile_of(
        runs_dir="~/my-runs", setup=["module load slurm"], resources={"partition": "gpu"}
    )
    seed_packages(bare, profile)
    remote = Remote("there", profile, bare, lambda line: None)
    done = remote.ask(["clusters", "show", "there", "--json"])
    assert done.code == 0, done.err
    assert str(bare.home / "my-runs") in done.out
    assert "login.example" not in done.out
    # a profile that was changed here is another one there, at the next call
    other = profile_of(resources={"partition": "cpu"})
    done = Remote("there", other, bare, lambda line: None).ask(["clusters", "show", "there"])
    assert "cpu" in done.out


def test_wheels_are_asked_for_the_other_machine() -> None:
    target = TargetPython.of(
        {"version": "3.11", "platform": "linux-x86_64", "libc": ["glibc", "2.28"]}
    )
    assert target.tags[0] == "manylinux_2_28_x86_64"
    assert target.tags[-3:] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "linux_x86_64"]


def test_add_ends_with_what_to_do_next(
    laptop: Path, clusterlm: Clusterlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what was written by hand on one line is not added to
    Path(os.environ["CLUSTERLM_CONFIG"]).unlink()
    words = ("clusters", "add", "two", "--host", "login.example", "--folder", "~/shared")
    words += ("--python", BASE_PYTHON)
    code, out, err = clusterlm(*words)
    assert code == 0, out + err
    assert [line.partition("   ")[0] for line in out.splitlines()[-2:]] == [
        "next: clusterlm doctor --cluster two",
        "then: clusterlm submit job.yaml --cluster two",
    ]
    looked: list[str] = []
    monkeypatch.setattr(doctor, "doctor", looked.append)
    clusterlm("clusters", "rm", "two")
    code, out, _ = clusterlm(*words, "--doctor")
    assert (code, looked) == (0, ["two"])
    assert "next: clusterlm doctor" not in out
