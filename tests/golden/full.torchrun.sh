#!/usr/bin/env bash
# Run ru-cpt, phase train: what one node runs. Made by clusterlm 0.0.0.
# The supervisor starts it once on every node (srun, or directly with cluster: local). By hand:
#   CLUSTERLM_ATTEMPT=1 CLUSTERLM_ATTEMPT_DIR=... bash torchrun.sh
# Values stand between single quotes so that nothing in them expands.
# shellcheck disable=SC2016
set -euo pipefail

# Set by the supervisor for each attempt; a clear stop here beats a puzzle later.
: "${CLUSTERLM_ATTEMPT:?is set by the supervisor}" "${CLUSTERLM_ATTEMPT_DIR:?is set by the supervisor}"

export CLUSTERLM_RUN=ru-cpt
export CLUSTERLM_RUN_DIR=/shared/runs/ru-cpt
export CLUSTERLM_PHASE=train
export CLUSTERLM_CHECKPOINT_DIR=/shared/runs/ru-cpt/checkpoints
export CLUSTERLM_MODEL_DIR=/shared/runs/ru-cpt/model
export CLUSTERLM_METRICS_FILE=/shared/runs/ru-cpt/metrics.jsonl
export CLUSTERLM_CACHE=/shared/cache/ffffffffffffffffffffffffffffffff
export CLUSTERLM_CACHE_DIR=/shared/cache
export CLUSTERLM_STOP_FILE="$CLUSTERLM_ATTEMPT_DIR/stop.json"
export CLUSTERLM_PROGRESS_FILE="$CLUSTERLM_ATTEMPT_DIR/progress.json"
export CLUSTERLM_STOP_GRACE=120
# A private file; the agent reads it, so that no value stands in a script, an argv or an accounting record.
export CLUSTERLM_SECRETS_FILE=/shared/runs/ru-cpt/secrets.json
# The tokenizer's threads and the loader's forks do not go together.
export TOKENIZERS_PARALLELISM=false
export NCCL_DEBUG=WARN
export NOTE='it'"'"'s $HOME and `date`'
export CLUSTERLM_RESUME_FROM="${CLUSTERLM_RESUME_FROM:-}"

# Under srun the node's number is its place in the step: an attempt without a lost node counts anew from 0.
# Without Slurm the supervisor numbers the nodes that this machine stands for.
node_rank="${SLURM_NODEID:-${CLUSTERLM_NODE_RANK:-0}}"

# Static wiring, so that rank order is node order. No restarts by torchrun: they belong to the supervisor,
# which sees every node. The rendezvous id holds the attempt: stale ranks cannot join a newer one.
exec /env/bin/python -m clusterlm.node.agent --ranks-per-node 8 --node-rank "$node_rank" -- \
  /env/bin/python -m torch.distributed.run \
  --nnodes "${CLUSTERLM_NODES:?is set by the supervisor}" \
  --nproc-per-node 8 \
  --node-rank "$node_rank" \
  --master-addr "${CLUSTERLM_MASTER_ADDR:?is set by the supervisor}" \
  --master-port "${CLUSTERLM_MASTER_PORT:?is set by the supervisor}" \
  --rdzv-id "${CLUSTERLM_RUN}-${CLUSTERLM_ATTEMPT}" \
  --max-restarts 0 \
  --module clusterlm.node.rank -- \
  /env/bin/python -m clusterlm train /shared/runs/ru-cpt
