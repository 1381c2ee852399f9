"""The servers that hold the state of the actors: one pod and one Service each, for the whole session."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rig.cluster import Cluster, Object

NAMESPACE = "asya-e2e-backends"
BUCKET = "e2e"
ACCESS_KEY, SECRET_KEY = "asya-e2e", "asya-e2e-secret"


@dataclass(frozen=True)
class Backend:
    """A server by the name of its backend, which is also its image's; `settings` are the chart's for it."""

    name: str
    scheme: str
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.name}.{NAMESPACE}:{self.port}"

    def values(self) -> list[str]:
        """Its part of Helm's `--set`."""
        settings = {"endpoint": self.url, **self.settings}
        return [f"stateProxy.backends.{self.name}.{key}={value}" for key, value in settings.items()]

    def manifests(self, image: str) -> list[Object]:
        metadata = {"name": self.name, "namespace": NAMESPACE, "labels": {"app": self.name}}
        container: dict[str, Any] = {
            "name": self.name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "env": [{"name": name, "value": value} for name, value in self.env.items()],
            "readinessProbe": {"tcpSocket": {"port": self.port}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        pod = {
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 1,
        }
        service = {"selector": {"app": self.name}, "ports": [{"port": self.port}]}
        return [
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
            {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        ]


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("redis", "redis", 6379),
        Backend("nats", "nats", 4222),
        Backend(
            "s3",
            "http",
            7070,
            {"region": "us-east-1"},
            {"ROOT_ACCESS_KEY_ID": ACCESS_KEY, "ROOT_SECRET_ACCESS_KEY": SECRET_KEY},
        ),
        Backend("gcs", "http", 4443),
    )
}


def start(cluster: Cluster, images: Mapping[str, str]) -> None:
    """All of them; they outlive the actors of the session."""
    parts = [part for name, backend in BACKENDS.items() for part in backend.manifests(images[name])]
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}, *parts)
    ready = ("--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("-n", NAMESPACE, "wait", "pod", "--all", *ready, deadline=70)


def secret() -> Object:
    """The credentials of the S3 server, under the name that actors take where they name none."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "asya-state-s3"},
        "stringData": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
    }
