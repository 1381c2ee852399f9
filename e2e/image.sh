#!/usr/bin/env bash
# Images, with docker where its daemon answers and no local cluster is asked for, else with buildah:
#   image.sh build TAG CONTEXT [options of docker build]   build it
#   image.sh has TAG                                       whether a local cluster has it
#   image.sh only TAG                                      forget all other tags of its repository
#   image.sh tag TAG NEW                                   another name for it
#   image.sh save TAG FILE                                 as docker save writes it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=$1; shift
if [ "${ASYA_IMAGES-}" != local ] && docker info >/dev/null 2>&1; then
  case $what in
  build) tag=$1 context=$2; shift 2; exec docker build -t "$tag" "$@" "$context" ;;
  has) exec docker image inspect "$1" >/dev/null 2>&1 ;;
  tag) exec docker tag "$1" "$2" ;;
  save) exec docker save -o "$2" "$1" ;;
  only)
    docker image ls --format '{{.Repository}}:{{.Tag}}' "${1%:*}" | grep -vxF "$1" | xargs -r docker image rm >/dev/null ;;
  esac
else
  exec "$here/cluster/image.sh" "$what" "$@"
fi
