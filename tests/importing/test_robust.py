"""Whatever a file holds: a job, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from clusterlm.errors import ClusterLMError
from clusterlm.importing.sources import draft_files
from clusterlm.importing.write import yaml_of
from clusterlm.spec.document import read_document
from tests.importing.conftest import Import

WORDS = (
    *("torchrun", "deepspeed", "accelerate launch", "python", "run_clm.py", "srun", "bash -c"),
    *("--nnodes", "--nproc_per_node=", "--deepspeed", "--fsdp", "--learning_rate", "--bf16"),
    *("--include", "--num_processes", "--warmup_ratio", "--save_total_limit", "--fp16", "-m"),
    *("--container-image", "--container-mounts", "--dataset_dir", "--peft", "--seed", "--config"),
    *("#SBATCH --gres=", "#SBATCH -N", "export A=", "A=(", ")", "$A", "${A:-x}", "$(x)", '"', "'"),
    *("\\\n", "\n", " ", "|", ">", "<<EOF", "\nEOF\n", "&&", "if", "1", "x", "false", "None"),
)
SCRIPTS = some.lists(some.sampled_from(WORDS), max_size=30).map(" ".join)
LEAVES = some.none() | some.booleans() | some.integers(-3, 10) | some.text("abc./", max_size=5)
TREES = some.recursive(
    LEAVES,
    lambda inner: (
        some.lists(inner, max_size=3)
        | some.dictionaries(some.sampled_from(("name", "stage", "config", "x")), inner, max_size=3)
    ),
    max_leaves=6,
)
ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)


def drafted(path: Path) -> dict[str, Any] | None:
    try:
        draft = draft_files([path])
    except ClusterLMError:
        return None
    return read_document(yaml_of(draft, "x")).values


@ONE_FOLDER
@given(text=SCRIPTS)
def test_any_script(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.sh").write_text(text)
    drafted(tmp_path / "x.sh")


@ONE_FOLDER
@given(some.dictionaries(some.sampled_from(("fp16", "gradient_clipping", "optimizer")), TREES))
def test_any_deepspeed_json(tmp_path: Path, config: dict[str, Any]) -> None:
    for zero in (config.get("fp16"), {"stage": config.get("optimizer"), "offload_param": config}):
        (tmp_path / "x.json").write_text(json.dumps({**config, "zero_optimization": zero}))
        assert drafted(tmp_path / "x.json")


KEYS = ("datasets", "model", "lora", "tokenizer", "trainer", "ddp")


@ONE_FOLDER
@given(some.fixed_dictionaries(dict.fromkeys(KEYS, TREES)), TREES)
def test_any_impruver_yaml(tmp_path: Path, values: dict[str, Any], tree: object) -> None:
    values["datasets"] = [values["datasets"], {"name": tree}]
    values["model"] = {"name": values["model"], "config": tree}
    (tmp_path / "x.yaml").write_text(json.dumps(values))
    drafted(tmp_path / "x.yaml")


LAUNCHER_IN_A_VARIABLE = r"""#!/bin/bash
#SBATCH --job-name=big --nodes=4 --gres=gpu:8
MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
export LAUNCHER="python -u -m torch.distributed.run \
    --nproc_per_node 8 --nnodes $SLURM_NNODES --rdzv_endpoint $MASTER_ADDR:6000 --tee 3 \
    "
export CMD=" \
    `pwd`/run_clm.py --model_name_or_path gpt2 \
    --bf16
    "
srun --jobid $SLURM_JOBID bash -c "$LAUNCHER --node_rank \$SLURM_PROCID $CMD" 2>&1 | tee main.txt
"""


def test_a_launcher_that_is_put_together_from_variables(imports: Import) -> None:
    values = imports(script=LAUNCHER_IN_A_VARIABLE).values
    assert (values["resources"]["nodes"], values["resources"]["gpus_per_node"]) == (4, 8)
    assert values["model"]["name"] == "gpt2"
    assert values["train"]["precision"] == "bf16"
    assert "env" not in values


def test_a_command_in_a_container_or_an_eval(imports: Import) -> None:
    inner = "torchrun --nproc_per_node 4 run_clm.py --max_grad_norm .5"
    for script in (
        f"apptainer exec --nv /img/x.sif {inner}",
        f'docker run --gpus all image bash -c "{inner}"',
        f"uv run {inner}",
        f'cmd="{inner}"\neval $cmd',
        f'cmd="{inner}"\n$cmd',
    ):
        found = imports(script=script)
        assert found.values["resources"]["gpus_per_node"] == 4, script
        assert found.values["train"]["max_grad_norm"] == 0.5
    assert "/img/x.sif: a container" in imports(script=f"apptainer exec /img/x.sif {inner}").unclear
