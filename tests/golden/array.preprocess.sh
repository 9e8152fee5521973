#!/usr/bin/env bash
# Run ru-cpt, phase preprocess: what one node runs. Made by clusterlm 0.0.0.
# The supervisor starts it once on every node (srun, or directly with cluster: local). By hand:
#   CLUSTERLM_ATTEMPT=1 CLUSTERLM_ATTEMPT_DIR=... bash preprocess.sh
# Values stand between single quotes so that nothing in them expands.
# shellcheck disable=SC2016
set -euo pipefail

# Set by the supervisor for each attempt; a clear stop here beats a puzzle later.
: "${CLUSTERLM_ATTEMPT:?is set by the supervisor}" "${CLUSTERLM_ATTEMPT_DIR:?is set by the supervisor}"

export CLUSTERLM_RUN=ru-cpt
export CLUSTERLM_RUN_DIR=/shared/runs/ru-cpt
export CLUSTERLM_PHASE=preprocess
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

exec /env/bin/python -m clusterlm.node.agent --ranks-per-node 1 -- \
  /env/bin/python -m clusterlm.node.rank -- \
  /env/bin/python -m clusterlm preprocess /shared/runs/ru-cpt ${CLUSTERLM_TASK:+--task "$CLUSTERLM_TASK"}
