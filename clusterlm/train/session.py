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
from clusterlm.train.blocks import BlockDataset, collate_blocks, first_batches
from clusterlm.train.build_lock import watch_build_locks
from clusterlm.train.callbacks import NothingLeft, SaveRhythm, StopAgreement
from clusterlm.train.checkpoints import CheckpointStore, checkpoint_step
from clusterlm.train.clock import StartClock
from clusterlm.train.deepspeed import choose_deepspeed, join_deepspeed
from clusterlm.train.final import save_final
from clusterlm.train.fsdp import refuse_unknown_layers, use_on_cpu
from clusterlm.train.group import Group, join_group, leave_group
from clusterlm.train.model import make_model
from clusterlm.train.opened import block_size, open_same_cache
from clusterlm.train.progress import Progress
from clusterlm.train.rank import Rank, trains_on_cpu
from clusterlm.train.recorder import Recorder
from clusterlm.train.reporting import start_tracking
from clusterlm.train.resume import RECORD, Batch, changes, go_on
from clusterlm.train.speed import explain_speed, set_allocator, speed_line
from clusterlm.train.stop import StopRequest
from clusterlm.train.trainer import BlockTrainer, trust_own_checkpoints
from clusterlm.train.universal import suit_checkpoint
from clusterlm.train.watching import Watchers, make_watchers


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
    patience = job.train.further_arguments.get("ddp_timeout")
    group = join_group(on_cpu=on_cpu, local_rank=rank.local_rank, timeout_s=patience)
    clock.mark("process group")
    cache = open_same_cache(rank, group)
    rank = suit_checkpoint(rank, progress)
    session = Session(job, rank, group, cache, stop, clock, progress)
    clock.mark("data")
    track(session)
    trainer, agreement, watchers = make_trainer(session, on_cpu=on_cpu)
    progress.say(speed_line([*explain_speed(job, on_cpu=on_cpu), trainer.explain_head()]))
    clock.mark("model")
    finished = not group.any(stop.asked())
    if finished:
        finished = run_steps(session, trainer, agreement, watchers)
    if finished and not rank.only_measures:
        progress.show(text="saving model", now=True)
        save_final(trainer, rank.model_dir, trainer.store, group)
        progress.say(f"model saved in {rank.model_dir}")
        progress.show(text="done", now=True)
    # rank 0 may still be sealing the last checkpoint: nobody leaves before
    trainer.store.finish()
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


def make_trainer(session: Session, *, on_cpu: bool) -> tuple[BlockTrainer, StopAgreement, Watchers]:
    """Arguments first, then the model: DeepSpeed's part decides how its weights are loaded."""
    job, rank, cache = session.job, session.rank, session.cache
    train, validation = open_splits(cache, job.train.seed)
    validation = None if rank.only_measures else validation
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
    model = make_model(
        job,
        block_size=block_size(cache),
        tokenizer=tokenizer,
        on_cpu=on_cpu,
        say=session.progress.say,
        sample=partial(first_batches, train, job.train.micro_batch_size),
    )
    refuse_unknown_layers(job, model)
    batch = place_data(session, args, train)
    watchers = watch(session, args, train, model, tokenizer)
    trainer = BlockTrainer(
        store=make_store(session, batch),
        meter=watchers.meter,
        sparse_logits=job.train.sparse_logits,
        args=args,
        model=model,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collate_blocks,
        processing_class=tokenizer,
        callbacks=[SaveRhythm(saves=not rank.only_measures), agreement, *watchers.callbacks()],
    )
    trainer.remove_callback(PrinterCallback)
    if on_cpu and job.train.strategy == "fsdp":
        use_on_cpu(trainer)
    return trainer, agreement, watchers


def place_data(session: Session, args: TrainingArguments, train: BlockDataset) -> Batch:
    """Begin the data where the checkpoint stands, also when a step takes more or fewer blocks."""
    now, resume_from = Batch.of(args, session.rank.world_size), session.rank.resume_from
    if resume_from is None:
        return now
    before = Batch.read(resume_from)
    for line in changes(now, before):
        session.progress.say(line)
    now = go_on(now, before, step=checkpoint_step(resume_from), num_blocks=len(train))
    train.order.moved = now.moved
    return now


def make_store(session: Session, batch: Batch) -> CheckpointStore:
    """Where checkpoints go; each is told when it is sealed."""
    return CheckpointStore(
        session.rank.checkpoints,
        session.rank.attempt,
        session.job.train.keep_checkpoints,
        session.group,
        in_background=session.job.train.save_in_background,
        notes={RECORD: batch.to_json()},
        report=lambda saved: session.progress.say(saved.words),
    )


def open_splits(cache: Cache, seed: int) -> tuple[BlockDataset, BlockDataset | None]:
    """What is trained on, and what is held back, if there is something."""
    held_back = "validation"
    train = BlockDataset(cache.split("train"), seed)
    if held_back not in cache.splits:
        return train, None
    return train, BlockDataset(cache.split(held_back), seed)


def start_deepspeed(session: Session, *, on_cpu: bool) -> dict[str, Any] | None:
    """Its JSON, once it has joined the ranks; None with another strategy."""
    config = choose_deepspeed(
        session.job,
        session.rank,
        on_cpu=on_cpu,
        gpu_bytes=None if on_cpu else smallest_gpu(session),
        say=session.progress.say,
    )
    if config is not None:
        text = "starting DeepSpeed (the first time on a machine it compiles a part of itself)"
        session.progress.show(text=text, now=True)
        watch_build_locks(partial(tell_of_lock, session.progress))
        join_deepspeed(on_cpu=on_cpu)
        session.clock.mark("DeepSpeed")
    return config


def tell_of_lock(progress: Progress, words: str) -> None:
    """In the log of whichever rank hangs; `status` and `why` show it of rank 0."""
    print(f"[clusterlm] {words}", flush=True)
    progress.show(text=words, now=True)


def smallest_gpu(session: Session) -> float:
    """Its memory, over all ranks, in bytes: they must choose alike."""
    own = torch.cuda.get_device_properties(session.rank.local_rank).total_memory
    return min(row[0] for row in session.group.gather_numbers([float(own)]))


def track(session: Session) -> None:
    """Set up the trackers of train.report_to; what is missing is said before the model loads."""
    report_to = session.job.train.further_arguments.get("report_to")
    for note in start_tracking(report_to, session.rank.run, session.job.name, os.environ):
        session.progress.say(note)


def watch(session: Session, args: Any, train: BlockDataset, model: Any, tokenizer: Any) -> Watchers:
    """The guard and the meter of this rank; rank 0 writes."""
    rank, splits = session.rank, session.cache.manifest["splits"]
    writer = Recorder(rank.metrics_file, session.progress, session.clock) if rank.is_first else None
    return make_watchers(
        session.job,
        session.group,
        args,
        train,
        model=model,
        tokenizer=tokenizer,
        has_padding=bool(splits["train"].get("padding", 1)),
        recorder=writer,
    )


def run_steps(session: Session, trainer: Any, agreement: StopAgreement, watchers: Watchers) -> bool:
    """Train from the beginning or the checkpoint; says whether the last step was reached."""
    resume_from = session.rank.resume_from
    done = checkpoint_step(resume_from) if resume_from else -1
    watchers.go_on_after(done, session.rank.metrics_file)
    # only before the very first step: what a checkpoint holds was evaluated in its time
    trainer.args.eval_on_start = trainer.args.eval_on_start and not resume_from
    if resume_from:
        trust_own_checkpoints()
        session.progress.say(f"resuming from {resume_from.name}")
    session.progress.show(text="preparing the first step", now=True)
    try:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except NothingLeft:
        session.progress.say("every step was trained before; only the model is saved")
    return not agreement.stopped
