"""The commands of the documents, and what launchers, Slurm and the environment bring."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from clusterlm.errors import ClusterLMError
from clusterlm.importing.sources import draft_files
from tests.importing.conftest import INPUTS, Import

NOT_THERE = re.compile(
    r"there is no (file|folder)|no file matches|is neither a folder here nor a hub id"
    r"|stage 3 saves no whole model"
)
"""What is left to say about a job whose data and model are elsewhere."""

EXPECTED: dict[tuple[str, ...], dict[str, Any]] = {
    ("run_pt.sh",): {
        "data.block_size": 512,
        "data.sources": [
            {"kind": "text", "path": "path/to/pt/data/dir/*.txt", "documents": "line"}
        ],
        "data.validation.fraction": 0.001,
        "data.packing": "concat",
        "data.isolate_documents": False,
        "data.tokenizer.name": "path/to/chinese/llama/tokenizer/dir",
        "model.vocab": "resize",
        "model.adapter.modules_to_save": ["embed_tokens", "lm_head"],
        "train.mode": "adapter",
        "train.precision": "fp16",
        "train.deepspeed": "ds_zero2_no_offload.json",
        "train.learning_rate": 2e-4,
        "train.warmup": 0.05,
        "train.max_steps": 100,
        "train.keep_checkpoints": 3,
        "train.seed": 42,
        "train.activation_checkpointing": True,
        "train.ddp_timeout": 30000,
        "resources.preprocess.cpus": 8,
        "resources.gpus_per_node": 1,
        "cluster": "local",
    },
    ("run_pt_nodes.sh",): {
        "model.adapter.r": 8,
        "train.deepspeed": {"stage": 2},
        "model.vocab": "resize",
        "data.tokenizer.name": "./CHANGE_ME",
    },
    ("train.sh",): {
        "data.sources": [
            {"kind": "chat", "path": "data/dummy_conversation.json", "layout": "sharegpt"}
        ],
        "data.tokenizer.chat_template": "vicuna",
        "data.packing": "padded",
        "data.overlong": "truncate",
        "data.block_size": 2048,
        "train.strategy": "fsdp",
        "train.fsdp": {"shard": "full", "wrap": ["LlamaDecoderLayer"]},
        "train.epochs": 5,
        "train.weight_decay": 0,
        "train.tf32": True,
        "train.lr_scheduler": "cosine",
        "resources.gpus_per_node": 8,
    },
    ("run.sbatch", "run_train_peft_32_128.sh"): {
        "cluster": "slurm",
        "resources.nodes": 8,
        "resources.gpus_per_node": 8,
        "resources.time": "4-23:59:59",
        "resources.preprocess.cpus": 96,
        "image.runtime": "pyxis",
        "image.mounts": ["/scratch/tikhomirov"],
        "env": {"HF_HOME": "/scratch/tikhomirov/workdir/data/.cache/"},
        "data.packing": "paragraph_start",
        "data.sources": [
            {"kind": "text", "path": "./CHANGE_ME", "where_not": {"domain": "enwiki"}}
        ],
        "train.save_steps": 10000,
        "train.eval_steps": 1000,
        "train.adam_epsilon": 1e-5,
        "train.log_on_each_node": False,
        "model.adapter.alpha": 32,
    },
    ("pile.sh",): {
        "resources.gpus_per_node": 8,
        "train.deepspeed": "ds_config.json",
        "train.precision": "fp16",
        "train.max_grad_norm": 1,
    },
    ("ds_config.json",): {"train.strategy": "deepspeed", "train.precision": "fp16"},
}


def at(values: Any, place: str) -> Any:
    for key in place.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize("names", EXPECTED, ids=lambda names: names[-1])
def test_a_command_of_the_documents_becomes_a_job(imports: Import, names: tuple[str, ...]) -> None:
    found = imports(*names)
    for place, value in EXPECTED[names].items():
        assert at(found.values, place) == value, place


@pytest.mark.parametrize(
    "names", [*EXPECTED, ("saiga.yaml",), ("nanogpt.yaml",)], ids=lambda names: names[-1]
)
def test_only_paths_are_left_to_be_settled(imports: Import, names: tuple[str, ...]) -> None:
    found = imports(*names)
    for problem in found.problems():
        assert NOT_THERE.search(problem.message), problem


def test_the_wrapper_and_the_script_may_come_in_any_order(imports: Import) -> None:
    names = ("run.sbatch", "run_train_peft_32_128.sh")
    assert imports(*names).values == imports(*reversed(names)).values


def test_a_job_whose_paths_are_put_right_is_fine(imports: Import) -> None:
    found = imports("train.sh")
    model = found.folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("{}")
    (found.folder / "data").mkdir()
    (found.folder / "data" / "dummy_conversation.json").write_text("[]")
    found.text = found.text.replace("~/model_weights/Alpaca-Plus-13b", "./model")
    job = found.load().job
    assert job.train.fsdp is not None
    assert job.train.fsdp.wrap == ["LlamaDecoderLayer"]
    assert (job.global_batch_size, job.train.warmup) == (256, 0.03)


def test_what_is_missing_is_asked_for(imports: Import) -> None:
    found = imports("run.sbatch", "run_train_peft_32_128.sh")
    assert set(found.draft.to_fill_in) == {
        *("image.base", "model.name", "data.tokenizer.name", "data.sources[0].path"),
        *("train.learning_rate", "train.mode"),
    }
    assert "# CHANGE: $LR is not set in the script" in found.text


LAUNCHERS = [
    ("torchrun --nnodes 2 --nproc-per-node=4", {"nodes": 2, "gpus_per_node": 4}),
    ("torchrun --nnodes=2:4 --nproc_per_node 4", {"nodes": 4, "gpus_per_node": 4}),
    ("torchrun --standalone --nproc_per_node gpu", {"gpus_per_node": 1}),
    ("python -m torch.distributed.run --nproc_per_node 4", {"gpus_per_node": 4}),
    ("python3 -u -m torch.distributed.launch --use_env --nproc_per_node 4", {"gpus_per_node": 4}),
    ("deepspeed --num_gpus=8 --num_nodes 2", {"nodes": 2, "gpus_per_node": 8}),
    ("deepspeed --include localhost:0,1,2 --master_port 7", {"gpus_per_node": 3}),
    (
        "accelerate launch --num_processes 16 --num_machines 2 --multi_gpu --mixed_precision bf16",
        {"nodes": 2, "gpus_per_node": 8},
    ),
    ("CUDA_VISIBLE_DEVICES=0,1 python", {"gpus_per_node": 2}),
    ("nohup python", {"gpus_per_node": 1}),
]


@pytest.mark.parametrize(("launcher", "resources"), LAUNCHERS, ids=lambda one: str(one)[:50])
def test_launchers_say_how_many_nodes_and_gpus(
    imports: Import, launcher: str, resources: dict[str, int]
) -> None:
    found = imports(script=f"{launcher} run_clm.py --model_name_or_path a/b --do_train")
    said = {k: v for k, v in found.values["resources"].items() if k in ("nodes", "gpus_per_node")}
    assert said == resources
    assert found.values["cluster"] == ("slurm" if resources.get("nodes", 1) > 1 else "local")
    assert found.values["model"]["name"] == "a/b"
    assert not [p for p in found.problems() if not NOT_THERE.search(p.message)]


def test_options_of_accelerate_choose_the_strategy(imports: Import) -> None:
    script = "accelerate launch --use_deepspeed --zero_stage 3 --num_processes 2 run_clm.py --bf16"
    train = imports(script=script).values["train"]
    assert (train["strategy"], train["deepspeed"]) == ("deepspeed", {"stage": 3})


def test_sbatch_lines_become_resources(imports: Import) -> None:
    script = """#!/bin/bash
#SBATCH -J My_Job -N 2 --gres=gpu:a100:4 -t 12:00:00 -p gpu -A team --mem=512G
#SBATCH --cpus-per-task=32 --exclusive --output=log.%j --comment=x --ntasks-per-node=1
#SBATCH --array=1-3
srun torchrun --nnodes 2 --nproc_per_node 4 run_clm.py --bf16
"""
    found = imports(script=script)
    resources = found.values["resources"]
    assert found.values["name"] == "my_job"
    assert resources == {
        "nodes": 2,
        "gpus_per_node": 4,
        "gpu_type": "a100",
        "time": "12:00:00",
        "partition": "gpu",
        "account": "team",
        "mem": "512G",
        "cpus_per_node": 32,
        "exclusive": True,
        "extra": ["--comment=x"],
    }
    assert "#SBATCH --output=log.%j: logs lie in the run directory" in found.left_out
    assert "#SBATCH --array=1-3: one run is one job" in found.left_out.replace("a run", "one run")
    assert not [p for p in found.problems() if not NOT_THERE.search(p.message)]


def test_cores_of_several_tasks_are_those_of_one_node(imports: Import) -> None:
    script = """#SBATCH --cpus-per-task=6
#SBATCH --ntasks-per-node=8 --gpus-per-task=1
torchrun --nproc_per_node 8 run_clm.py --bf16
"""
    found = imports(script=script)
    assert found.values["resources"]["cpus_per_node"] == 48
    assert "--gpus-per-task=1: does not count the GPUs of a node" in found.unclear


def test_the_name_of_a_registrys_image_is_the_base(imports: Import) -> None:
    script = (
        "srun --container-image nvcr.io#nvidia/pytorch:25.06-py3 --container-mounts /a:/b,/c:/c:ro"
        " torchrun run_clm.py --bf16"
    )
    image = imports(script=script).values["image"]
    assert image == {
        "base": "nvcr.io/nvidia/pytorch:25.06-py3",
        "runtime": "pyxis",
        "mounts": ["/a:/b", "/c:/c:ro"],
    }


def test_exports_reach_the_ranks(imports: Import) -> None:
    script = """
export NCCL_DEBUG=INFO MASTER_PORT=29500 LR=1e-4 HOST=$(hostname)
export HF_TOKEN=abc
torchrun run_clm.py --learning_rate $LR
"""
    found = imports(script=script)
    assert found.values["env"] == {"NCCL_DEBUG": "INFO"}
    assert found.values["secrets"] == ["HF_TOKEN"]
    assert found.values["train"]["learning_rate"] == 1e-4
    assert "export MASTER_PORT: the launcher" in found.left_out
    assert "export HOST: its value is known only when" in found.left_out


def test_other_commands_of_a_script_are_named(imports: Import) -> None:
    script = """
pip install pytest==8.0.0
module load cuda
python prepare.py --x 1
torchrun run_clm.py --bf16
torchrun run_clm.py --fp16
"""
    unclear = imports(script=script).unclear
    for words in (
        "pip install pytest==8.0.0",
        "module load cuda",
        "python ...",
        "another train",
    ):
        assert words in unclear


def test_a_script_of_ones_own_may_be_run_itself(imports: Import) -> None:
    assert "train.command: [train_pile.py, ...]" in imports("pile.sh").unclear


REFUSED = [
    ("echo hi", "there is no command that trains"),
    ("bash other.sh", "It calls other.sh: give that file too"),
    ("torchrun 'x.py", "line 1: a quote is never closed"),
    ("impruver run finetune --config ./x.yaml", "clusterlm import ./x.yaml"),
    ("accelerate launch impruver run finetune --config=x.yaml", "clusterlm import x.yaml"),
]


@pytest.mark.parametrize(("script", "words"), REFUSED)
def test_a_script_that_does_not_train_is_refused(imports: Import, script: str, words: str) -> None:
    with pytest.raises(ClusterLMError, match=re.escape(words)):
        imports(script=script)


def test_every_input_is_used() -> None:
    used = {name for names in EXPECTED for name in names}
    used |= {"saiga.yaml", "nanogpt.yaml", "accelerate.sh", "ds_zero2_no_offload.json"}
    assert {path.name for path in INPUTS.iterdir()} == used


def test_the_page_shows_what_is_really_written(imports: Import) -> None:
    page = (INPUTS.parents[2] / "docs" / "import.md").read_text("utf-8")
    blocks = re.findall(r"<!-- import: ([^\n]*) -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for names, text in blocks:
        written = imports(*names.split()).text
        assert written.replace("`clusterlm import`", f"`clusterlm import {names}`") == text


def test_options_that_were_left_out_are_missed(imports: Import) -> None:
    """The multi-node command of the Chinese document ends in three dots."""
    found = imports(script="torchrun --nnodes 2 run_clm_pt_with_peft.py --deepspeed ds.json ...\n")
    assert any("whole command" in why for _, why in found.draft.unclear)
    assert "..." not in str(found.values)


def test_a_deepspeed_json_is_named_as_the_job_sees_it(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "jobs").mkdir()
    shutil.copy(INPUTS / "ds_config.json", tmp_path / "scripts" / "ds.json")
    script = tmp_path / "scripts" / "run.sh"
    script.write_text("deepspeed --num_gpus=8 train.py --deepspeed ds.json\n")
    draft = draft_files([script], tmp_path / "jobs")
    assert draft.get("train.deepspeed") == "../scripts/ds.json"


def test_a_line_break_in_a_program_s_name_stays_in_its_comment(imports: Import) -> None:
    assert imports(script='torchrun " \n "').values["name"]
