"""One attempt of a training in one rank, once the heavy libraries may be imported.

process group -> prepared data -> arguments -> model -> train -> save, open again
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoTokenizer, PrinterCallback, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from clusterlm.data.cache import Cache
from clusterlm.errors import TrainError
from clusterlm.spec.job import Job
from clusterlm.train.arguments import make_arguments
from clusterlm.train.blocks import BlockDataset, collate_blocks, count_tokens
from clusterlm.train.callbacks import LossGuard, NothingLeft, Recorder, SaveRhythm, StopAgreement
from clusterlm.train.checkpoints import CheckpointStore, checkpoint_step
from clusterlm.train.clock import StartClock
from clusterlm.train.deepspeed import choose_deepspeed, join_deepspeed
from clusterlm.train.final import save_final
from clusterlm.train.group import Group, join_group, leave_group
from clusterlm.train.metrics import drop_lines_after
from clusterlm.train.model import make_model
from clusterlm.train.opened import block_size, open_same_cache
from clusterlm.train.pace import Pace
from clusterlm.train.progress import Progress
from clusterlm.train.rank import Rank, trains_on_cpu
from clusterlm.train.speed import explain_speed, set_allocator, speed_line
from clusterlm.train.stop import StopRequest
from clusterlm.train.trainer import BlockTrainer, trust_own_checkpoints


@dataclass(frozen=True)
class Session:
    """What every part of an attempt needs."""

    job: Job
    rank: Rank
    group: Group
    cache: Cache
    stop: StopRequest
    clock: StartClock
    progress: Progress


def train_model(job: Job, rank: Rank, stop: StopRequest, clock: StartClock) -> bool:
    """Train to the end (True), or until asked to stop and saved (False)."""
    # bars are for terminals; in a log they are one endless line
    disable_progress_bar()
    on_cpu = choose_device(job)
    set_allocator(os.environ, on_cpu=on_cpu)
    progress = Progress(speaks=rank.is_first)
    group = join_group(on_cpu=on_cpu, local_rank=rank.local_rank)
    clock.mark("process group")
    cache = open_same_cache(rank, group)
    session = Session(job, rank, group, cache, stop, clock, progress)
    clock.mark("data")
    trainer, agreement = make_trainer(session, on_cpu=on_cpu)
    clock.mark("model")
    finished = not group.any(stop.asked())
    if finished:
        finished = run_steps(session, trainer, agreement)
    if finished:
        progress.show(text="saving model", now=True)
        save_final(trainer, rank.model_dir, trainer.store, group)
        progress.say(f"model saved in {rank.model_dir}")
        progress.show(text="done", now=True)
    # rank 0 may still be sealing the last checkpoint: nobody leaves before
    group.barrier()
    leave_group()
    return finished


def choose_device(job: Job) -> bool:
    """Whether this rank trains on the CPU; a GPU that was asked for and is not seen is an error."""
    if trains_on_cpu(job, os.environ):
        return True
    if not torch.cuda.is_available():
        raise TrainError(
            f"resources.gpus_per_node is {job.resources.gpus_per_node}, but torch "
            f"{torch.__version__} sees no GPU on this node; `nvidia-smi` there tells more, and "
            "gpus_per_node: 0 trains on the CPU"
        )
    return False


def make_trainer(session: Session, *, on_cpu: bool) -> tuple[BlockTrainer, StopAgreement]:
    """Arguments first, then the model: DeepSpeed's part decides how its weights are loaded."""
    job, rank, cache = session.job, session.rank, session.cache
    train, validation = open_splits(cache, job.train.seed)
    args = make_arguments(
        job,
        output_dir=rank.checkpoints,
        world_size=rank.world_size,
        on_cpu=on_cpu,
        validates=validation is not None,
        deepspeed=start_deepspeed(session, on_cpu=on_cpu),
    )
    session.progress.show(text="loading model", now=True)
    tokenizer = AutoTokenizer.from_pretrained(cache.tokenizer_dir)
    agreement = StopAgreement(session.stop, session.group)
    keep = job.train.keep_checkpoints
    trainer = BlockTrainer(
        store=CheckpointStore(rank.checkpoints, rank.attempt, keep, session.group),
        sparse_logits=job.train.sparse_logits,
        args=args,
        model=make_model(job, block_size=block_size(cache), tokenizer=tokenizer),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate_blocks,
        processing_class=tokenizer,
        callbacks=[LossGuard(), SaveRhythm(), agreement, *make_recorder(session, args, len(train))],
    )
    trainer.remove_callback(PrinterCallback)
    parts = [*explain_speed(job, on_cpu=on_cpu), trainer.explain_head()]
    session.progress.say(speed_line(parts))
    return trainer, agreement


def open_splits(cache: Cache, seed: int) -> tuple[BlockDataset, BlockDataset | None]:
    """What is trained on, and what is held back, if there is something."""
    held_back = "validation"
    train = BlockDataset(cache.split("train"), seed)
    if held_back not in cache.splits:
        return train, None
    return train, BlockDataset(cache.split(held_back), seed)


def start_deepspeed(session: Session, *, on_cpu: bool) -> dict[str, Any] | None:
    """Its JSON, once it has joined the ranks; None with another strategy."""
    config = choose_deepspeed(session.job, session.rank, on_cpu=on_cpu)
    if config is not None:
        text = "starting DeepSpeed (the first time on a machine it compiles a part of itself)"
        session.progress.show(text=text, now=True)
        join_deepspeed(on_cpu=on_cpu)
        session.clock.mark("DeepSpeed")
    return config


def make_recorder(session: Session, args: TrainingArguments, num_blocks: int) -> list[Recorder]:
    """The one that writes for all; only rank 0 has it."""
    if not session.rank.is_first:
        return []
    per_pass = args.per_device_train_batch_size * args.gradient_accumulation_steps
    tokens_at = partial(
        count_tokens,
        num_blocks=num_blocks,
        blocks_per_step=per_pass * session.rank.world_size,
        block_size=block_size(session.cache),
    )
    metrics = session.rank.metrics_file
    return [Recorder(metrics, session.progress, Pace(tokens_at), session.clock)]


def run_steps(session: Session, trainer: Any, agreement: StopAgreement) -> bool:
    """Train from the beginning or the checkpoint; says whether the last step was reached."""
    resume_from = session.rank.resume_from
    if session.rank.is_first:
        done = checkpoint_step(resume_from) if resume_from else 0
        drop_lines_after(session.rank.metrics_file, done)
    if resume_from:
        trust_own_checkpoints()
        session.progress.say(f"resuming from {resume_from.name}")
    session.progress.show(text="preparing the first step", now=True)
    try:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except NothingLeft:
        session.progress.say("every step was trained before; only the model is saved")
    return not agreement.stopped
