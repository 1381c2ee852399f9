#!/usr/bin/env bash
# Images for a machine that reaches no image registry:
#   image.sh pause                      the pods' sandbox image, into the cluster
#   image.sh base [3.11|3.12|3.13]      an image tagged as python:X-slim, from Debian's
#                                       packages (and, but for 3.11, this machine's pyenv)
#   image.sh build TAG CONTEXT [buildah options]   a Dockerfile, into the cluster if it runs
#   image.sh has TAG                    whether the cluster has it
#   image.sh only TAG                   forget all other tags of its repository
#   image.sh tag TAG NEW                another name for it, in the cluster
#   image.sh save TAG FILE              as docker save writes it
set -euo pipefail
ASYA_CLUSTER_DIR=${ASYA_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/asya/cluster}
D=$(realpath -m "$ASYA_CLUSTER_DIR")
cache=$D/images
mkdir -p "$cache"
import() { ctr -a "$D/run/containerd.sock" -n k8s.io images import "$1" >/dev/null; }
tags() { ctr -a "$D/run/containerd.sock" -n k8s.io images ls -q; }
has() { tags | grep -xF "$1" >/dev/null; }
b() { buildah --root "$cache/store" --runroot "$cache/runroot" --storage-driver overlay --storage-opt overlay.skip_mount_home=true "$@"; }

case ${1-} in
pause)
  [ -S "$D/run/containerd.sock" ] || for _ in $(seq 100); do [ -S "$D/run/containerd.sock" ] && break; sleep 0.1; done
  has asya.local/pause:1 && exit 0
  if [ ! -s "$cache/pause.tar" ]; then
    w=$(mktemp -d); trap 'rm -rf "$w"' EXIT
    cat > "$w/pause.c" <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap); for (;;) pause(); }
C
    gcc -Os -static -s -o "$w/pause" "$w/pause.c"
    tar -C "$w" --owner=0 --group=0 --mtime=@0 -cf "$w/layer.tar" pause
    echo "{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Entrypoint\":[\"/pause\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$(sha256sum < "$w/layer.tar" | cut -d' ' -f1)\"]}}" > "$w/config.json"
    echo '[{"Config":"config.json","RepoTags":["asya.local/pause:1"],"Layers":["layer.tar"]}]' > "$w/manifest.json"
    tar -C "$w" -cf "$cache/pause.tar" manifest.json config.json layer.tar
  fi
  import "$cache/pause.tar" ;;
base)
  v=${2:-3.13}
  b inspect --type image "docker.io/library/python:$v-slim" >/dev/null 2>&1 && exit 0
  w=$(mktemp -d -p "$cache"); trap 'rm -rf "$w"' EXIT
  base_packages="ca-certificates,netbase,tzdata"
  if [ "$v" = 3.11 ]; then inc="$base_packages,python3,python3-pip,python3-venv"
  else inc="$base_packages,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,libreadline8,zlib1g,libuuid1,libncursesw6,libexpat1"; fi
  mmdebstrap --quiet --variant=minbase --include="$inc" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    bookworm "$w/root"
  if [ "$v" != 3.11 ]; then
    p=$(find "$HOME/.pyenv/versions" -maxdepth 1 -name "$v.*" | sort -V | tail -1)
    cp -a "$p/." "$w/root/usr/local/"
    rm -rf "$w"/root/usr/local/lib/python*/test "$w"/root/usr/local/lib/libpython*.a "$w"/root/usr/local/lib/python*/config-*/*.a
    find "$w/root/usr/local" -name __pycache__ -prune -exec rm -rf {} +
    grep -lIrs "^#!$p/bin/python" "$w/root/usr/local/bin" | xargs -r sed -i "1s|^#!$p/bin/|#!/usr/local/bin/|"
    chroot "$w/root" ldconfig
  else
    rm -f "$w"/root/usr/lib/python3*/EXTERNALLY-MANAGED
    ln -sf python3 "$w/root/usr/bin/python"
  fi
  c=$(b from scratch)
  b copy -q "$c" "$w/root" / >/dev/null
  b config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 --cmd python3 "$c"
  b commit -q --rm "$c" "docker.io/library/python:$v-slim" >/dev/null
  for t in "$v-slim-bookworm" "$v"; do b tag "docker.io/library/python:$v-slim" "docker.io/library/python:$t"; done ;;
build)
  tag=$2 context=$3; shift 3
  # The build reaches the package index as this machine does: its certificates, its pip settings.
  ca=/etc/ssl/certs/ca-certificates.crt
  mounts=(-v "$ca:$ca:ro")
  [ ! -e /etc/pip.conf ] || mounts+=(-v /etc/pip.conf:/etc/pip.conf:ro)
  b build --isolation chroot --layers --pull=never -t "$tag" "${mounts[@]}" \
    "$@" "$context"
  out=$(mktemp -u -p "$cache" out.XXXX.tar); trap 'rm -f "$out"' EXIT
  b push -q "$tag" "docker-archive:$out:$tag"
  if [ -S "$D/run/containerd.sock" ]; then import "$out"; fi ;;
has) has "$2" ;;
only)
  tags | grep -F "${2%:*}:" | grep -vxF "$2" | xargs -r ctr -a "$D/run/containerd.sock" -n k8s.io images rm >/dev/null
  b images --format '{{.Name}}:{{.Tag}}' | grep -F "${2%:*}:" | grep -vxF "$2" | xargs -r "$0" forget || true ;;
tag) ctr -a "$D/run/containerd.sock" -n k8s.io images tag --force "$2" "$3" >/dev/null ;;
save) rm -f "$3"; b push -q "$2" "docker-archive:$3:$2" ;;
forget) shift; b rmi "$@" >/dev/null ;;
*) sed -n '2,10p' "$0"; exit 2 ;;
esac
