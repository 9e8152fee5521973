"""One side of the comparison: `python -m benchmarks.training.side CASE.json NAME`.

    clusterlm   the rank of a run, as `clusterlm submit` starts it
    trl         SFTTrainer, packed best-fit-decreasing; on text, where nothing is padded, "wrapped"
    padded      a plain Trainer, each document a row, padded to the longest of its batch
    padded-max  the same, padded to the block, as many scripts do
    grouped     a plain Trainer on text joined and cut as run_clm does (no padding, no isolation)

All have the model of the case with the same weights and type, AdamW (fused), one learning rate and
no checkpointing of activations.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.training.documents import BLOCK, IGNORE, PACKINGS, documents, prepare
from benchmarks.training.turns import Turns

ENDLESS = 10**7


def main() -> None:
    """Build the side and let it take its turns."""
    case = json.loads(Path(sys.argv[1]).read_text())
    SIDES[sys.argv[2]](case, Turns())


def train_ours(case: dict[str, Any], turns: Turns) -> None:
    """A run directory with the spec, and the training phase in it."""
    packing = PACKINGS[case["kind"]]
    run = Path(case["folder"]) / "run"
    run.mkdir(parents=True, exist_ok=True)
    train: dict[str, Any] = {"precision": case["precision"], "max_steps": ENDLESS}
    train |= {"save_steps": ENDLESS, "micro_batch_size": case["batch"], "lr_scheduler": "constant"}
    model: dict[str, Any] = {"name": case["model"]}
    if case["lora"]:
        train["mode"] = "adapter"
        model["adapter"] = {"r": case["lora"], "alpha": case["lora"]}
    resources = {"processes_per_node": 1, "gpus_per_node": int(case["gpu"])}
    data = {"block_size": case["block"], "packing": packing, "tokenizer": {"name": case["model"]}}
    data["sources"] = [{"kind": "text", "path": case["model"]}]
    spec = {"name": "bench", "resources": resources, "data": data, "model": model, "train": train}
    (run / "spec.json").write_text(json.dumps(spec))
    (run / "LEASE").write_text(json.dumps({"attempt": 1}))
    cache = prepare(case["kind"], packing, case["block"])
    os.environ |= {"CLUSTERLM_RUN_DIR": str(run), "CLUSTERLM_CACHE": str(cache)}
    from clusterlm.train import session, trainer
    from clusterlm.train.loop import run_training

    session.collate_blocks = turns.counted(session.collate_blocks)  # type: ignore[assignment]
    begin = trainer.BlockTrainer.__init__

    def begin_with_turns(self: Any, **values: Any) -> None:
        begin(self, **values)
        self.add_callback(turns)

    trainer.BlockTrainer.__init__ = begin_with_turns  # type: ignore[method-assign]
    run_training(run)


def train_trl(case: dict[str, Any], turns: Turns) -> None:
    """The best packed configuration of TRL that runs here."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    strategy = "bfd" if case["kind"] == "chat" else "wrapped"
    settings = _settings(case) | {"packing": True, "packing_strategy": strategy}
    args = SFTConfig(**settings, max_length=case["block"])
    trainer = SFTTrainer(
        model=_model(case),
        args=args,
        train_dataset=Dataset.from_dict(documents(case["kind"], case["block"])),
        processing_class=_tokenizer(case),
        callbacks=[turns],
    )
    trainer.data_collator = turns.counted(trainer.data_collator)
    trainer.train()


def train_plain(case: dict[str, Any], turns: Turns, *, rows: str) -> None:
    """The Trainer of transformers with the rows that scripts around it make."""
    import torch
    from datasets import Dataset
    from transformers import Trainer, TrainingArguments, default_data_collator

    columns = documents(case["kind"], case["block"])
    if rows == "grouped":
        columns = {name: _grouped(values, case["block"]) for name, values in columns.items()}

    def pad(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(sample["input_ids"]) for sample in samples)
        width = case["block"] if rows == "padded-max" else longest
        fills = {"input_ids": 0, "labels": IGNORE, "attention_mask": 0}
        for sample in samples:
            sample["attention_mask"] = [1] * len(sample["input_ids"])
        return {
            name: torch.tensor([s[name] + [fill] * (width - len(s[name])) for s in samples])
            for name, fill in fills.items()
        }

    trainer = Trainer(
        model=_model(case),
        args=TrainingArguments(**_settings(case)),
        train_dataset=Dataset.from_dict(columns),
        data_collator=turns.counted(default_data_collator if rows == "grouped" else pad),
        callbacks=[turns],
    )
    trainer.train()


SIDES: dict[str, Any] = {
    "clusterlm": train_ours,
    "trl": train_trl,
    **{
        rows: lambda case, turns, rows=rows: train_plain(case, turns, rows=rows)
        for rows in ("padded", "padded-max", "grouped")
    },
}


def _settings(case: dict[str, Any]) -> dict[str, Any]:
    import dataclasses

    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    newer = "activation_checkpointing" in fields
    return {
        "output_dir": case["folder"],
        "per_device_train_batch_size": case["batch"],
        "max_steps": ENDLESS,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "bf16": case["precision"] == "bf16",
        "activation_checkpointing" if newer else "gradient_checkpointing": False,
        "use_cpu": not case["gpu"],
        "save_strategy": "no",
        "report_to": "none",
        "logging_steps": 10,
        "disable_tqdm": True,
        "dataloader_num_workers": 2 if case["gpu"] else 0,
        "dataloader_pin_memory": case["gpu"],
        "use_liger_kernel": case["liger"],
    }


def _model(case: dict[str, Any]) -> Any:
    """From the folder, in the type that our side loads it in."""
    import torch
    from transformers import AutoModelForCausalLM

    kind = torch.bfloat16 if case["lora"] and case["precision"] == "bf16" else torch.float32
    attention = {"attn_implementation": case["attention"]} if case["attention"] else {}
    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=kind, **attention)
    model.config.use_cache = False
    if not case["lora"]:
        return model
    from peft import LoraConfig, get_peft_model

    rank = case["lora"]
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def _tokenizer(case: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(prepare("text", "concat", BLOCK) / "tokenizer")


def _grouped(rows: list[list[int]], size: int) -> list[list[int]]:
    joined = [value for row in rows for value in row]
    return [joined[at : at + size] for at in range(0, len(joined) - size + 1, size)]


if __name__ == "__main__":
    main()
