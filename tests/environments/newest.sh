#!/usr/bin/env bash
# Tests of this checkout on Debian 13 with Python 3.13, in a root of its own: the other half of requirements.lock.
# Wants root and debootstrap. ROOT is the folder of the root, kept for the next time; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${ROOT:=/var/tmp/share_jax-roots/trixie}"
: "${MIRROR:=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -1)}"

command -v debootstrap >/dev/null || { echo "error: debootstrap: got nothing, expected it; apt install debootstrap" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "error: got user $(id -u), expected root; debootstrap and chroot need it" >&2; exit 2; }
if [ ! -e "$ROOT/etc/debian_version" ]; then
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,make,git trixie "$ROOT" ${MIRROR:+"$MIRROR"}
fi
cp /etc/resolv.conf /etc/hosts "$ROOT/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$ROOT/src"
find "$ROOT/src" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +  # no file of an earlier checkout stays
git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -C "$ROOT/src" -xf -
for each in proc dev; do mountpoint -q "$ROOT/$each" || mount --rbind "/$each" "$ROOT/$each"; done
trap 'for each in proc dev; do umount -R -l "$ROOT/$each"; done' EXIT
chroot "$ROOT" /usr/bin/env HOME=/root make -C /src setup
chroot "$ROOT" /usr/bin/env HOME=/root LANG=C.UTF-8 sh -c 'cd /src && exec .venv/bin/python -m pytest "$@"' sh \
  -n "${JOBS:-2}" --dist loadfile --no-loadscope-reorder -m "not slow and not faults" "$@"
