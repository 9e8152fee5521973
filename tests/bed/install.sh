#!/bin/bash
# Install what tests/bed needs on Debian or Ubuntu: Slurm, munge, MariaDB; Docker and debootstrap for
# images; shellcheck for the rendered scripts, g++ for what DeepSpeed compiles. Says and does nothing
# when all is there. No service is started: the bed starts its own daemons, and a Slurm that this
# machine belongs to is left alone. With arguments: installs those packages instead.
set -euo pipefail

packages=(
    slurmctld slurmd slurmdbd slurm-client munge
    mariadb-server
    iproute2 util-linux
    shellcheck g++
    openssh-server openssh-client zsh tcsh fish
    docker.io debootstrap debian-archive-keyring squashfs-tools patchelf
)
[ "$#" -eq 0 ] || packages=("$@")
policy=/usr/sbin/policy-rc.d
saved=$policy.before-clusterlm
mark='# clusterlm tests/bed/install.sh'

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Package scripts ask policy-rc.d before they start a service; 101 means no.
forbid_services() {
    # Left by a run that was killed: the file saved then is the machine's own.
    if [ -e "$policy" ] && ! grep -qF "$mark" "$policy"; then
        as_root mv "$policy" "$saved"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
}

allow_services() {
    if [ -e "$saved" ]; then
        as_root mv "$saved" "$policy"
    else
        as_root rm -f "$policy"
    fi
}

missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    echo "no root and no sudo: not installed: ${missing[*]}; the Slurm and Docker tests will be skipped" >&2
    # without a bed CI must not be green
    [ "${CI:-}" != true ]
    exit
fi

if ! command -v apt-get >/dev/null; then
    echo "tests/bed/install.sh knows Debian and Ubuntu only; install yourself: ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
as_root apt-get update -qq

# MariaDB and MySQL exclude each other. On a throw-away machine that is fine, elsewhere it is not.
if [ "${CI:-}" != true ]; then
    removed=$(apt-get install --simulate --no-install-recommends "${missing[@]}" |
        sed -n 's/^Remv \([^ ]*\).*/\1/p' | tr '\n' ' ')
    if [ -n "$removed" ]; then
        echo "tests/bed/install.sh would remove ${removed}to install ${missing[*]}: do it by hand" >&2
        exit 1
    fi
fi

trap allow_services EXIT
forbid_services
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
echo "tests/bed/install.sh installed ${missing[*]}"
