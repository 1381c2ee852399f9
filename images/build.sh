#!/usr/bin/env bash
# Builds an image of the release that the packages say, from the commit that is checked out: build.sh NAME DOCKERFILE
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 file=$2
version=$(sed -n 's/^version = "\(.*\)"/\1/p' proxy/pyproject.toml)
# Outside a checkout: a release's sources, whose commit nobody knows.
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
tag=docker.io/library/$name:$version
e2e/image.sh build "$tag" . -f "$file" \
  --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --build-arg "CREATED=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)"
