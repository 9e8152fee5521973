"""What a cluster's profile fills in: only what the job leaves out, and each is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterlm.spec.cluster_defaults import apply_profile, contradictions, defaults_of
from clusterlm.spec.load import load_job
from clusterlm.spec.probe import Probe, write_probe
from clusterlm.spec.profile import Profile
from tests.spec.conftest import Load, Refuse, right_job

PROFILE: dict[str, Any] = {
    "runtime": "enroot",
    "mounts": ["/data", "/scratch:/tmp/scratch"],
    "fabric": "slingshot",
    "env": {"NCCL_CROSS_NIC": "0", "SITE": "x"},
    "resources": {
        "partition": "gpu",
        "account": "team",
        "mem": "900G",
        "exclusive": True,
        "extra": ["--comment=site", "--hint=nomultithread"],
        "preprocess": {"partition": "cpu", "cpus": 16, "time": "2h"},
    },
}


def profile(**changes: Any) -> Profile:
    return Profile.model_validate({**PROFILE, **changes})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "clusters.yaml"
    path.write_text(yaml.safe_dump({"clusters": {"mine": PROFILE, "far": {"folder": "/x"}}}))
    monkeypatch.setenv("CLUSTERLM_CONFIG", str(path))
    return path


def test_everything_is_filled_in_where_the_job_says_nothing() -> None:
    values: dict[str, Any] = {"cluster": "mine", "image": {}}
    notes = apply_profile(values, profile())
    assert values["resources"]["mem"] == "921600M"
    assert values["resources"]["preprocess"]["time"] == "7200s"
    assert values["image"] == {"runtime": "enroot", "mounts": PROFILE["mounts"]}
    assert values["env"]["NCCL_SOCKET_IFNAME"] == "hsn"
    # the user's own word goes before the preset
    assert values["env"]["NCCL_CROSS_NIC"] == "0"
    assert notes == [
        "from profile mine: partition gpu, account team, exclusive, mem 921600M, "
        "--comment=site --hint=nomultithread, preprocess.cpus 16, preprocess.time 7200s, "
        "preprocess.partition cpu",
        "from profile mine: image.runtime enroot, mounts /data, /scratch:/tmp/scratch",
        "from profile mine: env NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, NCCL_CROSS_NIC, "
        "FI_CXI_DISABLE_HOST_REGISTER, FI_MR_CACHE_MONITOR, SITE",
    ]


def test_what_the_job_says_wins_key_by_key() -> None:
    values: dict[str, Any] = {
        "cluster": "mine",
        "image": {"runtime": "pyxis", "mounts": ["/mine:/tmp/scratch", "/data"]},
        "resources": {
            "partition": None,
            "account": "other",
            "mem": "1G",
            "exclusive": False,
            "extra": ["--comment=me"],
            "preprocess": {"partition": "p"},
        },
        "env": {"SITE": "y", "NCCL_SOCKET_IFNAME": "eth0"},
    }
    notes = apply_profile(values, profile())
    assert values["resources"] == {
        "partition": None,
        "account": "other",
        "mem": "1G",
        "exclusive": False,
        "extra": ["--hint=nomultithread", "--comment=me"],
        "preprocess": {"partition": "p", "cpus": 16, "time": "7200s"},
    }
    # its places are its own; the site's other folders come first
    assert values["image"] == {"runtime": "pyxis", "mounts": ["/mine:/tmp/scratch", "/data"]}
    assert values["env"]["SITE"] == "y"
    assert values["env"]["NCCL_SOCKET_IFNAME"] == "eth0"
    assert "image" not in " ".join(notes)


def test_a_default_that_is_off_is_told_as_such() -> None:
    values: dict[str, Any] = {"cluster": "mine"}
    off = Profile.model_validate({"resources": {"exclusive": False}})
    assert apply_profile(values, off) == ["from profile mine: exclusive false"]


def test_without_an_image_there_is_nothing_to_mount() -> None:
    values: dict[str, Any] = {"cluster": "mine"}
    apply_profile(values, profile())
    assert "image" not in values


@pytest.mark.parametrize("wrong", [3, "x", [1], None])
def test_a_section_that_is_none_is_left_for_the_check(wrong: object) -> None:
    values: dict[str, Any] = {"cluster": "mine", "resources": wrong, "env": wrong, "image": wrong}
    apply_profile(values, profile())
    assert values["image"] == values["resources"] == values["env"] == wrong


def test_the_probe_fills_in_below_the_profile() -> None:
    probe = Probe(gpu_requests_accepted=("gpus-per-node",), pyxis=False, apptainer="1.3.4")
    values: dict[str, Any] = {"cluster": "mine", "image": {}}
    notes = apply_profile(values, Profile(), probe)
    assert values == {
        "cluster": "mine",
        "image": {"runtime": "apptainer"},
        "resources": {"gpu_request": "gpus-per-node"},
    }
    assert notes == [
        "from doctor on mine: gpu_request gpus-per-node",
        "from doctor on mine: image.runtime apptainer",
    ]
    assert defaults_of(profile(), probe)["image"]["runtime"] == "enroot"


@pytest.mark.parametrize(
    "probe",
    [
        None,
        Probe(),
        Probe(gpu_requests_accepted=("gres", "gpus-per-node"), pyxis=True, enroot="3.4"),
        Probe(pyxis=False, enroot="", apptainer=""),
    ],
)
def test_a_probe_that_found_nothing_better_changes_nothing(probe: Probe | None) -> None:
    values: dict[str, Any] = {"cluster": "mine", "image": {}}
    assert apply_profile(values, Profile(), probe) == []
    assert values == {"cluster": "mine", "image": {}}


def test_a_job_that_contradicts_the_probe_is_told(load: Load, config: Path) -> None:
    probe = Probe(
        gpu_requests_accepted=("gpus-per-node",), pyxis=False, enroot="3.4", max_array_size=9
    )
    write_probe("far", probe)
    changes = {
        "cluster": "far",
        "image.runtime": "pyxis",
        "resources.gpu_request": "gres",
        "resources.gpus_per_node": 2,
        "data.tasks": 9,
    }
    notes = load(changes).notes
    assert any("doctor found no pyxis on far; it has enroot" in note for note in notes)
    assert any("far refused --gres" in note and "--gpus-per-node" in note for note in notes)
    assert any("arrays of 8" in note for note in notes)
    assert contradictions(load({"cluster": "far"}).job, None) == []


def test_a_job_is_loaded_with_its_clusters_defaults(load: Load, config: Path) -> None:
    loaded = load({"cluster": "mine"})
    assert loaded.job.resources.partition == "gpu"
    assert loaded.job.resources.preprocess.partition == "cpu"
    assert loaded.job.resources.mem == 900 * 1024
    assert loaded.profile is not None
    assert any(note.startswith("from profile mine: partition gpu") for note in loaded.notes)
    # by --set, too; and away from it again
    assert load({}, "cluster=mine").job.resources.account == "team"
    local = load({"cluster": "mine"}, "cluster=local")
    assert local.job.resources.account is None
    assert local.profile is None


def test_a_default_with_which_the_job_is_wrong_is_told_at_its_place(
    load: Load, refuse: Refuse, config: Path
) -> None:
    found = refuse(
        {"cluster": "mine", "resources.processes_per_node": 3, "recovery.stop_grace": "2h"}
    )
    assert list(found) == ["recovery.stop_grace"]


def test_an_unknown_cluster_is_answered_by_those_that_there_are(
    refuse: Refuse, config: Path
) -> None:
    assert "did you mean `mine`" in refuse({"cluster": "mien"})["cluster"]
    found = refuse({"cluster": "zzzzz"})["cluster"]
    assert "local, slurm, far, mine" in found
    assert "clusters add" in found


def test_a_wrong_clusters_file_concerns_only_jobs_that_name_one(
    folder: Path, load: Load, config: Path
) -> None:
    config.write_text("clusters: {mine: {colour: red}}\n")
    load({})
    load({"cluster": "slurm"})
    (folder / "job.yaml").write_text(yaml.safe_dump({**right_job(), "cluster": "mine"}))
    with pytest.raises(Exception, match=r"clusters\.mine\.colour"):
        load_job(folder / "job.yaml")
