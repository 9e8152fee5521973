"""A DeepSpeed JSON becomes the section where that says the same; else it is used as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clusterlm.cli import app
from clusterlm.errors import ClusterLMError
from clusterlm.importing.deepspeed_json import GATHER, read_deepspeed
from clusterlm.importing.draft import Draft
from clusterlm.importing.sources import draft_files
from tests.importing.conftest import Import

AUTO = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
HOST = {"device": "cpu", "pin_memory": True}


def read(config: dict[str, Any]) -> Draft:
    draft = Draft()
    read_deepspeed(config, "ds.json", draft, can_be_used=True)
    return draft


PLAIN = [
    ({"zero_optimization": {"stage": 1}}, {"stage": 1}),
    (
        AUTO
        | {
            "bf16": {"enabled": "auto"},
            "zero_optimization": {
                "stage": 2,
                "overlap_comm": True,
                "contiguous_gradients": True,
                "reduce_bucket_size": "auto",
                "offload_optimizer": HOST,
            },
        },
        {"stage": 2, "offload_optimizer": True},
    ),
    (
        {"zero_optimization": {"stage": 3, GATHER: True, "offload_param": HOST}},
        {"stage": 3, "offload_parameters": True},
    ),
]


@pytest.mark.parametrize(("config", "section"), PLAIN)
def test_what_the_section_says_needs_no_file(
    config: dict[str, Any], section: dict[str, Any]
) -> None:
    draft = read(config)
    assert draft.get("train.deepspeed") == section
    assert draft.unclear == []


MORE = [
    ({"stage": 2, "reduce_bucket_size": 5e8}, "reduce_bucket_size"),
    ({"stage": 1, "round_robin_gradients": True}, "round_robin_gradients"),
    ({"stage": 3, GATHER: True, "offload_param": {"device": "nvme"}}, "offload_param.device"),
    ({"stage": 2, "overlap_comm": False}, "overlap_comm"),
]


@pytest.mark.parametrize(("zero", "key"), MORE)
def test_what_says_more_is_used_as_it_is(zero: dict[str, Any], key: str) -> None:
    draft = read({"zero_optimization": zero})
    assert draft.get("train.deepspeed") == "ds.json"
    assert any(why.endswith(key) for _, why in draft.unclear)


def test_numbers_are_those_of_train() -> None:
    draft = read(
        {
            "zero_optimization": {"stage": 1},
            "gradient_clipping": 0.5,
            "train_micro_batch_size_per_gpu": 4,
            "bf16": {"enabled": True},
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "weight_decay": 0.1}},
            "scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 50}},
        }
    )
    train = draft.get("train")
    assert (train["max_grad_norm"], train["micro_batch_size"]) == (0.5, 4)
    assert (train["learning_rate"], train["weight_decay"], train["warmup"]) == (1e-4, 0.1, 50)
    assert train["precision"] == "bf16"


def test_the_flaws_of_the_piles_file_are_told(imports: Import) -> None:
    unclear = imports("pile.sh").unclear
    assert "splits next to nothing" in unclear
    assert re.search(f"without {GATHER}", unclear)
    assert "bf16 needs no loss scaling" in unclear


def test_a_file_that_the_script_writes_is_read_out_of_it(tmp_path: Path) -> None:
    config = {"zero_optimization": {"stage": 3, "reduce_bucket_size": 7}}
    text = f"cat <<EOF > ds.json\n{json.dumps(config)}\nEOF\ndeepspeed t.py --deepspeed ds.json\n"
    (tmp_path / "run.sh").write_text(text)
    draft = draft_files([tmp_path / "run.sh"])
    assert draft.get("train.deepspeed") == {"stage": 3}
    assert ("ds.json: reduce_bucket_size", "the file itself is not there to be used") in (
        draft.left_out
    )


def test_a_file_that_the_script_writes_goes_beside_the_job(tmp_path: Path) -> None:
    config = {"zero_optimization": {"stage": 3, "reduce_bucket_size": 7}}
    text = f"cat <<EOF > /tmp/ds.json\n{json.dumps(config)}\nEOF\n"
    (tmp_path / "run.sh").write_text(text + "deepspeed t.py --deepspeed /tmp/ds.json\n")
    job = tmp_path / "made" / "job.yaml"
    job.parent.mkdir()
    result = CliRunner().invoke(app, ["import", str(tmp_path / "run.sh"), "-o", str(job)])
    assert "job.yaml, ds.json" in result.stderr
    assert json.loads((job.parent / "ds.json").read_text()) == config
    assert "deepspeed: ds.json" in job.read_text()
    job.unlink()
    with pytest.raises(ClusterLMError, match="ds.json is there already.*--force"):
        app(["import", str(tmp_path / "run.sh"), "-o", str(job)], standalone_mode=False)
    assert not job.exists()


def test_a_file_that_the_shell_would_still_fill_in_is_not_written(tmp_path: Path) -> None:
    text = 'cat > ds.json <<EOF\n{"zero_optimization": {"stage": 2}, "x": "$X"}\nEOF\n'
    (tmp_path / "run.sh").write_text(text + "deepspeed t.py --deepspeed ds.json\n")
    assert not draft_files([tmp_path / "run.sh"], tmp_path).files


def test_a_file_that_is_not_there_is_named(imports: Import) -> None:
    found = imports(script="deepspeed run_clm.py --deepspeed gone.json")
    assert "gone.json: is not beside the script" in found.unclear
    assert found.values["train"]["deepspeed"] == "gone.json"


def test_script_and_json_may_be_given_together(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("deepspeed run_clm.py --deepspeed conf/ds.json --bf16")
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "ds.json").write_text(json.dumps(AUTO | {"zero_optimization": {"stage": 1}}))
    draft = draft_files([tmp_path / "a.sh", other / "ds.json"])
    assert draft.get("train.deepspeed") == {"stage": 1}
