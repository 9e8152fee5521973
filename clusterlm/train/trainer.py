"""transformers' Trainer with two things changed: the order of the blocks, and what a save is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers.trainer
import transformers.trainer_utils
from torch.utils.data import Sampler
from transformers import Trainer

from clusterlm.train.checkpoints import CheckpointStore


class BlockTrainer(Trainer):  # type: ignore[misc]
    """Trains on a `BlockDataset` and saves through a `CheckpointStore`."""

    def __init__(self, *, store: CheckpointStore, **trainer: Any) -> None:
        super().__init__(**trainer)
        self.store = store

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        order: Sampler[int] = self.train_dataset.order
        return order

    # not a callback: evaluation may lie between the end of a step and the save
    def _save_checkpoint(self, *model_and_trial: Any, **named: Any) -> None:
        with self.store.writing(self.state.global_step):
            super()._save_checkpoint(*model_and_trial, **named)


def trust_own_checkpoints() -> None:
    """Let a torch before 2.6 resume.

    transformers refuses every torch.load there, since a file made for it could run code
    (CVE-2025-32434); optimizer and random states have no other format, so the torch of older NGC
    images could save and never go on. What is resumed here was written by this run and is verified
    against its manifest. Models of others are still loaded from safetensors alone.
    """
    for module in (transformers.trainer, transformers.trainer_utils):
        if hasattr(module, "check_torch_load_is_safe"):
            module.check_torch_load_is_safe = lambda: None
    # what the state of numpy's generator is made of; transformers names it from torch 2.6 on
    state = np.zeros(1, dtype=np.uint32)
    parts: list[Any] = [np.ndarray, np.dtype, type(state.dtype), state.__reduce__()[0]]
    torch.serialization.add_safe_globals(parts)
    # several ranks on the CPU: the Trainer asks for "cpu:0", which an older torch does not know
    torch.serialization.register_package(
        5, lambda _: None, lambda storage, place: storage if place == "cpu:0" else None
    )
