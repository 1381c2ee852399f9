"""Actors as a test sees them: a namespace of its own, manifests, messages, pods, conditions."""

import contextlib
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests

from rig.backends import BUCKET
from rig.cluster import Cluster, Object
from rig.waiting import until

READY_SECONDS = 60.0
GONE_SECONDS = 60.0


class Unanswered(Exception):
    """A message that got another answer than 200; `status` 0 where the connection ended without one."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status
        self.text = text


@dataclass(frozen=True)
class Actor:
    """One AsyncActor."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return f"/apis/asya.sh/v1alpha1/namespaces/{self.namespace}/asyncactors/{self.name}"

    def body(self) -> Object:
        return self.cluster.get(self.path)

    def condition(self, kind: str) -> Object:
        rows = (self.body().get("status") or {}).get("conditions") or []
        return next((row for row in rows if row["type"] == kind), {})

    def wait(self, kind: str, status: str, reason: str | None = None, deadline: float = READY_SECONDS) -> Object:
        """Until a condition says so, about the manifest as it is now."""

        def look() -> Object | None:
            body = self.body()
            rows = (body.get("status") or {}).get("conditions") or []
            for row in rows:
                current = row["observedGeneration"] == body["metadata"]["generation"]
                if (row["type"], row["status"]) == (kind, status) and reason in (None, row["reason"]) and current:
                    return dict(row)
            return None

        with contextlib.suppress(AssertionError):
            return dict(until(look, deadline, kind))
        raise AssertionError(f"{self.name}: no {kind}={status} {reason or ''} within {deadline:g} s: {self.status()}")

    def status(self) -> Any:
        return self.body().get("status")

    def ready(self, deadline: float = READY_SECONDS) -> "Actor":
        """Until the rollout is over and every replica answers."""
        self.wait("Ready", "True", deadline=deadline)
        self.rolled_out(deadline)
        return self

    def rolled_out(self, deadline: float = READY_SECONDS) -> None:
        self.kubectl("rollout", "status", f"deploy/{self.name}", f"--timeout={deadline:g}s", deadline=deadline + 10)

    def kubectl(self, *args: str, stdin: str | None = None, deadline: float = 60) -> str:
        return self.cluster.kubectl("-n", self.namespace, *args, stdin=stdin, deadline=deadline)

    def send(self, payload: Mapping[str, Any] | None = None, deadline: float = 30, path: str = "/") -> Any:
        """What the handler answers to one message, sent through the API server to one of the Service's pods.

        Raises:
            Unanswered: any other answer than 200.
        """
        url = f"/api/v1/namespaces/{self.namespace}/services/{self.name}:http/proxy{path}"
        try:
            answer = self.cluster.request("POST", url, deadline=deadline, json=dict(payload or {}))
        except requests.RequestException as error:
            raise Unanswered(0, str(error)) from None
        if answer.status_code != 200:
            raise Unanswered(answer.status_code, answer.text)
        return answer.json()

    def pods(self) -> list[Object]:
        """Pods that are not being deleted."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.cluster.get(path, labelSelector=f"asya.sh/actor={self.name}")["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def pod(self) -> Object:
        """The only pod."""
        (pod,) = self.pods()
        return pod

    def replaced(self, before: Object, deadline: float = READY_SECONDS) -> Object:
        """The pod that came for `before`, once it is ready."""

        def look() -> Object | None:
            others = [p for p in self.pods() if p["metadata"]["uid"] != before["metadata"]["uid"]]
            return next((pod for pod in others if is_ready(pod)), None)

        return dict(until(look, deadline, f"another pod of {self.name}"))

    def delete_pod(self) -> Object:
        """Delete the only pod, and wait for its successor."""
        before = self.pod()
        self.kubectl("delete", "pod", before["metadata"]["name"], "--wait=false")
        return self.replaced(before)

    def restart_count(self, container: str) -> int:
        return int(container_status(self.pod(), container)["restartCount"])

    def logs(self, container: str, *args: str) -> str:
        name = self.pod()["metadata"]["name"]
        return self.kubectl("logs", name, "-c", container, *args)

    def exec(self, container: str, *command: str) -> str:
        """What a command prints in the only pod."""
        return self.kubectl("exec", self.pod()["metadata"]["name"], "-c", container, "--", *command)

    def delete(self, deadline: float = GONE_SECONDS) -> None:
        """Delete it and wait until its pods are gone."""
        self.kubectl("delete", "asyncactor", self.name, f"--timeout={deadline:g}s", deadline=deadline + 10)
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        until(
            lambda: not self.cluster.get(path, labelSelector=f"asya.sh/actor={self.name}")["items"],
            deadline,
            f"no pods of {self.name}",
        )


def is_ready(pod: Object) -> bool:
    rows = (pod.get("status") or {}).get("conditions") or []
    return any(row["type"] == "Ready" and row["status"] == "True" for row in rows)


def container_status(pod: Object, container: str) -> Object:
    status = pod.get("status") or {}
    rows = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return next((row for row in rows if row["name"] == container), {})


@dataclass(frozen=True)
class Namespace:
    """A namespace for one test."""

    cluster: Cluster
    images: Mapping[str, str]
    name: str

    def manifest(self, name: str, handler: str, state: Mapping[str, Any] | None = None, **spec: Any) -> Object:
        """An actor of the plain image. `state` is what differs from the backend and bucket of the tests;
        None is no state at all."""
        body = {"image": self.images["plain"], "handler": handler, **spec}
        if state is not None:
            body["stateProxy"] = {"backend": "redis", "bucket": BUCKET, **state}
        return {
            "apiVersion": "asya.sh/v1alpha1",
            "kind": "AsyncActor",
            "metadata": {"name": name, "namespace": self.name},
            "spec": body,
        }

    def actor(self, name: str, handler: str, state: Mapping[str, Any] | None = None, **spec: Any) -> Actor:
        """Apply one; it is not waited for."""
        self.cluster.apply(self.manifest(name, handler, state, **spec), namespace=self.name)
        return Actor(self.cluster, self.name, name)

    def get(self, path: str, **params: str) -> Object:
        """From this namespace: `pods`, or `apps/v1/deployments/NAME`."""
        parts = path.split("/", 2)
        if len(parts) == 3:
            return self.cluster.get(f"/apis/{parts[0]}/{parts[1]}/namespaces/{self.name}/{parts[2]}", **params)
        return self.cluster.get(f"/api/v1/namespaces/{self.name}/{path}", **params)

    def events(self, text: str) -> list[Object]:
        """Events whose message has `text`."""
        return [event for event in self.get("events")["items"] if text in (event.get("message") or "")]


def new_namespace(cluster: Cluster, images: Mapping[str, str], labels: Mapping[str, str]) -> Namespace:
    """A namespace with a name of its own, ready for pods."""
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}
    cluster.request("POST", "/api/v1/namespaces", json=body).raise_for_status()
    path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    until(lambda: cluster.get(path), 20, "the default service account")
    return Namespace(cluster, images, name)


def said(error: subprocess.CalledProcessError) -> str:
    """What a failed program printed."""
    return f"{error.stdout}{error.stderr}"
