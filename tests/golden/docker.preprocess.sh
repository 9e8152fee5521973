#!/usr/bin/env bash
# Run ru-cpt, phase preprocess: what one node runs. Made by clusterlm 0.0.0.
# The supervisor starts it once on every node (srun, or directly with cluster: local). By hand:
#   CLUSTERLM_ATTEMPT=1 CLUSTERLM_ATTEMPT_DIR=... bash preprocess.sh
# Values stand between single quotes so that nothing in them expands.
# shellcheck disable=SC2016
set -euo pipefail

# Set by the supervisor for each attempt; a clear stop here beats a puzzle later.
: "${CLUSTERLM_ATTEMPT:?is set by the supervisor}" "${CLUSTERLM_ATTEMPT_DIR:?is set by the supervisor}"

# A node without pyxis ignores the options that name an image, and would run this on its bare system.
if [ ! -e /opt/clusterlm/image.json ]; then
  echo 'clusterlm image: not inside an image that clusterlm build-image made: no /opt/clusterlm/image.json here;' \
    'make one: clusterlm build-image JOB' >&2
  exit 78
fi

# The image's own variables: a runtime may lose them, or let the host's win.
export LANG=C.UTF-8
# shellcheck source=/dev/null
. /opt/clusterlm/environment
# Hooks of enroot set these for one task per GPU; here torchrun does.
unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK

# The root of an image is read-only, and nobody has a home in it. What is compiled is kept on the node, by
# image; a folder that somebody else has put in its place is not taken.
scratch="/tmp/clusterlm-$(id -u)"
mkdir -m 700 "$scratch" 2> /dev/null || true
if [ -O "$scratch" ] && [ ! -L "$scratch" ] && [ -w "$scratch" ]; then
  scratch="$scratch/aaaaaaaaaaaaaaaa"
else
  scratch="$CLUSTERLM_ATTEMPT_DIR/scratch-${SLURM_NODEID:-${CLUSTERLM_NODE_RANK:-0}}"
fi
mkdir -p "$scratch/home" "$scratch/tmp"
export HOME="$scratch/home" TMPDIR="$scratch/tmp"
export XDG_CACHE_HOME="$scratch/cache" XDG_CONFIG_HOME="$scratch/config" XDG_DATA_HOME="$scratch/data"
export TRITON_CACHE_DIR="$scratch/triton" TORCHINDUCTOR_CACHE_DIR="$scratch/inductor" MPLCONFIGDIR="$scratch/matplotlib"
# Models and datasets of the hub: once for all nodes.
export HF_HOME=/shared/cache/huggingface
# The user has no entry in the image's passwd; what asks for a name looks here first.
export USER="${USER:-$(id -u)}"
export LOGNAME="${LOGNAME:-$USER}"
umask "${CLUSTERLM_UMASK:-$(umask)}"
cd /shared/runs/ru-cpt

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

# Before anything is started: is this the image that the run was made for, are the GPUs there?
/opt/clusterlm/python -m clusterlm.node.image_check --version 0.0.0 --code-digest cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc \
  --recipe aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa --gpus 8 --light

exec /opt/clusterlm/python -m clusterlm.node.agent --ranks-per-node 1 -- \
  /opt/clusterlm/python -m clusterlm.node.rank -- \
  /opt/clusterlm/python -m clusterlm preprocess /shared/runs/ru-cpt
