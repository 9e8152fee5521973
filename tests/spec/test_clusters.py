"""clusters.yaml: strict, every mistake at once with its line; its text changed without a loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.errors import ClusterLMError, SpecError
from clusterlm.spec.clusters import (
    advice,
    clusters_file,
    find_profile,
    folders_of,
    name_problem,
    parse_clusters,
    read_clusters,
)
from clusterlm.spec.clusters_text import with_entry, without_entry, write_clusters
from clusterlm.spec.fabrics import FABRICS
from clusterlm.spec.local_folders import folders_beside, local_runs_dirs
from clusterlm.spec.probe import Probe, forget_probe, probe_file, read_probe, write_probe
from clusterlm.spec.profile import Fabric, Profile

Write = Callable[[str], Path]

COMMENTED = """\
# mine
clusters:
    first:   # the old one
        host: a.example.org
        folder: "~/c l"  # not right
"""
TWO = """\
# mine
clusters:
    first:   # the old one
        host: a.example.org
        folder: ~/clusterlm   # shared
        # resources: {partition: old}

    # of the other group
    second:
        setup:
        - module load slurm
        - |-
            export A=1
# the end
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write the clusters.yaml of this test."""
    path = tmp_path / "config" / "clusters.yaml"
    path.parent.mkdir()
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(path))

    def write(text: str) -> Path:
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


def refusal_of(text: str) -> dict[str, tuple[str, int | None]]:
    with pytest.raises(SpecError) as caught:
        parse_clusters(text, "clusters.yaml")
    return {p.where: (p.message, p.line) for p in caught.value.problems}


def test_the_file_is_where_it_is_named_else_in_the_config_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLUSTERLM_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert clusters_file() == tmp_path / "clusterlm" / "clusters.yaml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert clusters_file() == tmp_path / "me" / ".config" / "clusterlm" / "clusters.yaml"
    monkeypatch.setenv("CLUSTERLM_CONFIG", "~/x.yaml")
    assert clusters_file() == tmp_path / "me" / "x.yaml"


@pytest.mark.parametrize("text", ["", "# nothing\n", "clusters:\n", "clusters: {}\n"])
def test_a_file_without_clusters_holds_none(write: Write, text: str) -> None:
    assert read_clusters() == {}
    write(text)
    assert read_clusters() == {}


def test_every_mistake_is_told_at_once_with_its_line() -> None:
    found = refusal_of(
        "clusters:\n"
        "  a: {host: x.y}\n"
        "  slurm: {}\n"
        "  b c: 3\n"
        "  d:\n"
        "    hots: x\n"
        "    env: {NCCL_IB_DISABLE: 0, HF_TOKEN: abc, RANK: 1}\n"
        '    resources: {partition: "a b", mem: 3}\n'
        "    fabric: ib\n"
        "    folder: foo\n"
        "  e:\n"
        "    user: me\n"
        "    runtime: docker\n"
        "    mounts: [/a/../b]\n"
        "    resources: {extra: [--array=2, --comment=x]}\n"
        "    runs_dir: /a/../b\n"
        "    folder: ~/größe\n"
        "clutsers: {}\n"
    )
    lines = {where: line for where, (_, line) in found.items()}
    assert lines == {
        "clusters.a.folder": 2,
        "clusters.slurm": 3,
        "clusters.b c": 4,
        "clusters.d.hots": 6,
        "clusters.d.env.HF_TOKEN": 7,
        "clusters.d.env.RANK": 7,
        "clusters.d.resources.partition": 8,
        "clusters.d.resources.mem": 8,
        "clusters.d.fabric": 9,
        "clusters.d.folder": 10,
        "clusters.e.user": 12,
        "clusters.e.runtime": 13,
        "clusters.e.mounts[0]": 14,
        "clusters.e.resources.extra[0]": 15,
        "clusters.e.runs_dir": 16,
        "clusters.e.folder": 17,
        "clutsers": 18,
    }
    assert "did you mean `host`" in found["clusters.d.hots"][0]
    assert "secrets: [HF_TOKEN]" in found["clusters.d.env.HF_TOKEN"][0]


def test_a_key_of_resources_in_the_wrong_place_is_told_where_it_belongs() -> None:
    found = refusal_of("clusters:\n  a:\n    partition: gpu\n")
    assert "belongs under `resources`" in found["clusters.a.partition"][0]


def test_values_of_env_are_text_as_typed() -> None:
    found = parse_clusters("clusters: {a: {env: {A: 0755, B: no, C: 1.10, D: 12:30}}}", "x")
    assert found["a"].env == {"A": "0755", "B": "no", "C": "1.10", "D": "12:30"}


def test_a_value_of_env_is_never_shown() -> None:
    found = refusal_of('clusters:\n  a: {env: {A: "se\\tcret"}}\n')
    assert "cret" not in str(found)


@pytest.mark.parametrize("name", ["local", "slurm", "", "-x", "a b", "a/b", "..", "x" * 65, "a\n"])
def test_a_name_that_cannot_be_a_file_or_an_argument_is_refused(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("name", ["a", "My-cluster.2_b", "7"])
def test_other_names_are_taken(name: str) -> None:
    assert name_problem(name) is None


def test_a_file_that_others_may_write_is_refused_with_the_way_out(write: Write) -> None:
    path = write("clusters: {a: {}}\n")
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        with pytest.raises(ClusterLMError, match="chmod go-w"):
            read_clusters()
        assert local_runs_dirs() == []
    path.chmod(0o644)
    assert list(read_clusters()) == ["a"]


def test_an_unknown_name_is_answered_by_a_near_one_or_by_all(write: Write) -> None:
    write("clusters: {bigcluster: {}}\n")
    assert find_profile("bigcluster") == Profile()
    with pytest.raises(ClusterLMError, match=r"did you mean `bigcluster`"):
        find_profile("bigclustre")
    assert "local, slurm, bigcluster" in advice("zzz")
    assert "clusters add" in advice("zzz")


def test_folders_are_those_of_this_machine_alone(write: Write, tmp_path: Path) -> None:
    here = Profile.model_validate({"folder": "/f", "cache_dir": "~/c"})
    assert folders_of(here) == {
        "CLUSTERLM_RUNS_DIR": "/f/runs",
        "CLUSTERLM_CACHE_DIR": str(Path.home() / "c"),
        "CLUSTERLM_IMAGES_DIR": "/f/images",
    }
    assert folders_of(Profile.model_validate({"host": "h", "folder": "/f"})) == {}
    assert folders_of(Profile()) == {}


def test_runs_of_this_machines_clusters_are_found(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLUSTERLM_RUNS_DIR", raising=False)
    # a mistake elsewhere in the file keeps nobody from looking at runs
    write(
        "clusters: {a: {folder: /f}, b: {host: h, folder: /g}, c: {runs_dir: /r, colour: red},"
        " d: {folder: /f}, e: 3, f: {folder: [1]}}\n"
    )
    assert local_runs_dirs() == [Path("/f/runs"), Path("/r")]
    assert folders_beside(Path("/f/runs"))["CLUSTERLM_CACHE_DIR"] == "/f/cache"
    assert folders_beside(Path("/r")) == {}
    assert folders_beside(Path("/elsewhere")) == {}
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", "/mine")
    assert local_runs_dirs() == []
    monkeypatch.delenv("CLUSTERLM_RUNS_DIR")
    write("clusters: [\n")
    assert local_runs_dirs() == []


def test_a_probe_comes_back_as_it_was_kept(write: Write) -> None:
    write("")
    assert read_probe("a") is None
    probe = Probe.model_validate(
        {"slurm_version": "22.05.8", "partitions": [{"name": "p", "is_default": True}]}
    )
    path = write_probe("a", probe)
    assert path == probe_file("a")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_probe("a") == probe
    assert probe.partition(None) == probe.partition("p") != None  # noqa: E711
    assert probe.partition("q") is None
    # of a newer clusterlm, and a damaged one
    path.write_text('{"slurm_version": "26.05", "news": [1]}')
    assert read_probe("a") == Probe(slurm_version="26.05")
    path.write_text('{"partitions": 3}')
    assert read_probe("a") is None
    forget_probe("a")
    forget_probe("a")
    assert not path.exists()


def test_an_entry_is_added_and_no_other_character_changes() -> None:
    text = with_entry(TWO, "third", {"host": "c", "folder": "~/x"}, "f")
    assert text == TWO + "    third:\n      host: c\n      folder: ~/x\n"
    assert list(parse_clusters(text, "f")) == ["first", "second", "third"]


@pytest.mark.parametrize(
    "text",
    ["", "# mine\n", "clusters:\n", "clusters: {}\n", "clusters: null  # mine\n", "#", "\n"],
)
def test_a_first_entry_finds_its_place(text: str) -> None:
    new = with_entry(text, "a", {"setup": ["yes: no"]}, "f")
    assert parse_clusters(new, "f")["a"].setup == ["yes: no"]
    assert "mine" in new or "mine" not in text


def test_an_entry_is_taken_out_with_its_inner_comments_alone() -> None:
    assert without_entry(TWO, "first", "f") == TWO.replace(
        "    first:   # the old one\n"
        "        host: a.example.org\n"
        "        folder: ~/clusterlm   # shared\n"
        "        # resources: {partition: old}\n",
        "",
    )
    left = without_entry(TWO, "second", "f")
    assert left.endswith("    # of the other group\n# the end\n")
    assert list(parse_clusters(left, "f")) == ["first"]
    assert parse_clusters(without_entry(left, "first", "f"), "f") == {}


@pytest.mark.parametrize(
    "text",
    [
        "clusters: {a: {folder: /f}, b: {}}\n",
        "clusters:\n  a: &x {folder: /f}\n  b: *x\n",
    ],
)
def test_a_file_in_another_form_is_left_alone_with_what_to_write(text: str) -> None:
    with pytest.raises(ClusterLMError, match="by hand"):
        without_entry(text, "a", "f")
    if "&" not in text:
        with pytest.raises(ClusterLMError, match="write into it:\n\n.*new:"):
            with_entry(text, "new", {"folder": "/g"}, "f")


def test_what_is_there_is_not_added_again_and_a_wrong_file_is_not_touched() -> None:
    with pytest.raises(ClusterLMError, match="already"):
        with_entry(TWO, "first", {}, "f")
    with pytest.raises(SpecError, match="clusters.first.folder"):
        with_entry(COMMENTED, "a", {}, "f")
    with pytest.raises(SpecError, match="clusters add a: 1 problem") as caught:
        with_entry(TWO, "a", {"host": "-oProxyCommand=x", "folder": "~/x"}, "f")
    assert [(p.where, p.line) for p in caught.value.problems] == [("host", None)]


_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")))


@given(
    setup=st.lists(_texts.filter(bool), max_size=3),
    env=st.dictionaries(st.from_regex(r"\A[A-Z][A-Z0-9_]{0,5}\Z"), _texts, max_size=3),
    name=st.from_regex(r"\A[a-z][a-z0-9._-]{0,9}\Z"),
)
def test_what_is_added_is_read_back_and_taken_out_without_a_trace(
    setup: list[str], env: dict[str, str], name: str
) -> None:
    fields: dict[str, Any] = {"setup": setup, "env": env}
    try:
        parse_clusters(yaml.safe_dump({"clusters": {name: fields}}), "f")
    except SpecError:
        # the grammars refuse it
        return
    if name in ("first", "second", "local", "slurm"):
        return
    new = with_entry(TWO, name, fields, "f")
    assert new.startswith(TWO)
    profile = parse_clusters(new, "f")[name]
    assert (profile.setup, profile.env) == (setup, env)
    assert without_entry(new, name, "f") == TWO


def test_the_file_is_written_whole_private_and_through_a_link(tmp_path: Path) -> None:
    dotfiles = tmp_path / "dotfiles" / "c.yaml"
    dotfiles.parent.mkdir()
    dotfiles.write_text("clusters:\n")
    link = tmp_path / "config" / "clusterlm" / "clusters.yaml"
    write_clusters(link, "clusters: {}\n")
    assert link.parent.stat().st_mode & 0o777 == 0o700
    link.unlink()
    link.symlink_to(dotfiles)
    write_clusters(link, TWO)
    assert link.is_symlink()
    assert dotfiles.read_text() == TWO
    assert dotfiles.stat().st_mode & 0o777 == 0o600


def test_every_fabric_has_a_preset_with_its_source() -> None:
    from typing import get_args

    assert set(FABRICS) == set(get_args(Fabric))
    for fabric, preset in FABRICS.items():
        # what a preset sets could stand in the profile
        text = yaml.safe_dump({"clusters": {"a": {"env": preset.env}}})
        assert parse_clusters(text, fabric)["a"].env == preset.env
        assert preset.source.startswith("https://")
        assert preset.advice
