#!/usr/bin/env bash
# Starts a single-node Kubernetes cluster in namespaces of its own (mount, net,
# pid, uts, ipc): one process holds them, so down.sh ends everything by ending it.
# Everything lies under $ASYA_CLUSTER_DIR; binaries in its bin/ (build.sh).
# The machine sees: one veth link, one route, empty cgroups named $name.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
ASYA_CLUSTER_DIR=${ASYA_CLUSTER_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/asya/cluster}
D=$(realpath -m "$ASYA_CLUSTER_DIR")
N=${ASYA_CLUSTER_NET:-10.231}           # .0.1 host, .0.2 node, .1.0/24 pods, .2.0/24 services
PORT=${ASYA_CLUSTER_PORT:-16443}        # kube-apiserver
name=${ASYA_CLUSTER_NAME:-asya}         # node, veth and cgroup name (at most 12 letters)
KUBECONFIG=$D/kubeconfig

# shellcheck source=e2e/cluster/lock.sh
. "$here/lock.sh"
alone up 120
alive() { [ -s "$D/node.pid" ] && kill -0 "$(cat "$D/node.pid")" 2>/dev/null; }
if alive; then echo "up: already running (pid $(cat "$D/node.pid"))"; exit 0; fi
"$here/down.sh" --locked >/dev/null              # clears what an unclean end left
mkdir -p "$D"/{pki,log,conf,run,node}

# --- certificates: one CA, one client certificate per component, new at each start.
# Python 3.13 refuses a CA without keyUsage and a certificate without its key identifiers.
cd "$D/pki"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" 2>/dev/null; }
cert() { # file subject [extensions]
  key "$1"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
    -extfile <(printf '%s\n' keyUsage=digitalSignature extendedKeyUsage=serverAuth,clientAuth \
      subjectKeyIdentifier=hash authorityKeyIdentifier=keyid "${3-}") \
    -out "$1.crt" 2>/dev/null
  rm -f "$1.csr"
}
key ca; key sa
openssl req -x509 -new -key ca.key -subj /CN=asya-ca -days 3650 -addext keyUsage=critical,keyCertSign,cRLSign -out ca.crt
cert apiserver /CN=kube-apiserver "subjectAltName=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$N.0.2,IP:$N.2.1"
cert apiserver-kubelet /O=system:masters/CN=apiserver-kubelet
cert front-proxy /CN=front-proxy
cert admin /O=system:masters/CN=admin
cert controller-manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert proxy /CN=system:kube-proxy
cert dns /CN=asya:dns
cert node "/O=system:nodes/CN=system:node:$name" "subjectAltName=DNS:$name,IP:$N.0.2"
for u in admin controller-manager scheduler proxy dns node; do
  cat > "../conf/$u.kubeconfig" <<K
apiVersion: v1
kind: Config
current-context: $name
contexts: [{name: $name, context: {cluster: $name, user: $u}}]
clusters: [{name: $name, cluster: {server: "https://$N.0.2:$PORT", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $u, user: {client-certificate-data: $(base64 -w0 $u.crt), client-key-data: $(base64 -w0 $u.key)}}]
K
done
cp ../conf/admin.kubeconfig "$KUBECONFIG"

# --- configuration -----------------------------------------------------------------
cd "$D/conf"
mkdir -p cni
cat > cni/10-bridge.conflist <<C
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$N.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$D/run/cni"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
cat > containerd.toml <<C
version = 2
root = "$D/node/containerd"
state = "$D/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "$D/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "asya.local/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$D/conf/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
C
cat > kubelet.yaml <<C
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$name
containerRuntimeEndpoint: unix://$D/run/containerd.sock
podLogsDir: $D/log/pods
clusterDomain: cluster.local
clusterDNS: [$N.2.10]
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $D/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $D/pki/node.crt
tlsPrivateKeyFile: $D/pki/node.key
maxPods: 200
registerNode: true
registryPullQPS: 0
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 50Mi, nodefs.available: "1%", nodefs.inodesFree: "1%", imagefs.available: "1%"}
enforceNodeAllocatable: []
syncFrequency: 10s
fileCheckFrequency: 20s
nodeStatusUpdateFrequency: 4s
nodeStatusReportFrequency: 30s
shutdownGracePeriod: 0s
C
cat > proxy.yaml <<C
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $D/conf/proxy.kubeconfig}
clusterCIDR: $N.1.0/24
hostnameOverride: $name
bindAddress: 0.0.0.0
healthzBindAddress: 127.0.0.1:10256
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms}
C
cat > Corefile <<C
.:53 {
    bind $N.0.2
    errors
    ready $N.0.2:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $D/conf/dns.kubeconfig
        pods insecure
        ttl 1
    }
    cache 1
}
C
# What the cluster needs in its API: rights for DNS, and the DNS service,
# whose one endpoint is the node itself (dns runs beside the kubelet, not in a pod).
cat > base.yaml <<C
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: asya:dns}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: asya:dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: asya:dns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "asya:dns"}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: $N.2.10
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-node, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
endpoints: [{addresses: ["$N.0.2"]}]
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
C

# --- the node's namespaces -----------------------------------------------------------
# The kubelet's cgroups hang under /$name in every v1 hierarchy, made before it starts.
for c in /sys/fs/cgroup/*/; do [ -e "$c/cgroup.procs" ] && mkdir -p "$c/$name"; done
# The kubelet sets these for the whole machine; down.sh puts them back.
( cd /proc/sys; for s in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom kernel/keys/root_maxkeys kernel/keys/root_maxbytes fs/inotify/max_user_instances; do
    [ -e $s ] && echo "$s $(cat $s)"; done ) > "$D/run/sysctls"
echo 1024 > /proc/sys/fs/inotify/max_user_instances
setsid unshare --mount --net --pid --uts --ipc --fork --kill-child --propagation private \
  "$here/node.sh" "$D" "$N" "$PORT" "$name" </dev/null >"$D/log/node.log" 2>&1 9>&- &
unsharer=$!
for _ in $(seq 100); do                 # the child is pid 1 of the namespaces
  pid=$(tr -d ' ' < "/proc/$unsharer/task/$unsharer/children" 2>/dev/null) && [ -n "$pid" ] && break; sleep 0.02
done
echo "$pid" > "$D/node.pid"
until [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
ip link add "$name-host" type veth peer name eth0 netns "$pid"
ip addr add "$N.0.1/30" dev "$name-host"
ip link set "$name-host" up
ip route add "$N.0.0/16" via "$N.0.2" dev "$name-host" 2>/dev/null || true

# --- wait until it answers -----------------------------------------------------------
k() { "$D/bin/kubectl" --kubeconfig "$KUBECONFIG" "$@"; }
t0=$(date +%s.%N); since() { echo "$(date +%s.%N) $t0" | awk '{printf "%.1fs", $1-$2}'; }
wait_for() { # what limit command...
  local what=$1 limit=$2; shift 2
  for _ in $(seq $((limit * 5))); do
    if "$@" >/dev/null 2>&1; then echo "up: $what after $(since)"; return; fi
    kill -0 "$pid" 2>/dev/null || { echo "up: the node ended; see $D/log" >&2; exit 1; }
    sleep 0.2
  done
  echo "up: no $what in ${limit}s; see $D/log" >&2; exit 1
}
wait_for "kube-apiserver ready" 60 curl -fsS --cacert "$D/pki/ca.crt" --cert "$D/pki/admin.crt" --key "$D/pki/admin.key" "https://$N.0.2:$PORT/readyz"
k apply --server-side -f "$D/conf/base.yaml" >/dev/null
"$here/image.sh" pause
wait_for "node Ready" 60 k wait --for=condition=Ready --timeout=1s "node/$name"
wait_for "default service account" 30 k get serviceaccount default
wait_for "DNS ready" 30 curl -fsS "http://$N.0.2:8181/ready"
echo "up: export KUBECONFIG=$KUBECONFIG"
