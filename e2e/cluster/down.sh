#!/usr/bin/env bash
# Ends the cluster: pid 1 of its namespaces takes every process, mount and link
# with it. --purge also forgets its data (etcd, images, logs), keeping bin/ and pki/; --force does not care for a
# test run that uses it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ASYA_CLUSTER_DIR=${ASYA_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/asya/cluster}
D=$(realpath -m "$ASYA_CLUSTER_DIR")
name=${ASYA_CLUSTER_NAME:-asya}
purge='' force='' locked=''
for option in "$@"; do
  case $option in
  --purge) purge=1 ;; --force) force=1 ;; --locked) locked=1 ;; # by up.sh, which holds the lock
  *) echo "down: $option? there are --purge and --force" >&2; exit 2 ;;
  esac
done
# shellcheck source=e2e/cluster/lock.sh
. "$here/lock.sh"
if [ -z "$locked" ]; then
  alone down 120
  [ -n "$force" ] || unused down
fi
if [ -s "$D/node.pid" ]; then
  pid=$(cat "$D/node.pid")
  # Only if it is still ours: a pid may have been given to another process.
  if tr '\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null | grep -qF "node.sh $D "; then
    kill -KILL "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
  fi
  rm -f "$D/node.pid"
fi
ip link del "$name-host" 2>/dev/null || true
# Empty cgroups are left where the pods' were.
for c in /sys/fs/cgroup/*/; do
  if [ -d "$c/$name" ]; then find "$c/$name" -depth -type d -exec rmdir {} + || true; fi
done
if [ -s "$D/run/sysctls" ]; then
  while read -r s v; do echo "$v" > "/proc/sys/$s"; done < "$D/run/sysctls"
fi
rm -rf "$D/run"
# Each start is a new cluster on the images it has: the API's data and the pods go.
rm -rf "$D/node/etcd" "$D/node/kubelet" "$D/node/cni" "$D/log"
[ -z "$purge" ] || rm -rf "$D/node" "$D/conf"
echo "down"
