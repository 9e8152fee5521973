#!/usr/bin/env bash
# Image 0123456789abcdef into one file, with enroot. Made by clusterlm 0.1.0.
# By hand, where enroot is and this folder is seen: bash enroot_import.sh
# Values stand between single quotes so that nothing in them expands.
# shellcheck disable=SC2016
set -euo pipefail

file=/shared/clusterlm/images/0123456789abcdef.sqsh
# Written last: a file without it, or of another size, is not whole.
seal="$file.json"
# What the file may need at most, in bytes: the image as it lies unpacked.
needs=20600000000
lock=/shared/clusterlm/images/0123456789abcdef.lock
layers=/shared/clusterlm/images/layers

say() { printf 'clusterlm import: %s\n' "$1" >&2; }
refuse() {
  printf 'clusterlm import refuses: %s\n' "$1" >&2
  shift
  if [ "$#" -gt 0 ]; then printf '  %s\n' "$@" >&2; fi
  exit 2
}
is_whole() {
  [ -f "$file" ] && [ -f "$seal" ] &&
    [ "$(stat -c %s -- "$file")" = "$(sed -n 's/.*"bytes": \([0-9]*\).*/\1/p' "$seal")" ]
}
free_bytes() { df --output=avail -B1 -- "$1" | tail -n 1 | tr -d ' '; }
remove_folder() {
  # enroot that is killed leaves its container, too: it is named as its folder.
  for left in "$1"/enroot.*; do
    if [ -d "$left" ]; then podman rm -f -v "${left##*/}" >/dev/null 2>&1 || true; fi
  done
  # What was unpacked may hold folders that even their owner cannot change.
  chmod -R u+rwX -- "$1" 2>/dev/null || true
  rm -rf -- "$1"
}

command -v enroot >/dev/null || refuse 'there is no enroot on '"$(hostname)" \
  'run this script where it is; the folder of the image must be seen there'

# One import at a time. The lock is gone with whoever holds it, however that ended.
while :; do
  exec 9>>"$lock"
  flock -n 9 || { say 'another build or import of this image is under way: waiting for it'; flock 9; }
  # The file may have been removed while we waited; then the lock is on nothing.
  [ "$lock" -ef /proc/self/fd/9 ] && break
done
if is_whole; then
  say "$file is there already"
  exit 0
fi

# Under the lock: whatever lies here was left by an import that was killed.
rm -f -- "${file%/*}/.${file##*/}.importing."*
aside="${file%/*}/.${file##*/}.importing.$$"
work=
clean() {
  rm -f -- "$aside" "$aside.json"
  if [ -n "$work" ]; then remove_folder "$work"; fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
advice=()

# enroot leaves the data as it is unless told otherwise; compressed it is about half.
if [[ ${ENROOT_SQUASH_OPTIONS:-} == *-comp* && ${ENROOT_SQUASH_OPTIONS:-} != *-noD* ]]; then
  needs=$((needs * 6 / 10))
else
  advice=("or compress it: export ENROOT_SQUASH_OPTIONS='-comp zstd' (then about $((needs * 6 / 10000000)) MB)")
fi

# Room for the file. Asking for the blocks finds a quota as well, where the file system can do that.
free=$(free_bytes "${file%/*}")
if words=$(fallocate -l "$needs" -- "$aside" 2>&1); then
  free=$needs
elif [[ $words != *[Nn]"ot supported"* && $words != *"not found"* ]]; then
  free=0
fi
rm -f -- "$aside"
if [ "$free" -lt "$needs" ]; then
  refuse "no room for the image in ${file%/*}: $((needs / 1000000)) MB needed, $(($(free_bytes "${file%/*}") / 1000000)) MB free${words:+; $words}" \
    'make room (clusterlm images gc --keep 2), ask for more quota,' \
    'or set CLUSTERLM_IMAGES_DIR to a folder with room that every node sees' ${advice[@]+"${advice[@]}"}
fi

# A folder to unpack in: the first of these with room, twice as much where the file comes to lie too.
# Local ones first: many small files are slow on a shared one.
for folder in "${ENROOT_TEMP_PATH:-}" "${TMPDIR:-}" /tmp /var/tmp "${file%/*}"; do
  if [ ! -d "$folder" ] || [ ! -w "$folder" ]; then continue; fi
  for old in "$folder"/clusterlm-import.0123456789abcdef.*; do
    # clusterlm-import.<image>.<process>.<random>
    pid=${old%.*}
    pid=${pid##*.}
    if [ -d "$old" ] && [ -O "$old" ] && [ ! -L "$old" ] && [ ! -d "/proc/$pid" ]; then
      remove_folder "$old"
    fi
  done
  room=$needs
  if [ "$(stat -c %d -- "$folder")" = "$(stat -c %d -- "${file%/*}")" ]; then room=$((2 * needs)); fi
  if [ -z "$work" ] && [ "$(free_bytes "$folder")" -ge "$room" ]; then
    work=$(mktemp -d "$folder/clusterlm-import.0123456789abcdef.$$.XXXXXX")
  fi
done
[ -n "$work" ] || refuse "no folder has $((needs / 1000000)) MB to unpack the image in" \
  'set ENROOT_TEMP_PATH to one that has'

export ENROOT_TEMP_PATH="$work" ENROOT_DATA_PATH="$work/data"
export ENROOT_RUNTIME_PATH="${ENROOT_RUNTIME_PATH:-$work/run}"
# Layers that come from a registry stay, for the next image on the same base.
export ENROOT_CACHE_PATH="${ENROOT_CACHE_PATH:-$layers}"
mkdir -p -- "$ENROOT_DATA_PATH" "$ENROOT_RUNTIME_PATH" "$ENROOT_CACHE_PATH"
# enroot removes its container by `docker`, also the one that podman made, and fails where there is none.
mkdir -p -- "$work/bin"
ln -s -- "$(command -v podman)" "$work/bin/docker"
PATH="$work/bin:$PATH"
# To another name first: whoever looks sees the whole file or none.
enroot import --output "$aside" -- podman://clusterlm:0123456789abcdef

# The first four bytes, and the size that squashfs notes of itself at byte 40.
noted=$(od -An -tu8 -j40 -N8 -- "$aside" | tr -d ' ')
if [ "$(head -c 4 -- "$aside")" != hsqs ] || [ "$noted" -gt "$(stat -c %s -- "$aside")" ]; then
  refuse 'enroot ended well, but left no whole squashfs'
fi

size=$(stat -c %s -- "$aside")
say 'taking the checksum'
sum=$(sha256sum -- "$aside")
sync -- "$aside"
printf '{"bytes": %s, "sha256": "%s"}\n' "$size" "${sum%% *}" >"$aside.json"
# An old seal must not stand beside a new file.
rm -f -- "$seal"
mv -f -- "$aside" "$file"
mv -f -- "$aside.json" "$seal"
say "$file: $((size / 1000000)) MB"
