"""Memory against figures worked out by hand, and the lowest stage that fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clusterlm.plan.activations import logits_bytes
from clusterlm.plan.gpus import GIB
from clusterlm.plan.memory import lowest_stage, memory_per_rank
from clusterlm.plan.setup import Setup, setup_of
from clusterlm.plan.shape import shape_of
from clusterlm.plan.states import persistent_elements, states_of
from clusterlm.plan.zero import read_zero
from clusterlm.spec.job import Job

LLAMA_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
N = 8_030_261_248


def make_job(**sections: Any) -> Job:
    values: dict[str, Any] = {
        "name": "t",
        "resources": {"gpus_per_node": 8} | sections.pop("resources", {}),
        "model": {"name": "m"} | sections.pop("model", {}),
        "data": {
            "tokenizer": {"name": "m"},
            "block_size": 4096,
            "sources": [{"kind": "text", "path": "t.txt"}],
        },
        "train": sections,
    }
    return Job.model_validate(values)


def make_setup(config: dict[str, Any] = LLAMA_8B, **sections: Any) -> Setup:
    shape = shape_of(config)
    assert shape is not None
    return setup_of(make_job(**sections), shape, block_size=4096)


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return {"strategy": "deepspeed", "deepspeed": {"stage": stage, **more}}


def test_zero_3_of_8b_over_8_gpus_is_16_bytes_a_parameter_each_an_eighth() -> None:
    states = states_of(make_setup(**zero(3)))
    total = states.weights + states.master + states.optimizer + states.gradients
    assert total == pytest.approx(16 * N / 8, rel=0.001)


def test_each_stage_splits_one_thing_more() -> None:
    one, two, three = (states_of(make_setup(**zero(stage))) for stage in (1, 2, 3))
    assert one.master == two.master == three.master == 4 * N / 8
    assert (one.gradients, two.gradients) == (2 * N, 2 * N / 8)
    assert (one.weights, two.weights) == (2 * N, 2 * N)
    assert three.weights == pytest.approx(2 * N / 8, rel=0.001)


def test_ddp_keeps_float32_weights_gradients_buckets_and_autocast_copies() -> None:
    states = states_of(make_setup())
    assert (states.weights, states.gradients, states.buckets) == (4 * N, 4 * N, 4 * N)
    assert states.optimizer == 8 * N
    assert states.copies == pytest.approx(2 * N, rel=0.07)
    assert states_of(make_setup(precision="fp32")).copies == 0


def test_frozen_weights_are_kept_in_bf16_and_an_adapter_in_float32() -> None:
    setup = make_setup(mode="adapter", model={"adapter": {"r": 16}})
    # 16 x (inputs + outputs) of q, k, v, o, gate, up, down in 32 layers
    sums = 8192 + 5120 + 5120 + 8192 + 3 * (4096 + 14336)
    assert setup.num_trained == 16 * sums * 32
    states = states_of(setup)
    assert states.weights == 2 * N + 4 * setup.num_trained
    assert states.gradients == 4 * setup.num_trained


def test_modules_to_save_and_patterns_count_as_trained() -> None:
    plain = make_setup(mode="adapter", model={"adapter": {"r": 8}}).num_trained
    saved = {"r": 8, "modules_to_save": ["lm_head", "embed_tokens"]}
    both = make_setup(mode="adapter", model={"adapter": saved}).num_trained
    assert both - plain == 2 * 128256 * 4096
    partial = make_setup(mode="partial", trainable=["lm_head.*", "*.layers.3.*.q_proj.weight"])
    assert partial.num_trained == 128256 * 4096 + 4096 * 4096
    assert make_setup(mode="embeddings").num_trained == 2 * 128256 * 4096


def test_quantised_weights_take_half_a_byte_but_not_the_embeddings() -> None:
    model = {"adapter": {"r": 16}, "quantization": "nf4"}
    states = states_of(make_setup(mode="adapter", model=model))
    assert 5 * GIB < states.weights < 6 * GIB


def test_what_is_offloaded_lies_on_the_host() -> None:
    memory = memory_per_rank(make_setup(**zero(3, offload_optimizer=True)))
    assert "optimizer" not in memory.device
    assert memory.host["offloaded optimizer"] == 8 * N
    assert memory.host["offloaded master"] == 4 * N
    whole = memory_per_rank(make_setup(**zero(3, offload_optimizer=True, offload_parameters=True)))
    assert whole.host["offloaded weights"] == pytest.approx(2 * N, rel=0.001)
    assert whole.peak < memory.peak


def test_logits_are_12_bytes_a_token_and_entry_unless_liger_never_makes_them() -> None:
    setup = make_setup()
    assert logits_bytes(setup) == 12 * 4096 * 128256
    assert logits_bytes(replace(setup, liger=True)) < logits_bytes(setup) / 4


def test_checkpointing_keeps_the_inputs_of_layers_alone() -> None:
    whole = memory_per_rank(make_setup(**zero(3))).device["activations"]
    job = zero(3) | {"activation_checkpointing": True}
    few = memory_per_rank(make_setup(**job)).device["activations"]
    half = memory_per_rank(
        make_setup(**zero(3), activation_checkpointing={"every_n_layers": 2})
    ).device["activations"]
    assert few < 1.1 * 32 * 4096 * 4096 * 2
    assert few < half < whole


def test_every_rank_reads_the_whole_model_on_the_host_unless_it_is_split() -> None:
    assert memory_per_rank(make_setup()).loading > 8 * 4 * N
    assert memory_per_rank(make_setup(**zero(3))).loading < 4 * N * 8 / 3


def test_the_pile_documents_json_keeps_every_weight_of_a_dense_model_whole(
    tmp_path: Path,
) -> None:
    file = tmp_path / "ds.json"
    file.write_text(
        '{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"},'
        ' "offload_optimizer": {"device": "cpu"}, "stage3_param_persistence_threshold": 1e9}}'
    )
    own = read_zero(file, hidden=4096)
    assert own.persists_below == 10**9
    assert own.offload_parameters
    setup = replace(make_setup(), zero=own)
    assert persistent_elements(setup, 10**9) == N
    assert persistent_elements(setup, 40960) < N / 1000
    assert states_of(setup).weights == 2 * N


@pytest.mark.parametrize(
    ("gpu_gib", "ranks", "stage"), [(79.6, 8, 1), (45, 8, 2), (28, 8, 3), (24, 8, None)]
)
def test_the_lowest_stage_that_fits_is_chosen(gpu_gib: float, ranks: int, stage: int) -> None:
    job = make_job(strategy="deepspeed", activation_checkpointing=True)
    assert lowest_stage(job, LLAMA_8B, gpu_gib * GIB, ranks) == stage


def test_of_a_model_that_is_not_known_no_stage_is_chosen() -> None:
    job = make_job(strategy="deepspeed")
    assert lowest_stage(job, {"model_type": "mamba"}, 1e12, 8) is None


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed"])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("mode", ["full", "adapter", "embeddings"])
def test_more_tokens_need_more_and_more_ranks_never_do(
    strategy: str, precision: str, mode: str
) -> None:
    model = {"adapter": {"r": 8}} if mode == "adapter" else {}
    setup = make_setup(strategy=strategy, precision=precision, mode=mode, model=model)
    peak = memory_per_rank(setup).peak
    assert memory_per_rank(replace(setup, micro_batch=4)).peak > peak
    assert memory_per_rank(replace(setup, nodes=4)).peak <= peak
    assert all(size > 0 for size in memory_per_rank(setup).device.values())
