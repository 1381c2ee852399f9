#!/usr/bin/env bash
# Pid 1 of the node's namespaces (started by up.sh): starts every component,
# starts again one that ends, and takes all of them along when it is ended.
set -uo pipefail
D=$1 N=$2 PORT=$3 name=$4
export PATH="$D/bin:/usr/sbin:/usr/bin:/sbin:/bin"
hostname "$name"
mount --make-rshared /
mount -t proc proc /proc
# Paths the components have no option for point into the state directory.
bind() { mkdir -p "$D/node/$1" "$2"; mount --bind "$D/node/$1" "$2"; }
bind kubelet /var/lib/kubelet
bind varlog /var/log
bind cni /var/lib/cni
bind plugins /usr/libexec/kubernetes
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
# Names outside the cluster fail at once (an image that is not here, say), not after a time-out.
echo "nameserver $N.0.2" > "$D/conf/resolv.conf"
mount --bind "$D/conf/resolv.conf" "$(realpath /etc/resolv.conf)"

ip link set lo up
for _ in $(seq 250); do ip link show eth0 >/dev/null 2>&1 && break; sleep 0.02; done
ip addr add "$N.0.2/30" dev eth0
ip link set eth0 up
ip route add default via "$N.0.1"
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables

run() { # name command...: keep it running
  local what=$1; shift
  ( while :; do
      "$@" >>"$D/log/$what.log" 2>&1
      echo "$(date -Is) $what ended: $?" >>"$D/log/node.log"; sleep 1
    done ) &
}
run etcd "$D/bin/etcd" --data-dir "$D/node/etcd" --unsafe-no-fsync --logger zap --log-level warn \
  --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380
run containerd containerd --config "$D/conf/containerd.toml" --log-level warn
p=$D/pki
run kube-apiserver "$D/bin/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
  --advertise-address "$N.0.2" --secure-port "$PORT" --service-cluster-ip-range "$N.2.0/24" \
  --tls-cert-file "$p/apiserver.crt" --tls-private-key-file "$p/apiserver.key" --client-ca-file "$p/ca.crt" \
  --kubelet-client-certificate "$p/apiserver-kubelet.crt" --kubelet-client-key "$p/apiserver-kubelet.key" \
  --kubelet-certificate-authority "$p/ca.crt" --kubelet-preferred-address-types InternalIP \
  --proxy-client-cert-file "$p/front-proxy.crt" --proxy-client-key-file "$p/front-proxy.key" \
  --requestheader-client-ca-file "$p/ca.crt" --requestheader-allowed-names front-proxy \
  --requestheader-username-headers X-Remote-User --requestheader-group-headers X-Remote-Group \
  --requestheader-extra-headers-prefix X-Remote-Extra- \
  --service-account-issuer https://kubernetes.default.svc.cluster.local \
  --service-account-key-file "$p/sa.key" --service-account-signing-key-file "$p/sa.key" \
  --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --allow-privileged \
  --profiling=false
# The rest would end, or back off, before the API server and containerd answer.
api() { curl -fsS --cacert "$p/ca.crt" --cert "$p/admin.crt" --key "$p/admin.key" "https://$N.0.2:$PORT/readyz"; }
for _ in $(seq 600); do api >/dev/null 2>&1 && [ -S "$D/run/containerd.sock" ] && break; sleep 0.1; done
run kube-controller-manager "$D/bin/kube-controller-manager" --kubeconfig "$D/conf/controller-manager.kubeconfig" \
  --authentication-kubeconfig "$D/conf/controller-manager.kubeconfig" --authorization-kubeconfig "$D/conf/controller-manager.kubeconfig" \
  --root-ca-file "$p/ca.crt" --service-account-private-key-file "$p/sa.key" --use-service-account-credentials \
  --cluster-signing-cert-file "$p/ca.crt" --cluster-signing-key-file "$p/ca.key" \
  --leader-elect=false --bind-address 127.0.0.1 --node-monitor-period 2s --kube-api-qps 500 --kube-api-burst 1000
run kube-scheduler "$D/bin/kube-scheduler" --kubeconfig "$D/conf/scheduler.kubeconfig" \
  --authentication-kubeconfig "$D/conf/scheduler.kubeconfig" --authorization-kubeconfig "$D/conf/scheduler.kubeconfig" \
  --leader-elect=false --bind-address 127.0.0.1 --kube-api-qps 500 --kube-api-burst 1000
run kubelet "$D/bin/kubelet" --config "$D/conf/kubelet.yaml" --kubeconfig "$D/conf/node.kubeconfig" \
  --hostname-override "$name" --node-ip "$N.0.2" --root-dir /var/lib/kubelet
run kube-proxy "$D/bin/kube-proxy" --config "$D/conf/proxy.yaml"
run dns "$D/bin/dns" "$D/conf/Corefile"
wait
