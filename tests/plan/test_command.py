"""`clusterlm plan`: what it says, its exit code, and what it proposes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.errors import ClusterLMError
from tests.pile_json import PILE
from tests.plan.test_memory import LLAMA_8B

QWEN_235B: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 4096,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "head_dim": 128,
    "moe_intermediate_size": 1536,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLUSTERLM_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("CLUSTERLM_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    # the disk of whoever runs the tests is of no interest
    monkeypatch.setattr("clusterlm.cli.plan._free_disk", lambda: None)
    for name, config in (("m8", LLAMA_8B), ("m235", QWEN_235B)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    (tmp_path / "ds.json").write_text(json.dumps(PILE))
    (tmp_path / "t.txt").write_text("some words " * 4000)
    return tmp_path


def write_job(folder: Path, model: dict[str, Any], train: dict[str, Any], **resources: Any) -> str:
    job = {
        "name": "t",
        "cluster": "slurm",
        "resources": {"gpus_per_node": 8, "gpu_type": "a100-80", "mem": "1T", **resources},
        "data": {
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_size": 2048,
            "sources": [{"kind": "text", "path": "t.txt"}],
        },
        "model": model,
        "train": train,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return str(folder / "job.yaml")


def plan(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["plan", *argv])
    if isinstance(done.exception, ClusterLMError):
        raise done.exception
    return done.exit_code, done.stdout


def test_235b_on_eight_gpus_is_refused_with_the_arithmetic(folder: Path) -> None:
    train = {"strategy": "deepspeed", "deepspeed": "ds.json", "precision": "fp16"}
    job = write_job(folder, {"name": "./m235"}, train)
    code, text = plan(job, "--explain")
    assert code == 1
    assert "= 3.761 TB over all ranks" in text
    assert "DOES NOT FIT: GPU" in text
    assert "host" in text.partition("DOES NOT FIT")[2]
    assert "persistence threshold 1,000,000,000" in text
    assert "--set resources.nodes=" in text


def test_a_size_alone_is_enough_for_the_same_verdict(folder: Path) -> None:
    job = write_job(folder, {"name": "./m8"}, {"strategy": "deepspeed", "deepspeed": "ds.json"})
    code, text = plan(job, "--parameters", "235B", "--json")
    found = json.loads(text)
    assert code == 1
    assert not found["fits"]
    assert found["certain"]
    assert found["model"]["parameters"] == pytest.approx(235e9, rel=0.02)


def test_what_is_proposed_fits_when_it_is_typed(folder: Path) -> None:
    job = write_job(folder, {"name": "./m8"}, {"micro_batch_size": 8}, gpus_per_node=4)
    code, text = plan(job, "--json")
    assert code == 1
    proposed = json.loads(text)["set"]
    assert proposed
    code, text = plan(job, *(part for line in proposed for part in ("--set", line)), "--json")
    assert code == 0, text
    assert json.loads(text)["fits"]


def test_lora_of_8b_on_a_24_gb_card_takes_one_block_and_checkpointing(folder: Path) -> None:
    model = {"name": "./m8", "adapter": {"r": 16}}
    train = {"mode": "adapter", "micro_batch_size": 4}
    job = write_job(folder, model, train, gpus_per_node=1, gpu_type="rtx4090")
    code, text = plan(job)
    assert code == 1
    assert "--set train.micro_batch_size=1" in text
    assert "--set train.gradient_accumulation=4" in text
    assert "--set train.activation_checkpointing=true" in text
    assert "deepspeed" not in text.partition("nearest")[2]


def test_stage_auto_is_resolved_and_said(folder: Path) -> None:
    train = {"strategy": "deepspeed", "activation_checkpointing": True}
    code, text = plan(write_job(folder, {"name": "./m8"}, train))
    assert code == 0
    assert "stage auto: 1 is the lowest that fits" in text
    assert "DeepSpeed ZeRO-1" in text


def test_a_gpu_that_is_not_named_leaves_the_verdict_open(folder: Path) -> None:
    job = write_job(folder, {"name": "./m8"}, {}, gpu_type="big")
    code, text = plan(job)
    assert code == 0
    assert "as far as known (GPU, disk unknown)" in text
    code, text = plan(job, "--gpu-memory", "200G")
    assert "of 200\n" in text


def test_time_comes_from_tokens_and_speed(folder: Path) -> None:
    train = {"strategy": "deepspeed", "deepspeed": {"stage": 3}, "activation_checkpointing": True}
    job = write_job(folder, {"name": "./m8"}, train)
    found = json.loads(plan(job, "--json", "--tokens", "1B", "--tokens-per-s", "20000")[1])
    assert found["seconds"] == 50_000
    assert found["gpu_hours"] == pytest.approx(8 * 50_000 / 3600)
    assert found["jobs"] == 14
    assumed = json.loads(plan(job, "--json", "--tokens", "1B")[1])
    # torchtitan's 64 A100 reach 2,973 tokens/s each
    assert 1500 < assumed["tokens_per_s"] / 8 < 3500
    assert not assumed["speed_is_measured"]


def test_a_guess_of_the_tokens_is_called_one(folder: Path) -> None:
    _, text = plan(write_job(folder, {"name": "./m8"}, {}))
    assert "a guess" in text


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ({"name": "owner/absent"}, [], "hf download owner/absent config.json"),
        ({"name": "./m8"}, ["--gpu", "riva128"], "--gpu riva128: not known"),
        ({"name": "./m8"}, ["--gpu-memory", "80"], "--gpu-memory"),
        ({"name": "./m8"}, ["--parameters", "many"], "--parameters"),
        ({"name": "./m8"}, ["--config", "nowhere.json"], "nowhere.json"),
        (
            {"from_scratch": {"class": "json.Net", "config": {}}},
            [],
            "its size with --parameters 7B",
        ),
    ],
)
def test_what_cannot_be_known_is_said(
    folder: Path, model: dict[str, Any], options: list[str], words: str
) -> None:
    with pytest.raises(ClusterLMError, match=words.replace("(", r"\(")):
        plan(write_job(folder, model, {}), *options)


def test_a_type_that_is_not_in_the_table_is_counted_by_transformers(folder: Path) -> None:
    config = {"model_type": "stablelm", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 99}
    (folder / "m8" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 4}))
    code, text = plan(write_job(folder, {"name": "./m8"}, {}, mem="2T"), "--json")
    found = json.loads(text)
    assert code == 0
    # embedding, head, and two layers of 4 x 64 x 64 (32 key heads of 16) and 3 x 64 x 6912
    assert 2 * 99 * 64 + 2 * 3 * 64 * 6912 < found["model"]["parameters"] < 3_500_000
    assert any("all parameters counted" in note for note in found["notes"])


def test_of_a_toy_or_a_cpu_no_speed_is_claimed(folder: Path) -> None:
    toy = {"from_scratch": {"class": "LlamaForCausalLM", "config": {"hidden_size": 64}}}
    job = write_job(folder, toy, {"max_steps": 9}, mem="2T")
    code, text = plan(job, "--parameters", "200K")
    assert code == 0
    assert "as small as" in text
    assert "tokens/s" not in text
    _, text = plan(job, "--set", "resources.gpus_per_node=0", "--set", "resources.gpu_type=null")
    assert "no speed of a CPU is assumed" in text


def test_a_run_is_planned_by_its_name_beside_what_it_measured(folder: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from clusterlm.spec.load import load_job

    job = write_job(folder, {"from_scratch": {"class": "json.Net", "config": {"width": 8}}}, {})
    run = folder / "runs" / "t"
    (run / "model").mkdir(parents=True)
    (run / "events.jsonl").touch()
    (run / "spec.json").write_text(load_job(Path(job)).job.model_dump_json(by_alias=True))
    rows = [{"tokens_per_s": 800.0 * k, "peak_memory": 2**30 * k} for k in (1, 2, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_file({"w": np.zeros((1000, 200), np.float32)}, run / "model" / "model.safetensors")
    (run / "model" / "config.json").write_text('{"model_type": "net", "width": 8}')
    for named in ("t", job):
        code, text = plan(named)
        assert code == 0
        assert "200K parameters" in text
        assert "measured  run t: 2.00 GiB of a rank at most, planned" in text
        assert "200 tokens/s per rank" in text
    found = json.loads(plan(job, "--set", "train.micro_batch_size=2", "--json")[1])
    assert found["measured"] is None
    assert found["tokens_per_s"] is None
    with pytest.raises(ClusterLMError, match="no run 'absent'"):
        plan("absent")
    with pytest.raises(ClusterLMError, match="--set changes a YAML"):
        plan("t", "--set", "train.micro_batch_size=2")


def test_check_warns_of_what_is_certain_and_only_then(folder: Path) -> None:
    def check(train: dict[str, Any], **resources: Any) -> str:
        job = write_job(folder, {"name": "./m8"}, train, **resources)
        done = CliRunner().invoke(app, ["check", "--offline", job])
        assert done.exit_code == 0, done.output
        return done.output

    assert "DOES NOT FIT" in check({}, gpu_type="v100-16")
    assert "DOES NOT FIT" not in check({}, gpu_type="b200", mem="2T")
    assert "DOES NOT FIT" not in check({}, gpu_type="big", mem="2T")


def test_every_job_of_the_repository_fits(folder: Path) -> None:
    jobs = sorted((Path(__file__).parents[2] / "jobs").glob("*.yaml"))
    assert jobs
    for job in jobs:
        # a class of the user's own is never run to count its weights
        size = ["--parameters", "200K"] if job.stem == "own-class" else []
        code, text = plan(str(job), "--json", *size)
        assert code == 0, f"{job.name}: {text}"
