"""Every option of the scripts that the documents use has a row: a place, or a reason."""

from __future__ import annotations

import pytest

from clusterlm.importing import training_flags as tables
from clusterlm.importing.flags import KNOWN
from clusterlm.importing.special_flags import READERS
from clusterlm.importing.training_flags import DATA, MOVED, PLACEHOLDERS, SPECIAL
from clusterlm.spec.job import Job
from tests.importing.conftest import Import

RUADAPT = """
model_name_or_path model_type config_overrides config_name tokenizer_name cache_dir
use_fast_tokenizer model_revision token use_auth_token trust_remote_code torch_dtype
low_cpu_mem_usage llama3_tokenizer
dataset_name dataset_config_name train_file validation_file max_train_samples max_eval_samples
streaming block_size overwrite_cache validation_split_percentage preprocessing_num_workers
keep_linebreaks
peft trainable lora_rank lora_dropout lora_alpha rank_pattern_path alpha_pattern_path
modules_to_save debug_mode peft_path use_dora use_eva attention_4d wsd_constant_part
per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps weight_decay
adam_beta1 adam_beta2 adam_epsilon num_train_epochs lr_scheduler_type warmup_steps save_steps
save_step save_total_limit eval_steps logging_steps bf16 bf16_full_eval log_on_each_node
ddp_timeout deepspeed ddp_bucket_cap_mb find_unused_parameters lr_scheduler_kwargs
resume_from_checkpoint overwrite_output_dir do_train do_eval evaluation_strategy learning_rate
output_dir
"""
PILE = "batch_size accumulation_steps learning_rate epochs max_length warmup_ratio deepspeed"
CHINESE = """
model_name_or_path tokenizer_name_or_path model_type config_overrides config_name tokenizer_name
cache_dir use_fast_tokenizer model_revision use_auth_token torch_dtype
dataset_dir dataset_config_name train_file validation_file max_train_samples max_eval_samples
streaming block_size overwrite_cache validation_split_percentage preprocessing_num_workers
keep_linebreaks data_cache_dir
trainable lora_rank lora_dropout lora_alpha modules_to_save debug_mode peft_path
max_seq_length force_resize_embeddings eval_steps save_steps
fp16 max_steps warmup_ratio weight_decay logging_steps save_strategy logging_strategy
save_total_limit seed ddp_timeout logging_first_step gradient_checkpointing
ddp_find_unused_parameters
base_model lora_model offload_dir output_type output_dir verbose
tokenizer_path data_file with_prompt interactive predictions_file gpus only_cpu alpha load_in_8bit
"""
FASTCHAT = """
model_name_or_path trust_remote_code padding_side data_path eval_data_path lazy_preprocess
cache_dir optim model_max_length
lora_r lora_alpha lora_dropout lora_target_modules lora_weight_path lora_bias q_lora flash_attn
fsdp fsdp_transformer_layer_cls_to_wrap tf32 bf16 evaluation_strategy
temperature repetition_penalty max_new_tokens
"""
IMPRUVER = "config train_path val_path output_dir report_to seed"


@pytest.mark.parametrize("names", [RUADAPT, PILE, CHINESE, FASTCHAT, IMPRUVER])
def test_every_option_of_a_known_script_has_a_row(names: str) -> None:
    assert set(names.split()) - KNOWN == set()


def test_no_option_stands_in_two_tables() -> None:
    own = [
        *MOVED,
        *DATA,
        *tables.SWITCHES,
        *tables.DROPPED,
        *tables.OTHER_COMMANDS,
        *tables.UNCLEAR,
        *SPECIAL,
    ]
    assert len(own) == len(set(own))
    assert set(SPECIAL) == set(READERS)


def test_every_place_is_one_of_a_job() -> None:
    sections = set(Job.model_fields)
    places = [*MOVED.values(), *PLACEHOLDERS, *tables.DEFAULTS]
    places += [place for sets in tables.SWITCHES.values() for place in sets]
    assert {place.partition(".")[0] for place in places} <= sections


def test_no_option_is_lost_in_silence(imports: Import) -> None:
    names = sorted({*RUADAPT.split(), *CHINESE.split(), *FASTCHAT.split()} | {"foo", "bar_baz"})
    values = {name: f"/v/{number}" for number, name in enumerate(names)}
    script = "torchrun train_trainer.py " + " ".join(f"--{n} {v}" for n, v in values.items())
    found = imports(script=script)
    said = found.text + found.left_out + found.unclear
    assert [name for name in names if f"--{name}" not in said] == []


def test_an_unknown_option_is_unclear(imports: Import) -> None:
    found = imports(script="torchrun run_clm.py --foo bar --learning_rate 1e-4")
    assert "--foo bar: is unclear, left out" in found.unclear


def test_a_beginning_of_an_option_is_the_option(imports: Import) -> None:
    script = "torchrun run_clm.py --save_step 7 --num_train_ep 2 --learning_rate=3e-4"
    train = imports(script=script).values["train"]
    assert (train["save_steps"], train["epochs"], train["learning_rate"]) == (7, 2, 3e-4)


def test_the_last_of_two_counts(imports: Import) -> None:
    found = imports(script="torchrun run_clm.py --learning_rate 1e-4 --learning_rate 2e-4")
    assert found.values["train"]["learning_rate"] == 2e-4
    assert "--learning_rate 1e-4: is said twice" in found.unclear


def test_two_options_for_one_thing_that_differ_are_unclear(imports: Import) -> None:
    found = imports(script="torchrun run_clm.py --warmup_ratio 0.1 --warmup_steps 10")
    assert "train.warmup is 0.1 already; which is right?" in found.unclear


def test_what_transformers_takes_by_default_is_written_out(imports: Import) -> None:
    train = imports(script="torchrun run_clm.py --do_train").values["train"]
    assert train == {
        "precision": "fp32",
        "epochs": 3,
        "micro_batch_size": 8,
        "learning_rate": 5e-5,
        "lr_scheduler": "linear",
    }


def test_further_arguments_keep_their_types(imports: Import) -> None:
    script = (
        "torchrun run_clm.py --bf16 --tf32 True --report_to none --optim adamw_torch"
        " --dataloader_num_workers 4 --lr_scheduler_kwargs '{\"min_lr\": 1e-6}' --adam_beta2 .95"
    )
    train = imports(script=script).values["train"]
    assert train["precision"] == "bf16"
    assert (train["tf32"], train["report_to"]) == (True, "none")
    assert (train["dataloader_num_workers"], train["adam_beta2"]) == (4, 0.95)
    assert train["lr_scheduler_kwargs"] == {"min_lr": 1e-6}


@pytest.mark.parametrize(
    ("said", "mode", "has_adapter"),
    [("true", "adapter", True), ("false", "embeddings", False), ("$PEFT", "adapter", True)],
)
def test_ruadapt_without_peft_trains_the_embeddings(
    imports: Import, said: str, mode: str, has_adapter: bool
) -> None:
    found = imports(script=f"torchrun train_trainer.py --peft {said} --lora_rank 8")
    assert found.values["train"]["mode"] == mode
    assert ("adapter" in found.values["model"]) == has_adapter
    assert ("train.mode" in found.draft.to_fill_in) == ("$" in said)


def test_a_token_is_never_written(imports: Import) -> None:
    found = imports(script="export WANDB_API_KEY=abc\ntorchrun run_clm.py --token hf_secret")
    assert found.values["secrets"] == ["WANDB_API_KEY", "HF_TOKEN"]
    assert "hf_secret" not in found.text
    assert "abc" not in found.text + found.left_out


def test_what_looks_like_a_secret_is_not_repeated(imports: Import) -> None:
    script = (
        "pip install --index-url https://me:hidden1@host/simple x\n"
        "torchrun run_clm.py --my_api_key hidden2 --foo hf_hidden3hidden3hidden3"
    )
    text = imports(script=script).text
    assert "hidden" not in text
    assert "--my_api_key ***, --foo ***: is unclear, left out" in text
