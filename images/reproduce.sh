#!/usr/bin/env bash
# Builds an image twice, the second time from nothing, and fails where a layer differs: reproduce.sh DOCKERFILE
set -euo pipefail
cd "$(dirname "$0")/.."
file=$1
name=docker.io/library/asya-reproduce
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for try in first second; do
  options=()
  [ "$try" = first ] || options=(--no-cache)
  e2e/image.sh build "$name:$try" . -f "$file" "${options[@]}" >"$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
  e2e/image.sh save "$name:$try" "$place/image.tar"
  python3 - "$place/image.tar" >"$place/$try" <<'PYTHON'
import json, sys, tarfile

with tarfile.open(sys.argv[1]) as archive:
    (manifest,) = json.load(archive.extractfile("manifest.json"))
    print(*json.load(archive.extractfile(manifest["Config"]))["rootfs"]["diff_ids"], sep="\n")
PYTHON
done
if diff "$place/first" "$place/second" >/dev/null; then
  echo "$file: two builds have the same layers"
  cat "$place/first"
else
  echo "$file: two builds differ" >&2
  diff "$place/first" "$place/second" >&2
  exit 1
fi
