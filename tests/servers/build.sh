#!/usr/bin/env bash
# Builds the S3 and GCS servers of the tests from pinned Go modules into ${XDG_CACHE_HOME:-~/.cache}/asya/bin.
# A binary is kept as NAME-VERSION with a link NAME, so that a pin that moves builds anew; does nothing
# where all are there.
set -euo pipefail
cd "$(dirname "$0")"
bin="${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin"
mkdir -p "$bin"

versitygw=v1.8.0
# gcsd is ours: its version is that of its sources.
gcsd=$(cat gcs/go.mod gcs/go.sum gcs/*.go | sha256sum | cut -c1-12)

need_go() {
  command -v go >/dev/null && return
  echo "missing: go (1.26 or newer), which builds the S3 and GCS test servers. Install it from https://go.dev/dl/ and run this again." >&2
  exit 1
}

# have NAME VERSION: whether it is built, and linked.
have() {
  [ -x "$bin/$1-$2" ] || return 1
  ln -sfn "$1-$2" "$bin/$1"
}

build() {
  local name=$1 version=$2
  shift 2
  need_go
  local stage
  stage=$(mktemp -d "$bin/.build-XXXXXX")
  echo "building $name $version (once)" >&2
  if ! "$@" "$stage"; then
    rm -rf "$stage"
    echo "$name $version could not be built" >&2
    exit 1
  fi
  mv -f "$stage/$name" "$bin/$name-$version"
  rm -rf "$stage"
  have "$name" "$version"
}

install_module() { GOBIN=$2 go install -trimpath -ldflags='-s -w' "$1"; }
build_here() { (cd "$1" && go build -trimpath -ldflags='-s -w' -o "$3/$2" .); }

have versitygw $versitygw || build versitygw $versitygw install_module "github.com/versity/versitygw/cmd/versitygw@$versitygw"
have gcsd "$gcsd" || build gcsd "$gcsd" build_here gcs gcsd
