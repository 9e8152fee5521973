"""Every rule, with a job that it lets pass and one that it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clusterlm.spec.load import load_job
from clusterlm.spec.rules import RULES
from tests.spec.conftest import Changes, Load, Refuse, right_job, write_weights
from tests.spec.rows_data import DATA
from tests.spec.rows_files import FILES
from tests.spec.rows_general import GENERAL
from tests.spec.rows_image import IMAGE, image_files
from tests.spec.rows_training import TRAINING
from tests.spec.rows_vocabulary import VOCABULARY, vocabulary_files

TABLE = [*GENERAL, *IMAGE, *DATA, *TRAINING, *VOCABULARY, *FILES]

CONVERTER = """\
from os import path
CONSTANT = str
def to_messages(record): ...
try:
    in_a_try = path
except ImportError:
    pass
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    write_weights(folder / "llama", cut=0)
    write_weights(folder / "cut-off", cut=1)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"max_position_embeddings": 128}')
    zero = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": 1}
    (folder / "zero.json").write_text(json.dumps(zero))
    image_files(folder)
    vocabulary_files(folder)
    (folder / "conv.py").write_text(CONVERTER)
    (folder / "broken.py").write_text("x = 1\ndef f(:\n")
    (folder / "own.py").write_text("class Own: ...\n")
    (folder / "ranks.json").write_text('{"q_proj": 4}')
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "sub").mkdir()
    (folder / "sub" / "conv.py").write_text("other: object = print\n")
    (folder / "bf16.json").write_text(json.dumps({"bf16": {"enabled": True}}))
    (folder / "zero3.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    return folder


def _named(changes: Changes) -> Changes:
    # a dotted place reaches keys, not items
    path = changes.get("data.sources.0.path")
    return {"data.sources": [{"kind": "text", "path": path}]} if path else changes


@pytest.mark.parametrize("passing", [row[1] for row in TABLE], ids=[row[0] for row in TABLE])
def test_a_right_job_passes(load: Load, passing: Changes) -> None:
    assert load(_named(passing)).job.name == "small"


@pytest.mark.parametrize(
    ("failing", "where", "says"), [row[2:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_wrong_job_is_refused_in_one_place_with_a_way_out(
    refuse: Refuse, failing: Changes, where: str, says: str
) -> None:
    found = refuse(_named(failing))
    assert list(found) == [where]
    assert re.search(re.escape(says), found[where])


def test_every_rule_has_a_row() -> None:
    assert {check.__name__ for check, _ in RULES} == {row[0] for row in TABLE}


def test_rules_read_only_what_they_say(folder: Path) -> None:
    fields = {*right_job(), "cluster", "image", "resources", "train", "recovery", "env", "secrets"}
    assert all(set(reads) <= fields for _, reads in RULES)


def test_the_example_of_the_design_is_accepted(folder: Path) -> None:
    (folder / "job.yaml").write_text(EXAMPLE)
    loaded = load_job(folder / "job.yaml")
    assert loaded.job.resources.world_size == 64
    assert loaded.job.gradient_accumulation == 4
    assert loaded.job.global_batch_size == 256
    assert "train.warmup_ratio read as train.warmup: 0.03" in loaded.notes
    assert any("taken as a hub id" in note for note in loaded.notes)


EXAMPLE = """\
name: ru-cpt-8b
cluster: slurm
image:
  base: nvcr.io/nvidia/pytorch:25.06-py3
  apt: [git-lfs]
  pip: [transformers==5.23.0, peft, deepspeed, datasets]
  runtime: pyxis
resources: {nodes: 8, gpus_per_node: 8, time: 4-23:59:59, partition: gpu, spares: 1}
data:
  tokenizer: {name: owner/model}
  block_size: 4096
  packing: document_start
  sources:
    - {kind: text, path: corpus/*.txt, field: text, weight: 1.0}
    - {kind: text, path: "{stdlib}/json/*.py", exclude: ["test*"]}
  dedup: {exact: true}
  validation: {fraction: 0.05}
model:
  name: owner/model
  adapter: {method: lora, r: 128, alpha: 128, target_modules: [q_proj], modules_to_save: [lm_head]}
train:
  mode: adapter
  strategy: deepspeed
  deepspeed: {stage: 2}
  learning_rate: 2.0e-4
  warmup_ratio: 0.03
  global_batch_size: 256
  tf32: yes
recovery: {hang_after: auto, max_attempts_without_progress: 3}
env: {NCCL_DEBUG: WARN, NCCL_IB_DISABLE: 0}
secrets: [HF_TOKEN, WANDB_API_KEY]
"""
