"""transformers' Trainer with some things changed.

the order of the blocks    is ours
what is logged             has the figures of a Meter beside the loss
an evaluation              is exact: sums over the labels of all ranks (train/evaluation.py)
a save                     goes through a CheckpointStore, under the names in memory
the loss                   where sources have role weights, a mean weighted by them
no cache of keys           with one, attention would cross documents
logits                     in training, only where there is a label (`supervised_loss.py`)
FlashAttention             is told where documents begin (`flat_rows.py`)
"""

# B = blocks, T = tokens of a block, V = vocabulary

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers.trainer
import transformers.trainer_utils
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from clusterlm.data.blocks import IGNORE_INDEX
from clusterlm.train.blocks import widen_ids
from clusterlm.train.checkpoints import CheckpointStore
from clusterlm.train.evaluate import Sums
from clusterlm.train.evaluation import Share, metrics_of, score_share, share_of
from clusterlm.train.flat_rows import lay_rows_flat
from clusterlm.train.meter import Meter
from clusterlm.train.saved_names import own_names, refuse_partial_load
from clusterlm.train.supervised_loss import SupervisedHead, find_head, loss_of_labels


class BlockTrainer(Trainer):  # type: ignore[misc]
    """Trains on a `BlockDataset` and saves through a `CheckpointStore`."""

    def __init__(
        self,
        *,
        store: CheckpointStore,
        meter: Meter | None = None,
        sparse_logits: bool = True,
        **trainer: Any,
    ) -> None:
        config = getattr(trainer.get("model"), "config", None)
        keeps_keys = getattr(config, "use_cache", None)
        super().__init__(**trainer)
        self.store = store
        self.meter = meter
        self.weighs_labels = bool(getattr(self.train_dataset, "has_weights", False))
        if self.weighs_labels:
            # whether the loss is divided by all labels of a step is decided here, not by the model
            self.model_accepts_loss_kwargs = True
        self._keeps_keys = keeps_keys
        self._keep_keys(False)
        self.head, self._why_head = self._find_head(sparse_logits)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The loss of a micro batch; of a weighted one, its part of the step's weighted mean."""
        if self._wants_flat_rows:
            inputs = lay_rows_flat(inputs)
        outputs = None
        if self.head is not None and not return_outputs:
            loss = loss_of_labels(self.head, model, inputs, num_items_in_batch)
        elif "loss_weights" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            inputs = dict(inputs)
            labels_BT, weights_BT = inputs.pop("labels"), inputs.pop("loss_weights")
            outputs = model(**inputs)
            loss = weighted_loss(outputs["logits"], labels_BT, weights_BT, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # what is divided by the labels of all ranks is averaged over the ranks once more
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def explain_head(self) -> tuple[str, bool, str]:
        """Whether logits without a label are left out, for a reader."""
        return "logits of labels alone", self.head is not None, self._why_head

    def _find_head(self, asked: bool) -> tuple[SupervisedHead | None, str]:
        if not asked:
            return None, "sparse_logits: false"
        if self.args.use_liger_kernel:
            return None, "Liger fuses the last layer with the loss"
        if self.args.torch_compile:
            return None, "their number changes, and a compiled model wants one shape"
        if self.label_smoother is not None:
            return None, "label smoothing has a loss of its own"
        return find_head(self.model)

    @property
    def _wants_flat_rows(self) -> bool:
        config = getattr(self.model, "config", None)
        return str(getattr(config, "_attn_implementation", "")).startswith("flash")

    def _get_num_items_in_batch(self, samples: Sequence[dict[str, Any]], *device: Any) -> Any:
        """What the losses of the micro batches of a step are to be divided by together."""
        if not samples or "loss_weights" not in samples[0]:
            return super()._get_num_items_in_batch(samples, *device)
        weights = [label_weights(batch["labels"], batch["loss_weights"]).sum() for batch in samples]
        total = torch.stack(weights).sum().to(self.args.device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared = widen_ids(super()._prepare_inputs(inputs))
        if "loss_weights" in inputs:
            # DeepSpeed has them in the type of the model now, which is too coarse for a sum
            prepared["loss_weights"] = inputs["loss_weights"].to(self.args.device)
        return prepared

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *count: Any) -> Any:
        """The micro batches of a step; the meter looks at them as they come."""
        watched = self.meter.watch(epoch_iterator) if self.meter else epoch_iterator
        return super().get_batch_samples(watched, *count)

    def log(self, logs: dict[str, Any], *start_time: Any) -> None:
        """Log the loss with what was measured since the line before; on all ranks."""
        if self.meter is not None and "loss" in logs:
            logs |= self.meter.take(self.state.global_step)
        super().log(logs, *start_time)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """This rank's share of the blocks; never prepared by accelerate, which doubles some."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return DataLoader(
            dataset,
            batch_sampler=self._eval_share(dataset).batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    def evaluation_loop(
        self, dataloader: Any, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """The exact loss, perplexity and token accuracy over all labels of all ranks."""
        model = self.model
        if not self.accelerator._models:
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        for part in (model, self.optimizer):
            # an optimizer has one where it trains without a schedule
            if hasattr(part, "eval"):
                part.eval()
        sums = score_share(
            model,
            self._told(dataloader),
            num_real=self._eval_share(dataloader.dataset).num_real,
            prepare=self._prepare_for_scoring,
            precision=self.compute_loss_context_manager,
        )
        found = metrics_of(Sums.unpacked(self.accelerator.reduce(sums, reduction="sum")))
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))

    def _told(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch
            place: tuple[Any, ...] = (self.args, self.state, self.control)
            self.control: Any = self.callback_handler.on_prediction_step(*place)

    def _prepare_for_scoring(self, inputs: dict[str, Any]) -> dict[str, Any]:
        prepared = self._prepare_inputs(inputs)
        return lay_rows_flat(prepared) if self._wants_flat_rows else prepared

    def _eval_share(self, dataset: Any) -> Share:
        place = {"rank": self.args.process_index, "ranks": self.args.world_size}
        return share_of(len(dataset), self.args.eval_batch_size, **place)

    # transformers tells documents apart by their positions only where no keys are kept for later;
    # 4.57 keeps them unless told otherwise, and so may who uses the trained model
    def _keep_keys(self, keep: bool | None) -> None:
        config = getattr(self.model, "config", None)
        if config is not None and self._keeps_keys is not None:
            config.use_cache = keep

    def _save(self, *where: Any, **named: Any) -> None:
        self._keep_keys(self._keeps_keys)
        try:
            super()._save(*where, **named)
        finally:
            self._keep_keys(False)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        order: Sampler[int] = self.train_dataset.order
        return order

    # not a callback: evaluation may lie between the end of a step and the save
    def _save_checkpoint(self, *model_and_trial: Any, **named: Any) -> None:
        with self.store.writing(self.state.global_step), own_names(self.model):
            super()._save_checkpoint(*model_and_trial, **named)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        refuse_partial_load(self.model, load_result)
        super()._issue_warnings_after_load(load_result)


def label_weights(labels_BT: torch.Tensor, weights_BT: torch.Tensor) -> torch.Tensor:
    """What each label counts, 0 where it is ignored; the first of a block has no prediction."""
    return torch.where(labels_BT == IGNORE_INDEX, 0.0, weights_BT)[:, 1:]


def weighted_loss(
    logits_BTV: torch.Tensor,
    labels_BT: torch.Tensor,
    weights_BT: torch.Tensor,
    total: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """The weighted mean of the losses of all labels.

    Args:
        logits_BTV: of the model; those at a token predict the next.
        labels_BT: not shifted.
        weights_BT: what each label counts.
        total: divide by this instead of the weight of these labels.
    """
    weights = label_weights(labels_BT, weights_BT).flatten()
    losses = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1).float(),
        labels_BT[:, 1:].flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    whole = weights.sum() if total is None else torch.as_tensor(total, device=weights.device)
    # where nothing counts, nothing is learned
    return (losses * weights).sum() / whole.clamp(min=1e-8)


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
