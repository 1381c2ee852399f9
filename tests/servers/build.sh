#!/usr/bin/env bash
# Builds the S3 and GCS servers of the tests from pinned Go modules into ${XDG_CACHE_HOME:-~/.cache}/asya/bin. With
# names (`build.sh versitygw gcsd`) those only; with `soak` all, also the second opinions and broken stores of
# `make soak`, which take minutes. GOOS=linux builds for images.
# A binary is kept as NAME-VERSION, one for another system as NAME-VERSION-SYSTEM, with a link NAME to the one asked for
# last, so that a pin that moves builds anew; does nothing where all are there.
set -euo pipefail
cd "$(dirname "$0")"
bin="${XDG_CACHE_HOME:-$HOME/.cache}/asya/bin"
mkdir -p "$bin"

versitygw=v1.8.0
gofakes3=v1.2.0
# Of `make soak`. MinIO's last, and of each line of NATS the last that there is.
minio=v0.0.0-20260212201848-7aac2a2c5b7c
s3proxy=4.1.0
nats_servers=(v2.10.29 v2.11.17 v2.12.15 v2.15.2)
# gcsd is ours: its version is that of its sources.
gcsd=$(cat gcs/go.mod gcs/go.sum gcs/*.go | sha256sum | cut -c1-12)

system=$(uname -s | tr '[:upper:]' '[:lower:]')
for_system=
if [ "${GOOS:-$system}" != "$system" ]; then for_system=-$GOOS; fi

need_go() {
  command -v go >/dev/null && return
  echo "missing: go (1.26 or newer), which builds the S3 and GCS test servers. Install it from https://go.dev/dl/ and run this again." >&2
  exit 1
}

# have NAME VERSION: whether it is built, and linked.
have() {
  [ -x "$bin/$1-$2$for_system" ] || return 1
  ln -sfn "$1-$2$for_system" "$bin/$1"
}

# build NAME VERSION COMMAND...: where it is not there, by the command, which gets a directory to put it into.
build() {
  local name=$1 version=$2
  shift 2
  ! have "$name" "$version" || return 0
  need_go
  local stage
  stage=$(mktemp -d "$bin/.build-XXXXXX")
  echo "building $name $version (once)" >&2
  if ! "$@" "$stage"; then
    rm -rf "$stage"
    echo "$name $version could not be built" >&2
    exit 1
  fi
  mv -f "$stage/$name" "$bin/$name-$version$for_system"
  rm -rf "$stage"
  have "$name" "$version"
}

# Static, so that they also run in images of any base.
export CGO_ENABLED=0
# Below GOPATH and not GOBIN, which go refuses for another system.
install_module() {
  local modules
  modules=$(go env GOMODCACHE)
  GOPATH=$2 GOBIN='' GOMODCACHE=$modules go install -trimpath -ldflags='-s -w' "$1" || return
  find "$2/bin" -type f -exec mv {} "$2/" \;
}
build_here() { (cd "$1" && go build -trimpath -ldflags='-s -w' -o "$3/$2" .); }

# As `nats-server-2.15`, one of each line.
install_nats() {
  install_module "github.com/nats-io/nats-server/v2@$2" "$3" || return
  mv "$3/nats-server" "$3/$1"
}

# A jar that is executable, so that it is found like the others.
fetch_jar() {
  local repository=$3/repository
  command -v mvn >/dev/null || { echo "missing: mvn (apt-get install maven), which fetches s3proxy.jar" >&2; return 1; }
  mvn --quiet --batch-mode -Dmaven.repo.local="$repository" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:get -Dartifact="$1" -Dtransitive=false >&2
  find "$repository" -name '*jar-with-dependencies.jar' -exec mv {} "$3/$2" \;
  chmod +x "$3/$2"
  rm -rf "$repository"
}

server() {
  case $1 in
    versitygw) build versitygw $versitygw install_module "github.com/versity/versitygw/cmd/versitygw@$versitygw" ;;
    gofakes3) build gofakes3 $gofakes3 install_module "github.com/johannesboyne/gofakes3/cmd/gofakes3@$gofakes3" ;;
    gcsd) build gcsd "$gcsd" build_here gcs gcsd ;;
    minio) build minio $minio install_module "github.com/minio/minio@$minio" ;;
    s3proxy.jar)
      build s3proxy.jar $s3proxy fetch_jar "org.gaul:s3proxy:$s3proxy:jar:jar-with-dependencies" s3proxy.jar ;;
    nats-servers)
      local version line
      for version in "${nats_servers[@]}"; do
        line=${version#v}
        build "nats-server-${line%.*}" "$version" install_nats "nats-server-${line%.*}" "$version"
      done ;;
    *)
      echo "unknown server $1: versitygw, gofakes3, gcsd, minio, s3proxy.jar, nats-servers, or soak for all" >&2
      exit 2 ;;
  esac
}

names=("$@")
[ $# != 0 ] || names=(versitygw gofakes3 gcsd)
[ "$*" != soak ] || names=(versitygw gofakes3 gcsd minio s3proxy.jar nats-servers)
for name in "${names[@]}"; do server "$name"; done
