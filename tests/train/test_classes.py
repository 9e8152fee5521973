"""The class of a model: named in every way, also the user's own, whose saved model works alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.train.model import make_model
from tests.train.launching import TINY

OWN = """
from transformers import LlamaConfig, LlamaForCausalLM
from .own_parts import scaled

class OwnConfig(LlamaConfig):
    model_type = "own"
    def __init__(self, logit_scale=1.0, **rest):
        self.logit_scale = logit_scale
        super().__init__(**rest)

class Own(LlamaForCausalLM):
    config_class = OwnConfig
    def forward(self, *inputs, **named):
        found = super().forward(*inputs, **named)
        found.logits = scaled(found.logits, self.config.logit_scale)
        return found

class NoModel: ...
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    file = folder / "own_model.py"
    file.write_text(OWN)
    (folder / "own_parts.py").write_text("def scaled(logits, scale):\n    return logits * scale\n")
    return file


def make(model: dict[str, Any], tokenizer: Any, **train: Any) -> Any:
    job = Job.model_validate({"name": "t", "model": model, "train": train})
    return make_model(job, block_size=32, tokenizer=tokenizer)


def new(class_: str, **config: Any) -> dict[str, Any]:
    return {"from_scratch": {"class": class_, "config": TINY["config"] | config}}


@pytest.mark.parametrize(
    ("class_", "config"),
    [
        ("transformers.LlamaForCausalLM", {}),
        ("transformers.models.llama.modeling_llama.LlamaForCausalLM", {}),
        ("AutoModelForCausalLM", {"model_type": "llama"}),
    ],
)
def test_a_class_may_be_named_in_every_way(
    class_: str, config: dict[str, Any], tokenizer: Any
) -> None:
    model = make(new(class_, **config), tokenizer, seed=1)
    same = make(new("LlamaForCausalLM"), tokenizer, seed=1)
    assert type(model) is type(same)
    assert torch.equal(model.lm_head.weight, same.lm_head.weight)


def test_the_type_of_new_weights_may_be_chosen(tokenizer: Any) -> None:
    model = make(new("LlamaForCausalLM") | {"dtype": "bfloat16"}, tokenizer)
    assert model.dtype == torch.bfloat16


def test_an_own_class_finds_its_neighbours_and_is_saved_with_them(
    own: Path, tmp_path: Path, tokenizer: Any
) -> None:
    model = make(new(f"{own}:Own", logit_scale=3.0), tokenizer)
    assert model.config.logit_scale == 3.0
    ids = torch.arange(8)[None]
    with torch.no_grad():
        expected = model.eval()(ids).logits
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    assert {"own_model.py", "own_parts.py"} <= {path.name for path in saved.iterdir()}
    # gone on with by the spec, and loaded by somebody who has the folder alone
    again = make({"name": str(saved), "class": f"{own}:Own"}, tokenizer)
    remote = make({"name": str(saved), "trust_remote_code": True}, tokenizer)
    for loaded in (again, remote):
        with torch.no_grad():
            torch.testing.assert_close(loaded.eval()(ids).logits, expected)
    code = (
        "import sys; from transformers import AutoModelForCausalLM as A; "
        "m = A.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "assert m.config.logit_scale == 3.0; print(type(m).__name__)"
    )
    moved = shutil.copytree(saved, tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, "-c", code, str(moved)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Own"


def test_code_of_a_model_runs_only_where_that_was_allowed(
    own: Path, tmp_path: Path, tokenizer: Any
) -> None:
    make(new(f"{own}:Own"), tokenizer).save_pretrained(tmp_path)
    with pytest.raises(TrainError, match="write model.trust_remote_code: true"):
        make({"name": str(tmp_path)}, tokenizer)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (new("{own}:NoModel"), "from_scratch.class: .*NoModel has no config_class"),
        (new("{own}:Nothing"), "there is no .*:Nothing"),
        (new("{folder}/away.py:Own"), "away.py is not on this node"),
        (new("{folder}/broken.py:Own"), "broken.py cannot be imported: ZeroDivisionError"),
        (new("no_such_package.Own"), "no_such_package.Own cannot be imported: ModuleNotFound"),
        (new("AutoModelForCausalLM", model_type="lama"), "no model type .*did you mean `llama`"),
    ],
)
def test_what_is_no_class_is_named(
    model: dict[str, Any], words: str, own: Path, tokenizer: Any
) -> None:
    (own.parent / "broken.py").write_text("1 / 0\n")
    scratch = model["from_scratch"]
    named = scratch["class"].format(own=own, folder=own.parent)
    with pytest.raises(TrainError, match=words):
        make({"from_scratch": scratch | {"class": named}}, tokenizer)
