#!/usr/bin/env bash
# Run ru-cpt: a node's script in its container. Made by clusterlm 0.0.0.
# The supervisor starts it (srun, or directly with cluster: local):  bash container.sh /shared/runs/ru-cpt/torchrun.sh
# Values stand between single quotes so that nothing in them expands.
# shellcheck disable=SC2016
set -euo pipefail

script="${1:?the path of torchrun.sh or preprocess.sh}"
: "${CLUSTERLM_ATTEMPT:?is set by the supervisor}"

# docker does not pass it on; files of a run are for their owner alone.
CLUSTERLM_UMASK="$(umask)"
export CLUSTERLM_UMASK
# The environment inside is defined: of what is set here only these names go in.
passed=()
while IFS= read -r name; do
  case "$name" in
    TZ | TERM | USER | LOGNAME | HF_HUB_OFFLINE | HF_ENDPOINT | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | CLUSTERLM_* | SLURM* | NCCL_* | UCX_* | CUDA_VISIBLE_* | ROCR_VISIBLE_* | GPU_DEVICE_*) passed+=("$name") ;;
  esac
done < <(compgen -e)

options=()
for name in "${passed[@]}"; do
  # the GPUs that go in are numbered anew there
  [ "$name" = CUDA_VISIBLE_DEVICES ] && continue
  options+=(--env "$name")
done
# Files that are written in mounts belong to the user.
for group in $(id -G); do
  options+=(--group-add "$group")
done
if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  # docker reads the value as CSV: the quotes keep 0,1 in one field
  options+=(--gpus "\"device=$CUDA_VISIBLE_DEVICES\"")
fi
if [ -d /dev/infiniband ]; then
  # what it sends from is held in memory, without a limit
  options+=(--device /dev/infiniband --ulimit memlock=-1)
fi

node_rank="${SLURM_NODEID:-${CLUSTERLM_NODE_RANK:-0}}"
container="clusterlm-ru-cpt-$CLUSTERLM_ATTEMPT-$node_rank-$$"
parent=$PPID
# A container is no child of ours. The agent in it ends when this script is gone, however that came about.
export CLUSTERLM_SUPERVISOR_PID=$$

interrupted=
# TERM means: save and end. The agent inside knows what to do.
trap 'interrupted=yes; kill -TERM "$client" 2> /dev/null || true' TERM INT
trap 'docker rm --force "$container" > /dev/null 2>&1 || true' EXIT

# --network, --ipc, --pid host: ranks of several nodes, NCCL's shared memory, and agents that see us.
# The root is read-only as on a cluster: what runs here runs there. The stack is the one NVIDIA asks for.
docker run --rm --pull never --name "$container" --label clusterlm.run=/shared/runs/ru-cpt \
  --network host --ipc host --pid host --ulimit stack=67108864 \
  --read-only --tmpfs /run --user "$(id -u):$(id -g)" "${options[@]}" \
  --mount type=bind,source=/data,target=/data,readonly \
  --mount type=bind,source=/nvme,target=/inside,readonly \
  --mount type=bind,source=/scratch,target=/scratch \
  --mount type=bind,source=/tmp,target=/tmp \
  --mount type=bind,source=/models/base,target=/models/base,readonly \
  --mount type=bind,source=/shared/cache,target=/shared/cache \
  --mount type=bind,source=/shared/runs/ru-cpt,target=/shared/runs/ru-cpt \
  --workdir /shared/runs/ru-cpt --entrypoint /bin/bash clusterlm:aaaaaaaaaaaaaaaa "$script" &
client=$!

# Where we are killed, or lose our parent, before there is an agent. In a session of its own: it lives on.
# shellcheck disable=SC2016
setsid bash -c '
  while read -r _ _ _ now _ < "/proc/$1/stat" && [ "$now" = "$2" ]; do sleep 1; done
  docker rm --force "$3"
' watcher "$$" "$parent" "$container" < /dev/null > /dev/null 2>&1 &

while :; do
  code=0
  wait "$client" || code=$?
  # a signal ends the wait before the client has ended
  [ -n "$interrupted" ] || exit "$code"
  interrupted=
done
