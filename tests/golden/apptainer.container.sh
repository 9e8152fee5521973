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

# The older name of the same program is still the only one at some sites.
if ! program="$(command -v apptainer || command -v singularity)"; then
  echo "clusterlm image: there is no apptainer on $(uname -n): choose nodes that have it, or another image.runtime" >&2
  exit 78
fi
for name in "${passed[@]}"; do
  export "APPTAINERENV_$name=${!name}" "SINGULARITYENV_$name=${!name}"
done

# Not --containall: its own /dev/shm of 64 MB is too small for NCCL, and the agent must see its parent.
exec "$program" exec --cleanenv --no-home --nv --pwd /shared/runs/ru-cpt \
  --bind /data:/data:ro \
  --bind /nvme:/inside:ro \
  --bind /scratch:/scratch:rw \
  --bind /tmp:/tmp:rw \
  --bind /models/base:/models/base:ro \
  --bind /shared/cache:/shared/cache:rw \
  --bind /shared/runs/ru-cpt:/shared/runs/ru-cpt:rw \
  /shared/images/aaaa.sif /bin/bash "$script"
