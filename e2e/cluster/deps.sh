#!/usr/bin/env bash
# The Debian packages that the cluster and its image builds use. No service of theirs is started.
set -euo pipefail
packages=(containerd runc containernetworking-plugins iptables iproute2 buildah mmdebstrap openssl curl gcc libc6-dev)
missing=()
for p in "${packages[@]}"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p"); done
[ ${#missing[@]} -gt 0 ] || exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
