#!/usr/bin/env bash
# Clusters of kind: the oldest and the newest Kubernetes that the chart is for, each by the release of kind that brings it.
#   kind.sh usable                       whether Docker's daemon answers; says what is missing
#   kind.sh install oldest|newest        kind, from its Go module, into the cache
#   kind.sh up oldest|newest NAME FILE   a cluster; its kubeconfig goes into FILE
#   kind.sh logs NAME DIRECTORY          what its nodes say
#   kind.sh down NAME                    end it
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin

# kind's release, and its node image by digest.
pinned() {
  case ${1-} in
  oldest)
    version=v0.29.0
    node=kindest/node:v1.30.13@sha256:397209b3d947d154f6641f2d0ce8d473732bd91c87d9575ade99049aa33cd648 ;;
  newest)
    version=v0.33.0
    node=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5 ;;
  *) echo "kind: which Kubernetes: oldest or newest?" >&2; exit 2 ;;
  esac
  kind=$cache/kind-$version
}

install() {
  [ ! -x "$kind" ] || return 0
  command -v go >/dev/null || { echo "kind needs Go: https://go.dev/dl" >&2; exit 1; }
  local place
  place=$(mktemp -d)
  GOBIN=$place go install -trimpath "sigs.k8s.io/kind@$version"
  mkdir -p "$cache"
  mv "$place/kind" "$kind"
  rmdir "$place"
}

what=${1-}
case $what in
usable)
  command -v docker >/dev/null && docker info >/dev/null 2>&1 || exit 1
  for program in kubectl helm; do
    command -v "$program" >/dev/null || { echo "kind: Docker is there, and no $program on the PATH" >&2; exit 1; }
  done ;;
install) pinned "${2-}"; install ;;
up)
  pinned "${2-}"; install
  "$kind" create cluster --name "$3" --image "$node" --kubeconfig "$4" --wait 120s
  # For `kind load` of the tests, by the name that they call.
  ln -sf "kind-$version" "$cache/kind" ;;
logs) "$cache/kind" export logs --name "$2" "$3" >/dev/null ;;
down) "$cache/kind" delete cluster --name "$2" ;;
*) sed -n '2,7p' "$0"; exit 2 ;;
esac
