"""The API server, as much of it as the operator uses: plain dicts in and out, a deadline on every call.

No decision is made here. The generated, typed client is not used: it costs 100 MiB.
"""

import asyncio
import importlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import ClientError
from kubernetes.aio import client as aio_client
from kubernetes.aio import dynamic
from kubernetes.aio.client.exceptions import ApiException

# Not annotated over there.
aio_config: Any = importlib.import_module("kubernetes.aio.config")

Object = dict[str, Any]

# Field managers: what is applied under one name is that name's alone, and goes with the next apply that lacks it.
MANAGER = "asya-operator"
REPLICAS_MANAGER = "asya-operator-replicas"
STATUS_MANAGER = "asya-operator-status"
FINALIZER_MANAGER = "asya-operator-finalizer"

CALL_SECONDS = 30.0
MOST_CALLS = 32
PAGE = 500

# kind -> (path of its group and version, plural)
KINDS = {
    "AsyncActor": ("/apis/asya.sh/v1alpha1", "asyncactors"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "Secret": ("/api/v1", "secrets"),
    "Event": ("/api/v1", "events"),
    "Job": ("/apis/batch/v1", "jobs"),
    "MutatingWebhookConfiguration": ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"),
    "Namespace": ("/api/v1", "namespaces"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
}


class KubeError(Exception):
    """An answer other than 2xx, or none in time (status 0). The text is the API server's own message; `retry_after`
    the seconds it asks to be left alone."""

    def __init__(self, status: int, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def conflict(self) -> bool:
        return self.status == 409

    @property
    def passing(self) -> bool:
        """True for what a later attempt may well not meet: overload, restarts, lost connections. Not for a 500, which
        may be about the object (a full range of addresses, a webhook that fails)."""
        return self.status in (0, 408, 410, 429, 502, 503, 504)


def _path(kind: str, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
    group, plural = KINDS[kind]
    parts = [group, *(("namespaces", namespace) if namespace else ()), plural, name or "", subresource or ""]
    return "/".join(part for part in parts if part)


def _plain(_: Any, data: Object) -> Object:
    return data


def _message(error: ApiException) -> str:
    raw: Any = error.body
    body = raw.decode() if isinstance(raw, bytes) else str(raw or "")
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:500] or str(error.reason)


def _retry_after(error: ApiException) -> float:
    """The header's seconds; its other form, a date, is no answer of an API server."""
    try:
        return max(0.0, float((error.headers or {}).get("Retry-After", 0)))
    except ValueError:
        return 0.0


class KubeApi(Protocol):
    """What the passes ask of the API server; `Kube` is it."""

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None: ...

    async def list(self, kind: str, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]: ...

    async def apply(
        self, manifest: Mapping[str, Any], manager: str, *, force: bool, subresource: str | None = None
    ) -> Object: ...

    async def create(self, manifest: Mapping[str, Any]) -> Object: ...

    async def delete(self, kind: str, namespace: str | None, name: str) -> None: ...


class Kube:
    """Calls to one API server, at most MOST_CALLS at a time."""

    def __init__(self, client: aio_client.ApiClient) -> None:
        self._client = client
        self._dynamic: Any = dynamic.DynamicClient(client)  # type: ignore[no-untyped-call]
        self._slots = asyncio.Semaphore(MOST_CALLS)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> "Kube":
        """With the pod's service account, or with a kubeconfig: the given one, else the user's."""
        configuration = aio_client.Configuration()
        if kubeconfig is not None:
            await aio_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            try:
                aio_config.load_incluster_config(client_configuration=configuration)
            except aio_config.ConfigException:
                await aio_config.load_kube_config(client_configuration=configuration)
        return cls(aio_client.ApiClient(configuration))

    async def close(self) -> None:
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _call(self, method: str, path: str, body: Any = None, **params: Any) -> Object:
        async with self._slots:
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    answer: Object = await self._dynamic.request(method, path, body=body, serializer=_plain, **params)
                    return answer
            except ApiException as error:
                raise KubeError(int(error.status or 0), _message(error), _retry_after(error)) from None
            except TimeoutError:
                raise KubeError(0, f"no answer to {method} {path} within {CALL_SECONDS:g} s") from None
            except (OSError, ClientError) as error:
                raise KubeError(0, f"{method} {path}: {error}") from None

    async def serves(self, kind: str) -> bool:
        """Whether the API server's discovery shows a kind of a named group."""
        path, plural = KINDS[kind]
        _, _, group, version = path.split("/")
        groups = {one["name"]: one for one in (await self._call("get", "/apis"))["groups"]}
        if version not in (one["version"] for one in groups.get(group, {}).get("versions", [])):
            return False
        resources = (await self._call("get", path)).get("resources") or []
        return any(resource["name"] == plural for resource in resources)

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """The object; None where there is none."""
        try:
            return await self._call("get", _path(kind, namespace, name))
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]:
        """All objects, page by page; without a namespace those of all namespaces."""
        found: list[Object] = []
        more: str | None = None
        while True:
            page = await self._call(
                "get",
                _path(kind, namespace),
                label_selector=labels or None,
                field_selector=fields or None,
                limit=PAGE,
                _continue=more,
            )
            found.extend(page.get("items") or [])
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found

    async def apply(
        self, manifest: Mapping[str, Any], manager: str, *, force: bool, subresource: str | None = None
    ) -> Object:
        """Server-side apply as `manager`; without `force` another owner's field makes it a 409."""
        metadata = manifest["metadata"]
        return await self._call(
            "patch",
            _path(manifest["kind"], metadata.get("namespace"), metadata["name"], subresource),
            body=dict(manifest),
            content_type="application/apply-patch+yaml",
            field_manager=manager,
            force_conflicts="true" if force else "false",
        )

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        return await self._call(
            "post", _path(manifest["kind"], manifest["metadata"].get("namespace")), body=dict(manifest)
        )

    async def delete(self, kind: str, namespace: str | None, name: str) -> None:
        """Delete with everything it owns; an object that is gone already is no error."""
        try:
            await self._call("delete", _path(kind, namespace, name), propagation_policy="Background")
        except KubeError as error:
            if error.status != 404:
                raise
