"""A real API server without nodes: etcd and kube-apiserver on loopback, ended by their own handles.

Binaries are looked for in KUBEBUILDER_ASSETS, then where `e2e/cluster/build.sh` puts them.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import yaml

from support.ports import free_port

CRD = Path(__file__).resolve().parents[2] / "crds" / "asyncactors.yaml"
CRD_COLLECTION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ADMIN_TOKEN = "admin-of-a-throwaway-server"
# A user without any right until a test gives some.
USER, USER_TOKEN = "operator", "user-of-a-throwaway-server"


class NoBinaries(RuntimeError):
    pass


def binaries() -> Path:
    """The directory with etcd, kube-apiserver and kubectl."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    candidates = [cache / "asya" / "cluster" / "bin"]
    if "KUBEBUILDER_ASSETS" in os.environ:
        candidates.insert(0, Path(os.environ["KUBEBUILDER_ASSETS"]))
    for place in candidates:
        if all((place / name).exists() for name in ("etcd", "kube-apiserver", "kubectl")):
            return place
    raise NoBinaries(
        f"no etcd, kube-apiserver and kubectl in {' or '.join(map(str, candidates))}: "
        "build them once with `make cluster-build`, or set KUBEBUILDER_ASSETS"
    )


def program(name: str) -> Path:
    """One of the other programs that `make cluster-build` makes, such as helm."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    place = cache / "asya" / "cluster" / "bin" / name
    if not place.exists():
        raise NoBinaries(f"{place} is missing: build it once with `make cluster-build`")
    return place


class Program:
    """One process that may be ended and started again; its output goes to `log`."""

    def __init__(self, log: Path, command: list[str]) -> None:
        self.log, self._command = log, command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(self._command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=20)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()


@dataclass(frozen=True)
class ApiServer:
    url: str
    ca_file: Path
    kubeconfig: Path
    kubectl: Path
    program: Program
    token: str = ADMIN_TOKEN

    def start(self) -> None:
        """Start it, on the port and the data it had before; returns when it is ready."""
        self.program.start()
        _wait_ready(self, 60)

    def kubeconfig_of(self, token: str, name: str, url: str = "") -> Path:
        """A kubeconfig for another user, or to another place: a file `name` beside the admin's."""
        text = self.kubeconfig.read_text().replace(self.token, token).replace(self.url, url or self.url)
        place = self.kubeconfig.with_name(name)
        place.write_text(text)
        return place

    def request(self, method: str, path: str, **kwargs: object) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", **kwargs.pop("headers", {})}  # type: ignore[dict-item]
        return requests.request(
            method, self.url + path, headers=headers, verify=str(self.ca_file), timeout=30, **kwargs
        )  # type: ignore[arg-type]

    def apply(self, manifest: dict[str, object], path: str, **params: str) -> requests.Response:
        """Server-side apply of one object at its own path."""
        return self.request(
            "PATCH",
            path,
            data=yaml.safe_dump(manifest).encode(),
            params={"fieldManager": "tests", "force": "true", **params},
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def wait(self, holds: Callable[[], bool], deadline: float = 20) -> None:
        """Poll until `holds()`; AssertionError after `deadline` seconds."""
        until = time.monotonic() + deadline
        while not holds():
            assert time.monotonic() < until, "it did not come true in time"
            time.sleep(0.05)


def install(server: ApiServer) -> None:
    """The CRD of this project, established."""
    answer = server.apply(yaml.safe_load(CRD.read_text()), f"{CRD_COLLECTION}/asyncactors.asya.sh")
    assert answer.status_code == 201, answer.text
    server.wait(lambda: server.request("GET", "/apis/asya.sh/v1alpha1/asyncactors").status_code == 200)


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=30)


def _certificates(place: Path) -> None:
    ca, key, out = place / "ca.crt", place / "ca.key", place / "server.crt"
    ext = place / "ext"
    ext.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\n"
    )
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    _openssl("req", "-x509", "-new", "-key", str(key), "-subj", "/CN=tests-ca", "-days", "2", "-out", str(ca),
             "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    for name in ("server", "sa"):
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(place / f"{name}.key"))
    _openssl("req", "-new", "-key", str(place / "server.key"), "-subj", "/CN=tests", "-out", str(place / "server.csr"))
    _openssl("x509", "-req", "-in", str(place / "server.csr"), "-CA", str(ca), "-CAkey", str(key), "-CAcreateserial",
             "-days", "2", "-extfile", str(ext), "-out", str(out))  # fmt: skip


@contextlib.contextmanager
def _running(program: Program) -> Iterator[None]:
    program.start()
    try:
        yield
    finally:
        program.stop()


def _wait_ready(server: ApiServer, deadline: float) -> None:
    log = server.program.log
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        if server.program.ended():
            raise RuntimeError(f"kube-apiserver ended: {log.read_text()[-3000:]}")
        with contextlib.suppress(requests.ConnectionError):
            if server.request("GET", "/readyz").status_code == 200:
                return
        time.sleep(0.05)  # between two looks at something that has no event
    raise RuntimeError(f"kube-apiserver not ready within {deadline} s: {log.read_text()[-3000:]}")


@contextlib.contextmanager
def api_server(place: Path, extra: tuple[str, ...] = ()) -> Iterator[ApiServer]:
    """A fresh API server with RBAC, empty but for what it makes itself; everything lies in `place`."""
    programs = binaries()
    _certificates(place)
    (place / "tokens.csv").write_text(f"{ADMIN_TOKEN},admin,admin,system:masters\n{USER_TOKEN},{USER},{USER}\n")
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd = f"http://127.0.0.1:{etcd_port}"
    peer = f"http://127.0.0.1:{peer_port}"
    kubeconfig = place / "kubeconfig"
    program = Program(
        place / "apiserver.log",
        [str(programs / "kube-apiserver"), "--etcd-servers", etcd,
         "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(port),
         "--service-cluster-ip-range", "10.99.0.0/16",
         "--tls-cert-file", str(place / "server.crt"), "--tls-private-key-file", str(place / "server.key"),
         "--token-auth-file", str(place / "tokens.csv"),
         "--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
         "--service-account-key-file", str(place / "sa.key"),
         "--service-account-signing-key-file", str(place / "sa.key"),
         # No controller makes ServiceAccounts here, so no pod may wait for one.
         "--disable-admission-plugins", "ServiceAccount",
         "--authorization-mode", "RBAC", "--endpoint-reconciler-type", "none", "--profiling=false",
         "--enable-priority-and-fairness=false", *extra],
    )  # fmt: skip
    server = ApiServer(f"https://127.0.0.1:{port}", place / "ca.crt", kubeconfig, programs / "kubectl", program)
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "t",
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
                "clusters": [
                    {"name": "t", "cluster": {"server": server.url, "certificate-authority": str(server.ca_file)}}
                ],
                "users": [{"name": "t", "user": {"token": ADMIN_TOKEN}}],
            }
        )
    )
    store = Program(
        place / "etcd.log",
        [str(programs / "etcd"), "--data-dir", str(place / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
         "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"],
    )  # fmt: skip
    with _running(store), contextlib.ExitStack() as end:
        end.callback(program.stop)
        server.start()
        yield server
