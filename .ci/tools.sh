#!/usr/bin/env bash
# Linters that no Python package brings: shellcheck (Debian) and actionlint (a pinned Go module).
set -euo pipefail
cache=${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin
mkdir -p "$cache"
if ! command -v shellcheck >/dev/null; then
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends shellcheck >/dev/null
  else
    echo "shellcheck is missing: install it (as root: apt-get install shellcheck) and run this again." >&2
    exit 1
  fi
fi
version=v1.7.12
if [ ! -x "$cache/actionlint-$version" ]; then
  command -v go >/dev/null || { echo "actionlint needs Go 1.24 or newer: https://go.dev/dl" >&2; exit 1; }
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  GOBIN=$tmp go install -trimpath "github.com/rhysd/actionlint/cmd/actionlint@$version"
  mv "$tmp/actionlint" "$cache/actionlint-$version"
fi
ln -sf "actionlint-$version" "$cache/actionlint"
