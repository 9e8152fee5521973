"""What a dry run has proved, and what it could not. Read from its run directory; pure otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator

from clusterlm.node.files import read_json, read_jsonl
from clusterlm.paths import CachePaths, RunPaths
from clusterlm.spec.job import Job

CHECK_LINE = "image: "


def proved(run: RunPaths, small: Job) -> Iterator[str]:
    """One line for each thing that was seen to work."""
    yield "proved:"
    if line := _image_line(run):
        yield f"  {line}"
    fingerprint = (read_json(run.lock) or {}).get("fingerprint")
    manifest = read_json(CachePaths.of(fingerprint).manifest) if fingerprint else None
    if manifest:
        tokens = manifest.get("num_tokens", 0)
        yield f"  preprocess  {tokens:,} tokens of a sample, prepared and read back"
    rows = [row for row in read_jsonl(run.metrics)[0] if isinstance(row.get("loss"), float)]
    ranks = small.resources.world_size
    where = f"{ranks} rank{'s' if ranks > 1 else ''} on {small.resources.nodes} node(s)"
    if rows:
        losses = ", ".join(f"{row['loss']:.3f}" for row in rows)
        yield f"  train       {len(rows)} steps by {where}, loss {losses}"
    elif small.train.command:
        yield f"  train       your own script ended well: {where}"
    if small.resources.gpus_per_node:
        yield f"  GPUs        {small.resources.gpus_per_node} a node, seen by torch"
    if run.model.is_dir():
        uid = run.model.stat().st_uid
        owner = "you" if uid == os.getuid() else f"uid {uid}"
        yield f"  files       checkpoint and model written, owned by {owner}"


def could_not(asked: Job, small: Job, steps: int) -> Iterator[str]:
    """What only the cluster can show."""
    yield "not proved:"
    wanted, had = asked.resources, small.resources
    if (wanted.nodes, wanted.ranks_per_node) != (had.nodes, had.ranks_per_node):
        yield (
            f"  {wanted.nodes} nodes of {wanted.ranks_per_node} ranks "
            f"(here {had.nodes} of {had.ranks_per_node}), so neither speed nor memory per GPU"
        )
    if wanted.gpus_per_node > had.gpus_per_node:
        yield f"  {wanted.gpus_per_node} GPUs a node (here {had.gpus_per_node}), NCCL between them"
    if wanted.nodes > 1:
        yield "  the network between the nodes: InfiniBand, NCCL across nodes"
    if asked.encode_tasks > small.encode_tasks:
        yield f"  {asked.encode_tasks} tasks side by side for the data: here it was one job"
    if asked.cluster != small.cluster:
        yield "  the scheduler: partition, account, time limit (clusterlm check asks for these)"
    if asked.image and small.image and asked.image.runtime != small.image.runtime:
        yield f"  {asked.image.runtime or 'pyxis'} itself: the image ran in docker"
    batch = asked.train.micro_batch_size * had.world_size
    if asked.global_batch_size != batch:
        yield f"  a batch of {asked.global_batch_size} blocks (here {batch}, accumulation 1)"
    yield f"  anything after {steps} steps: the whole data, convergence, full checkpoints"


def _image_line(run: RunPaths) -> str | None:
    """The line of the check inside the image."""
    for log in sorted(run.attempts("train").glob("*/logs/*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if CHECK_LINE in line:
                return CHECK_LINE.strip() + "      " + line.partition(CHECK_LINE)[2]
    return None
