"""What is mounted into a container: every path of the job, no wider than needed, nothing hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterlm.container import Mount, container_of, image_of, is_passed
from clusterlm.errors import ImageError, SpecError
from clusterlm.image_paths import ImagePaths
from clusterlm.paths import RunPaths
from clusterlm.spec.job import Job

RUN = RunPaths(Path("/shared/runs/x"))


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", "/shared/cache")
    monkeypatch.setenv("CLUSTERLM_IMAGES_DIR", "/shared/images")


def job_of(*mounts: str, **sections: Any) -> Job:
    base = {"name": "x", "cluster": "slurm", "image": {"mounts": list(mounts)}}
    data = {"tokenizer": {"name": "org/name"}, "block_size": 8}
    if "sources" in sections:
        rows = [{"kind": "text", "path": path} for path in sections.pop("sources")]
        sections["data"] = {**data, "sources": rows, **sections.pop("data", {})}
        sections.setdefault("model", {"name": "org/model"})
    else:
        sections.setdefault("train", {"command": ["accelerate", "launch"]})
    return Job.model_validate({**base, **sections})


def mounts_of(*mounts: str, run: RunPaths = RUN, **sections: Any) -> list[str]:
    """As `source[:target][:ro]`, in order."""
    container = container_of(job_of(*mounts, **sections), run, "a" * 64, "/x.sqsh")
    assert container is not None
    return [_text(mount) for mount in container.mounts]


def _text(mount: Mount) -> str:
    target = "" if mount.target == mount.source else f":{mount.target}"
    return f"{mount.source}{target}{':ro' if mount.read_only else ''}"


OWN = ["/tmp", "/shared/cache", "/shared/runs/x"]


def test_the_run_the_caches_and_the_nodes_scratch_are_always_there_and_writable() -> None:
    assert mounts_of() == OWN


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/data/*.jsonl", "/data"),
        ("/data/a/b.jsonl", "/data/a/b.jsonl"),
        ("/data/a/**/*.txt", "/data/a"),
        ("/data/part-[0-9]/x.txt", "/data"),
        ("/data/каша/x.txt", "/data/каша/x.txt"),
        ("/data/a/", "/data/a"),
    ],
)
def test_of_a_glob_the_folder_before_its_first_magic_part_is_seen(path: str, root: str) -> None:
    assert f"{root}:ro" in mounts_of(sources=[path])


def test_every_path_that_a_job_names_is_seen_read_only() -> None:
    found = mounts_of(
        sources=["/d/a/*.txt"],
        data={
            "tokenizer": {"name": "/d/tok", "chat_template": "/d/chat.jinja"},
            "validation": {"sources": [{"kind": "text", "path": "/d/val.txt"}]},
        },
        model={"name": "/m/base"},
        train={"strategy": "deepspeed", "deepspeed": "/d/ds.json"},
    )
    read_only = {m for m in found if m.endswith(":ro")}
    wanted = ["/d/a", "/d/tok", "/d/chat.jinja", "/d/val.txt", "/m/base", "/d/ds.json"]
    assert read_only == {f"{path}:ro" for path in wanted}


def test_a_hub_id_is_no_path() -> None:
    assert mounts_of(sources=["/d/x.txt"]) == ["/tmp", "/d/x.txt:ro", *OWN[1:]]


def test_a_source_of_the_hub_and_a_template_that_is_no_file_are_no_paths() -> None:
    for template in ("qwen", "/{{ bos_token }}"):
        tokenizer = {"name": "org/name", "chat_template": template}
        rows = [{"kind": "text", "hub": "owner/name"}]
        assert mounts_of(sources=[], data={"tokenizer": tokenizer, "sources": rows}) == OWN


def test_of_an_own_converter_its_folder_is_seen() -> None:
    custom = {"kind": "custom", "path": "/d/x.jsonl", "converter": "/jobs/conv.py:to_messages"}
    installed = {**custom, "converter": "package.module.function"}
    data = {"sources": [installed], "validation": {"sources": [custom]}}
    found = mounts_of(sources=[], data=data)
    assert set(found) == {"/d/x.jsonl:ro", "/jobs:ro", *OWN}
    custom["converter"] = "/my jobs/conv.py:to_messages"
    with pytest.raises(SpecError, match=r"data\.validation\.sources\[0\]\.converter"):
        mounts_of(sources=[], data=data)


def test_of_an_own_model_class_its_folder_is_seen_and_of_an_adapter_its_own() -> None:
    model = {
        "name": "/m/base",
        "class": "/jobs/my_model.py:Own",
        "adapter": {"continue_from": "/runs/a/model"},
    }
    found = mounts_of(sources=["/d/x.txt"], model=model)
    assert {"/m/base:ro", "/jobs:ro", "/runs/a/model:ro"} <= set(found)
    model = {"from_scratch": {"class": "package.module.Class", "config": {}}}
    assert mounts_of(sources=["/d/x.txt"], model=model) == ["/tmp", "/d/x.txt:ro", *OWN[1:]]


def test_a_snapshot_of_the_hubs_cache_brings_the_files_that_its_links_lead_to() -> None:
    model = {"name": "/hub/models--org--name/snapshots/0123abcd"}
    assert "/hub/models--org--name:ro" in mounts_of(sources=["/d/x.txt"], model=model)


@pytest.mark.parametrize(
    ("command", "folder"),
    [("/code/train.py", "/code:ro"), ("/usr/bin/env", None), ("accelerate", None)],
)
def test_of_an_own_script_its_folder_is_seen_and_a_program_is_the_images(
    command: str, folder: str | None
) -> None:
    found = mounts_of(train={"command": [command]})
    assert found == sorted([*OWN, *([folder] if folder else [])], key=lambda m: (m.count("/"), m))


def test_what_the_mount_around_it_shows_is_left_out() -> None:
    assert mounts_of(sources=["/tmp/a.txt", "/shared/runs/x/b.txt", "/shared/cache/c/*.txt"]) == OWN


def test_within_a_read_only_mount_the_run_stays_writable() -> None:
    assert mounts_of("/shared:/shared:ro", sources=["/shared/d/*.txt"]) == [
        *("/shared:ro", "/tmp"),
        *("/shared/cache", "/shared/runs/x"),
    ]


def test_a_path_below_a_mount_of_something_else_is_mounted_again() -> None:
    found = mounts_of("/d:/d:ro", "/other:/d/b:ro", sources=["/d/b/c.txt"])
    assert set(found) == {"/d:ro", "/other:/d/b:ro", "/d/b/c.txt:ro", *OWN}
    assert found.index("/other:/d/b:ro") < found.index("/d/b/c.txt:ro")


def test_a_user_may_put_another_folder_in_the_place_of_tmp() -> None:
    assert "/nvme/tmp:/tmp" in mounts_of("/nvme/tmp:/tmp")
    assert "/tmp" not in mounts_of("/nvme/tmp:/tmp")


def test_a_cache_that_the_job_names_is_writable() -> None:
    assert "/hf" in mounts_of(env={"HF_HOME": "/hf"})


@pytest.mark.parametrize(
    "path", ["/d/a:b", "/d/a,b", "/d/a b", '/d/a"b', "/d/$(touch x)", "/d/a\\b", "/d/a'b", "/d/`x`"]
)
def test_a_path_that_a_runtime_cannot_carry_is_refused_with_its_place(path: str) -> None:
    with pytest.raises(SpecError, match=r"data\.sources\[0\]\.path.*letters, digits"):
        mounts_of(sources=[path])
    with pytest.raises(SpecError, match="CLUSTERLM_RUNS_DIR"):
        mounts_of(run=RunPaths(Path(path)))


@pytest.mark.parametrize("path", ["/usr/lib/python3.11/*.py", "/etc/x", "/*.txt", "/opt/*", "/usr"])
def test_a_mount_that_would_hide_the_images_own_files_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match=r"data\.sources\[0\]\.path.*the image's own"):
        mounts_of(sources=[path])


def test_all_mistakes_come_at_once_and_two_folders_in_one_place_are_one() -> None:
    with pytest.raises(SpecError) as caught:
        mounts_of("/a:/in", "/b:/in", "/c:/usr", sources=["/d/a,b"])
    places = [p.where for p in caught.value.problems]
    assert set(places) == {"image.mounts[1]", "image.mounts[2]", "data.sources[0].path"}


names = st.text("ab", min_size=1, max_size=1)
paths = st.lists(names, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
wishes = st.lists(st.tuples(paths, st.booleans()), max_size=8)


@given(wishes)
def test_everything_asked_for_is_seen_with_its_rights_and_outermost_first(
    asked: list[tuple[str, bool]],
) -> None:
    texts = [f"{path}:{path}{':ro' if read_only else ''}" for path, read_only in asked]
    container = container_of(job_of(*texts), RUN, "", "/x.sqsh")
    assert container is not None
    targets = [m.target for m in container.mounts]
    assert len(targets) == len(set(targets))
    for path, read_only in asked:
        around = [m for m in container.mounts if f"{path}/".startswith(f"{m.target}/")]
        assert around, path
        assert read_only or not around[-1].read_only
    for number, target in enumerate(targets):
        assert not any(target.startswith(f"{later}/") for later in targets[number:])


def test_the_image_of_a_runtime() -> None:
    paths = ImagePaths("ab" * 32)

    def of(**image: Any) -> str:
        job = Job.model_validate({"name": "x", "cluster": "slurm", "image": image})
        return image_of(job, None if "file" in image else paths)

    assert of() == of(runtime="enroot") == "/shared/images/abababababababab.sqsh"
    assert of(runtime="docker") == "clusterlm:abababababababab"
    assert of(runtime="apptainer") == "/shared/images/abababababababab.sif"
    assert of(file="/given.sqsh") == "/given.sqsh"
    with pytest.raises(ImageError, match="build-image"):
        image_of(job_of(), None)


def test_without_an_image_there_is_no_container() -> None:
    for image in (None, {"runtime": "none"}):
        job = Job.model_validate({"name": "x", "image": image})
        assert container_of(job, RUN, "", "") is None


def test_nothing_of_the_hosts_python_or_of_a_shell_passes() -> None:
    hosts = ["PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "PYTHONPATH", "LANG"]
    assert not [
        name for name in [*hosts, "HF_TOKEN", "HF_HOME", "SSL_CERT_FILE"] if is_passed(name)
    ]
    for name in ("CLUSTERLM_ATTEMPT", "SLURM_NODEID", "CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "TZ"):
        assert is_passed(name)
