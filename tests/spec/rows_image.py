"""Rows of test_rules: the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.spec.conftest import Changes, Row

FILE = "built.sqsh"
SLURM = {"cluster": "slurm"}


def image_files(folder: Path) -> None:
    """What the rows name."""
    for name in (FILE, "built.sif"):
        (folder / name).write_bytes(b"hsqs")
    (folder / "good.txt").write_text("# ours\npeft >= 0.17, <1  # adapters\n\nevaluate\n")
    (folder / "torch.txt").write_text("peft\n\ntorch==2.4.0\n")
    (folder / "new.txt").write_text("transformers == 5.23.0\n")
    (folder / "option.txt").write_text("peft\n--index-url https://pypi.example/simple\n")
    (folder / "wheels").mkdir()
    (folder / "wheels" / "peft-0.17.1-py3-none-any.whl").write_bytes(b"PK")
    (folder / "no-wheels").mkdir()


def image(**keys: Any) -> Changes:
    return {"image": keys}


def on_slurm(**keys: Any) -> Changes:
    return SLURM | image(**keys)


def built(**keys: Any) -> Changes:
    return on_slurm(file=FILE, **keys)


IMAGE: list[Row] = [
    (
        "image_file_stands_alone",
        built(runtime="pyxis", mounts=["/tmp"]),
        built(pip=["peft"]),
        "image.pip",
        "built already",
    ),
    ("image_file_stands_alone", built(), built(base="a/b:1"), "image.base", "built already"),
    (
        "image_file_fits_its_runtime",
        on_slurm(file="built.sif", runtime="apptainer"),
        built(runtime="apptainer"),
        "image.file",
        "is no .sif",
    ),
    (
        "image_file_fits_its_runtime",
        image(file=FILE, runtime="enroot"),
        image(file=FILE),
        "image.file",
        "docker starts images of its daemon",
    ),
    (
        "image_file_fits_its_runtime",
        built(),
        on_slurm(file="none.sqsh"),
        "image.file",
        "there is no file",
    ),
    (
        "runtime_goes_with_the_cluster",
        on_slurm(runtime="pyxis"),
        image(runtime="pyxis"),
        "image.runtime",
        "write docker",
    ),
    (
        "import_has_what_it_needs",
        on_slurm(import_on="slurm", registry="registry.example/team/clusterlm"),
        on_slurm(import_on="slurm"),
        "image.import_on",
        "add image.registry",
    ),
    (
        "import_has_what_it_needs",
        image(import_on="here"),
        image(import_on="slurm", registry="registry.example/a"),
        "image.import_on",
        "needs cluster: slurm",
    ),
    (
        "import_has_what_it_needs",
        image(),
        on_slurm(import_on="slurm", registry="registry.example/a", runtime="docker"),
        "image.import_on",
        "nothing is imported",
    ),
    (
        "image_never_replaces_torch",
        image(pip=["torchmetrics", "nvidia-ml-py"]),
        image(pip=["peft", "Torch==2.4"]),
        "image.pip[1]",
        "comes with the base image",
    ),
    (
        "image_never_replaces_torch",
        image(pip=["flash-attn"], base="registry.example/team/base:1"),
        image(pip=["Flash_Attn>=2"]),
        "image.pip[0]",
        "flash-attn comes with",
    ),
    (
        "image_never_replaces_torch",
        image(apt=["git-lfs"]),
        image(apt=["libcudnn9"]),
        "image.apt[0]",
        "comes with the base image",
    ),
    (
        "image_never_replaces_torch",
        image(requirements="good.txt"),
        image(requirements="torch.txt"),
        "image.requirements",
        "line 3: torch comes with",
    ),
    (
        "image_never_replaces_torch",
        image(pip=["python-dateutil"]),
        image(pip=["peft", "Python==3.12"]),
        "image.pip[1]",
        "the base decides Python: choose another image.base",
    ),
    (
        "image_never_replaces_torch",
        image(pip=["clusterlm-extras"]),
        image(pip=["clusterlm==0.1"]),
        "image.pip[0]",
        "clusterlm comes by itself, the version that you run",
    ),
    (
        "base_can_hold_what_is_added",
        image(pip=["transformers==5.14.1", "numpy"]),
        image(pip=["transformers==5.23.0"]),
        "image.pip[0]",
        "write transformers==5.14.1, or base: nvcr.io/nvidia/pytorch:25.02-py3",
    ),
    (
        "base_can_hold_what_is_added",
        image(pip=["transformers==5.23.0"], base="nvcr.io/nvidia/pytorch:25.02-py3"),
        image(requirements="new.txt"),
        "image.requirements",
        "line 1: transformers==5.23.0 needs Python 3.11 and torch 2.6",
    ),
    (
        "requirements_can_be_installed",
        image(requirements="good.txt"),
        image(requirements="option.txt"),
        "image.requirements",
        "PIP_INDEX_URL into image.build_secrets",
    ),
    (
        "requirements_can_be_installed",
        image(),
        image(requirements="none.txt"),
        "image.requirements",
        "there is no file",
    ),
    (
        "wheelhouse_holds_packages",
        image(wheelhouse="wheels", pip=["peft"]),
        image(wheelhouse="no-wheels"),
        "image.wheelhouse",
        "has no .whl",
    ),
    (
        "wheelhouse_holds_packages",
        image(pip=["peft@git+https://host.example/a/peft@v1"]),
        image(wheelhouse="wheels", pip=["peft@git+https://host.example/a/peft@v1"]),
        "image.pip[0]",
        "comes from a network",
    ),
    ("wheelhouse_holds_packages", image(), image(wheelhouse="x"), "image.wheelhouse", "no folder"),
    (
        "image_env_is_free_and_open",
        image(env={"TZ": "UTC"}),
        image(env={"HF_TOKEN": "x"}),
        "image.env.HF_TOKEN",
        "image.build_secrets: [HF_TOKEN]",
    ),
    (
        "image_env_is_free_and_open",
        image(env={"PIP_INDEX_URL": "https://pypi.example/simple"}),
        image(env={"PIP_INDEX_URL": "https://me:pw@pypi.example/simple"}),
        "image.env.PIP_INDEX_URL",
        "looks like a secret",
    ),
    (
        "image_env_is_free_and_open",
        image(),
        image(env={"PATH": "/x"}),
        "image.env.PATH",
        "the base's own",
    ),
    (
        "image_env_is_free_and_open",
        image(),
        image(env={"RANK": "0"}),
        "image.env.RANK",
        "launcher",
    ),
    (
        "build_secrets_are_names",
        image(build_secrets=["PIP_INDEX_URL"]),
        image(build_secrets=["ghp_" + "x" * 30]),
        "image.build_secrets[0]",
        "only its variable's name",
    ),
    (
        "build_secrets_are_names",
        image(),
        image(build_secrets=["A"], env={"A": "1"}),
        "image.build_secrets[0]",
        "in image.env too",
    ),
    (
        "build_secrets_are_names",
        image(),
        image(build_secrets=["PATH"]),
        "image.build_secrets[0]",
        "is no secret",
    ),
    (
        "build_secrets_are_names",
        image(),
        image(build_secrets=["A", "A"]),
        "image.build_secrets[1]",
        "named twice",
    ),
    (
        "mounts_have_places_of_their_own",
        image(mounts=["/tmp", "/tmp:/data:ro"]),
        image(mounts=["/tmp:/data", "/usr:/data/"]),
        "image.mounts[1]",
        "is the place of /tmp already",
    ),
    (
        "mounts_have_places_of_their_own",
        on_slurm(mounts=["/nowhere/on/this/machine"]),
        image(mounts=["/nowhere/on/this/machine"]),
        "image.mounts[0]",
        "no file or folder",
    ),
    *[
        ("mounts_have_places_of_their_own", image(), image(mounts=[mount]), "image.mounts[0]", says)
        for mount, says in [
            ("/tmp:/opt/clusterlm", "the image's own"),
            ("/tmp:/proc/1", "the image's own"),
            ("/", "the image's own"),
            ("/tmp://", "the image's own"),
            ("/tmp/../etc:/data", "goes up"),
        ]
    ],
]
