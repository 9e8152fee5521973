"""A DeepSpeed checkpoint for another number of ranks.

Under ZeRO each rank writes its part of the optimizer, and only as many ranks can read them.
DeepSpeed can cut the parts anew (`ds_to_universal`): one file for each weight, which any number of
ranks loads with `checkpoint.load_universal`. Here that is done at the start of an attempt:

    rank 0      checkpoint-50/ -> .universal-50.making/ -> sealed, renamed to universal-50/
    the others  look for it every second; no collective, for one has a time limit

It lies beside the checkpoint, names it by the hash of its MANIFEST, is used again by further
attempts, and goes away with the next checkpoint (`checkpoints.py`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clusterlm.errors import TrainError
from clusterlm.node.files import read_json, write_json
from clusterlm.node.manifest import MANIFEST
from clusterlm.node.seal import seal, verify
from clusterlm.train.checkpoints import checkpoint_step, look_at_lease
from clusterlm.train.progress import Progress
from clusterlm.train.rank import Rank
from clusterlm.train.resume import Batch

PREFIX = "universal-"
SOURCE = "source.json"
LOOK_S = 1.0
# more make it faster, and each holds the part of one rank
NUM_WORKERS = 4


def suit_checkpoint(rank: Rank, progress: Progress) -> Rank:
    """The rank with a checkpoint to resume from that fits the number of ranks.

    Raises:
        Fenced: a newer attempt holds the lease.
        TrainError: the checkpoint cannot be cut anew.
    """
    checkpoint = rank.resume_from
    if checkpoint is None or num_parts(checkpoint) in (0, rank.world_size):
        return rank
    text = f"cutting {checkpoint.name} anew for {rank.world_size} ranks"
    progress.say(f"{text}; it was made by {num_parts(checkpoint)}")
    progress.show(text=text, now=True)
    made = checkpoint.with_name(f"{PREFIX}{checkpoint_step(checkpoint)}")
    if rank.is_first:
        if not is_made(made, checkpoint):
            make_universal(checkpoint, made, attempt=rank.attempt)
    else:
        wait_for(lambda: is_made(made, checkpoint))
    return replace(rank, resume_from=made)


def is_universal(checkpoint: Path | None) -> bool:
    """Whether DeepSpeed must be told that any number of ranks may load it."""
    return checkpoint is not None and checkpoint.name.startswith(PREFIX)


def num_parts(checkpoint: Path) -> int:
    """Ranks whose optimizer states are in it; 0 where these are not split, or without DeepSpeed."""
    split = list(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt"))
    before = Batch.read(checkpoint)
    return before.ranks if split and before is not None else len(split)


def is_made(made: Path, checkpoint: Path) -> bool:
    """Whether `made` is whole and was made of this very checkpoint."""
    source = read_json(made / SOURCE) or {}
    return source.get("manifest") == _digest(checkpoint) and verify(made, full=False) is None


def make_universal(checkpoint: Path, made: Path, *, attempt: int) -> None:
    """Write it aside, seal it, put it in place."""
    aside = made.with_name(f".{made.name}.making")
    for old in (aside, made):
        shutil.rmtree(old, ignore_errors=True)
    aside.mkdir(mode=0o700)
    parts = next(checkpoint.glob("global_step*"))
    _convert(parts, aside / f"{parts.name}_universal")
    for path in sorted(checkpoint.iterdir()):
        # weights for a reader, and the seal of the other folder, are not needed to go on
        if path.is_file() and path.name != MANIFEST and path.suffix != ".safetensors":
            shutil.copy2(path, aside / path.name)
    write_json(aside / SOURCE, {"manifest": _digest(checkpoint), "checkpoint": checkpoint.name})
    look_at_lease()
    seal(aside, step=checkpoint_step(checkpoint), attempt=attempt)
    aside.rename(made)


def wait_for(is_there: Callable[[], bool]) -> None:
    """Look every second; rank 0's failure ends this rank too, through the launcher."""
    while not is_there():
        time.sleep(LOOK_S)


def _convert(source: Path, target: Path) -> None:
    """Run DeepSpeed's program, apart from this process: it starts processes of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"),
            *("--input_folder", str(source), "--output_folder", str(target)),
            *("--num_extract_workers", str(NUM_WORKERS), "--num_merge_workers", str(NUM_WORKERS)),
            "--inject_missing_state",
        ],
        env=os.environ | {"DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:] or ["no word"]
        raise TrainError(
            f"{source.parent.name} could not be cut anew for another number of ranks "
            f"(DeepSpeed: {last[0]}); resume on as many ranks as wrote it"
        )


def _digest(checkpoint: Path) -> str:
    try:
        return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
