#!/usr/bin/env bash
# Builds the cluster's binaries into $ASYA_CLUSTER_DIR/bin:
#   kube (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet,
#   kube-proxy, kubectl and dns in one file, links beside it) and helm.
set -euo pipefail
cd "$(dirname "$0")"
ASYA_CLUSTER_DIR=${ASYA_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/asya/cluster}
bin=$ASYA_CLUSTER_DIR/bin
mkdir -p "$bin"
# Built once for each state of its sources: 6-9 minutes on two cores, then nothing.
want=$(cat go.sum cmd/kube/*.go build.sh | sha256sum | cut -d' ' -f1)
[ "$(cat "$bin/.built" 2>/dev/null)" != "$want" ] || exit 0
command -v go >/dev/null || { echo "building the cluster needs Go 1.26 or newer: https://go.dev/dl" >&2; exit 1; }
v=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
h=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)
minor=${v#v1.}; minor=${minor%%.*}
x=k8s.io/component-base/version
kv="-X $x.gitVersion=$v -X $x.gitMajor=1 -X $x.gitMinor=$minor -X $x.gitTreeState=clean"
kv="$kv -X k8s.io/client-go/pkg/version.gitVersion=$v -X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=$minor"
export CGO_ENABLED=0
go build -trimpath -ldflags "-s -w $kv" -o "$bin/kube" ./cmd/kube
go build -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$h" -o "$bin/helm" helm.sh/helm/v3/cmd/helm
for n in etcd dns kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  ln -sf kube "$bin/$n"
done
echo "$want" > "$bin/.built"
