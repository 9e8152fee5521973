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

if ! command -v enroot > /dev/null; then
  echo "clusterlm image: there is no enroot on $(uname -n): choose nodes that have it, or another image.runtime" >&2
  exit 78
fi
options=()
for name in "${passed[@]}"; do
  options+=(--env "$name")
done

# Node-local: two nodes that share these folders disturb each other.
own="/tmp/clusterlm-$(id -u)"
base="$own/enroot"
mkdir -m 700 "$own" 2> /dev/null || true
if [ ! -O "$own" ] || [ -L "$own" ]; then
  echo "clusterlm image: $own on $(uname -n) belongs to somebody else: remove it" >&2
  exit 78
fi
export ENROOT_DATA_PATH="$base/data" ENROOT_CACHE_PATH="$base/cache" ENROOT_TEMP_PATH="$base/tmp"
export ENROOT_RUNTIME_PATH="$base/run" ENROOT_MOUNT_HOME=no ENROOT_LOGIN_SHELL=no ENROOT_ROOTFS_WRITABLE=no
mkdir -p "$ENROOT_DATA_PATH" "$ENROOT_CACHE_PATH" "$ENROOT_TEMP_PATH" "$ENROOT_RUNTIME_PATH"

# Unpacked once per node and image. The note is written last: without it, or with that of another file, what
# is there is the rest of an unpacking that was cut short.
image=/shared/images/aaaa.sqsh
container="clusterlm-aaaaaaaaaaaaaaaa"
whole="$(stat --format '%n %s %Y' "$image" 2> /dev/null || echo "$image is not there")"
exec {lock}> "$base/$container.lock"
flock "$lock"
if [ "$(cat "$base/$container.whole" 2> /dev/null)" != "$whole" ] || [ ! -d "$ENROOT_DATA_PATH/$container" ]; then
  rm -f "$base/$container.whole"
  if ! ENROOT_FORCE_OVERRIDE=yes enroot create --name "$container" "$image" > "$base/$container.log" 2>&1; then
    cat "$base/$container.log" >&2
    exit 78
  fi
  echo "$whole" > "$base/$container.whole"
fi
# In place of the image's own command script, which may print banners or start something else.
echo 'exec "$@"' > "$base/rc"
exec {lock}>&-

exec enroot start --rc "$base/rc" "${options[@]}" \
  --mount /data:/data:x-create=auto,rbind,ro \
  --mount /nvme:/inside:x-create=auto,rbind,ro \
  --mount /scratch:/scratch:x-create=auto,rbind \
  --mount /tmp:/tmp:x-create=auto,rbind \
  --mount /models/base:/models/base:x-create=auto,rbind,ro \
  --mount /shared/cache:/shared/cache:x-create=auto,rbind \
  --mount /shared/runs/ru-cpt:/shared/runs/ru-cpt:x-create=auto,rbind \
  "$container" /bin/bash "$script"
