"""Files over a line that is cut: what has come is gone on with, and arrives whole.

`go_there`: data of a submit, a large file and small ones; `come_back`: `clusterlm fetch` of a
model. Both are cut three times, and may cost no more than SPARE times their bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
import time
from pathlib import Path

from tests.chaos.far import FarCluster, Laptop

NUM_CUTS = 3
SPARE = 1.3
# the large one goes by itself, the small ones in one stream
LARGE_BYTES, SMALL_BYTES, NUM_SMALL = 18_000_000, 1_000_000, 2
JOB = """
name: x
cluster: openssh
resources: {nodes: 1, cpus_per_node: 1, time: 5m}
data:
  tokenizer: {train: {vocab_size: 300}}
  block_size: 16
  sources: [{kind: text, path: data/*.txt}]
model: {from_scratch: {class: LlamaForCausalLM, config: {hidden_size: 16, num_hidden_layers: 1,
  num_attention_heads: 2, intermediate_size: 16}}}
train: {mode: full, max_steps: 2}
"""


def go_there(far: FarCluster, user: Laptop, backend: str, seed: int) -> list[str]:
    """Submit a job with data; gives what is wrong. The run is `cut-files-BACKEND`."""
    project = user.folder / f"files-{backend}"
    (project / "data").mkdir(parents=True)
    (project / "job.yaml").write_text(JOB)
    contents = _contents()
    for number, content in enumerate(contents):
        (project / "data" / f"{number}.txt").write_bytes(content)
    words = ["submit", "job.yaml", "--cluster", backend, "--name", f"cut-files-{backend}"]
    faults = _through_cuts(user, project, words, sum(map(len, contents)), random.Random(seed))
    for content in contents:
        sha256 = hashlib.sha256(content).hexdigest()
        blob = far.folder / "objects" / sha256[:2] / sha256
        if not blob.is_file() or blob.read_bytes() != content:
            faults.append(f"a file of {len(content)} bytes has not arrived whole")
    return [f"{backend}, data: {fault}" for fault in [*faults, *far.unfinished()]]


def come_back(far: FarCluster, user: Laptop, backend: str, seed: int) -> list[str]:
    """Fetch a model of the run of `go_there`; gives what is wrong."""
    run = f"cut-files-{backend}"
    model = far.runs / run / "model"
    model.mkdir()
    contents = _contents()
    for number, content in enumerate(contents):
        (model / f"{number}.safetensors").write_bytes(content)
    project = user.folder / f"files-{backend}"
    size = sum(map(len, contents))
    faults = _through_cuts(user, project, ["fetch", run], size, random.Random(seed))
    for number, content in enumerate(contents):
        file = project / run / "model" / f"{number}.safetensors"
        if not file.is_file() or file.read_bytes() != content:
            faults.append(f"{file.name} has not arrived whole")
    left = [path.name for path in (project / run).rglob("*") if ".part" in path.name]
    return [f"{backend}, fetch: {fault}" for fault in [*faults, *left]]


def _contents() -> list[bytes]:
    sizes = [LARGE_BYTES, *[SMALL_BYTES] * NUM_SMALL]
    # text that no line could make smaller by much
    return [base64.b64encode(os.urandom(size))[:size] for size in sizes]


def _through_cuts(
    user: Laptop, project: Path, words: list[str], size: int, dice: random.Random
) -> list[str]:
    """Type a command, and cut the line when further parts of `size` have passed."""
    proxy = user.proxy
    before = proxy.num_bytes
    # the first break after some of it; each further one as much later
    at = sorted(dice.uniform(0.05, 0.95) * size for _ in range(NUM_CUTS))
    over = threading.Event()
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        while not over.wait(0.002) and at:
            if proxy.num_bytes - before >= at[0]:
                del at[0]
                proxy.cut()
                cuts += 1

    thread = threading.Thread(target=cut)
    # else all is gone in the time of a look
    proxy.delay(0.002)
    thread.start()
    began = time.monotonic()
    code, _, err = user.types(project, *words)
    took_s = time.monotonic() - began
    over.set()
    thread.join()
    proxy.delay(0)
    passed = proxy.num_bytes - before
    print(f"{' '.join(words[:2])}: {passed / size:.2f} x {size} bytes, {cuts} cuts, {took_s:.0f} s")
    faults = [f"exit {code}: {err[-300:]}"] if code else []
    if cuts < NUM_CUTS:
        faults.append(f"was cut {cuts} times only")
    if passed > SPARE * size:
        faults.append(f"{passed} bytes for {size}")
    return faults
