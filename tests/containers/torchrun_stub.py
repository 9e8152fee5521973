"""torch.distributed.run, as far as clusterlm uses it: static wiring, one process a rank."""

import argparse
import os
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
for name in ("nnodes", "nproc-per-node", "node-rank", "master-port", "max-restarts"):
    parser.add_argument(f"--{name}", type=int)
for name in ("master-addr", "rdzv-id"):
    parser.add_argument(f"--{name}")
parser.add_argument("--module", action="store_true")
parser.add_argument("program")
parser.add_argument("words", nargs=argparse.REMAINDER)
asked = parser.parse_args()

ranks = []
for local in range(asked.nproc_per_node):
    env = {
        **os.environ,
        "RANK": str(asked.node_rank * asked.nproc_per_node + local),
        "LOCAL_RANK": str(local),
        "GROUP_RANK": str(asked.node_rank),
        "WORLD_SIZE": str(asked.nnodes * asked.nproc_per_node),
        "LOCAL_WORLD_SIZE": str(asked.nproc_per_node),
        "MASTER_ADDR": asked.master_addr,
        "MASTER_PORT": str(asked.master_port),
    }
    ranks.append(subprocess.Popen([sys.executable, "-m", asked.program, *asked.words], env=env))
while any(rank.poll() is None for rank in ranks):
    if any(rank.poll() for rank in ranks):
        for rank in ranks:
            rank.terminate()
    time.sleep(0.05)
sys.exit(max(abs(rank.returncode) for rank in ranks))
