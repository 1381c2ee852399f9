"""One pass over one actor: read it, compute everything, apply, look, say. Level-triggered: what changed does not
matter, and a pass that finds all as it should be changes nothing."""

import datetime
import logging
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from asya_contract.names import ACTOR_LABEL, INSTALL_CONTAINER, RUNTIME_CONTAINER
from asya_operator import purge, refusals
from asya_operator.api import AsyncActor, ManifestError, parse_actor
from asya_operator.conditions import Observed, conditions, when
from asya_operator.desired import Manifest, desired
from asya_operator.kube import KubeError, Object
from asya_operator.rollout import Key, Rollout
from asya_operator.settings import Settings
from asya_operator.state import resolve

log = logging.getLogger("asya_operator.reconcile")

MANAGER = "asya-operator"
REPLICAS_MANAGER = "asya-operator-replicas"
STATUS_MANAGER = "asya-operator-status"
FINALIZER_MANAGER = "asya-operator-finalizer"
# Looked at again without an event, in seconds: a slot of the rollout, a Secret that somebody creates.
WAIT_FOR_SLOT = 60.0
WAIT_FOR_REPAIR = 30.0
WAIT_FOR_PURGE = 5.0


class KubeApi(Protocol):
    """What a pass asks of the API server."""

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None: ...

    async def list(self, kind: str, namespace: str | None, labels: str = "", fields: str = "") -> list[Object]: ...

    async def apply(
        self, manifest: Mapping[str, Any], manager: str, *, force: bool, subresource: str | None = None
    ) -> Object: ...

    async def create(self, manifest: Mapping[str, Any]) -> Object: ...

    async def delete(self, kind: str, namespace: str | None, name: str) -> None: ...


@dataclass
class Fault(Exception):
    """What keeps a pass from applying; becomes the actor's conditions."""

    reason: str
    message: str


def _refused(error: KubeError) -> Fault:
    found = refusals.explain(str(error), "ApplyFailed", "correct the field that it names")
    return Fault(found.reason, f"the API server refuses: {found.message}")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Reconciler:
    """Passes over actors; `reconcile` is all there is to call."""

    def __init__(
        self,
        kube: KubeApi,
        settings: Settings,
        now: Callable[[], datetime.datetime] = _now,
        wake: Callable[[Key], None] = lambda _: None,
    ) -> None:
        """`wake` is told actors that another's pass has made something possible for."""
        self._kube = kube
        self._settings = settings
        self._now = now
        self._wake = wake
        self._rollout = Rollout(settings.max_actors_rolling)
        self._may_read_secrets = True
        # Purges the API server refuses: how often, by actor.
        self._purges_refused: dict[Key, int] = {}
        # Reasons for which a purge does not get on that have been told, by actor.
        self._purges_told: dict[Key, set[str]] = {}

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One pass. Seconds until it should be looked at again without an event, or None.

        Raises:
            KubeError: the API server could not be asked; try again later.
        """
        key = (namespace, name)
        body = await self._kube.get("AsyncActor", namespace, name)
        if body is None:
            self._rollout.forget(key)
            self._purges_refused.pop(key, None)
            self._purges_told.pop(key, None)
            return None
        try:
            actor = parse_actor(body)
        except ManifestError as error:
            await self._report_invalid(body, str(error))
            return None
        if body["metadata"].get("deletionTimestamp"):
            self._rollout.forget(key)
            return await self._end(actor, body, key)
        return await self._pass(actor, body, key)

    async def _pass(self, actor: AsyncActor, body: Object, key: Key) -> float | None:
        current: Object | None = None
        image = self._settings.proxy_image
        fault: Fault | None = None
        scaled: str | None = None
        try:
            await self._hold_finalizer(actor, body)
            current = await self._mine(actor, "Deployment")
            image = self._rollout.image(
                key,
                _install_image(current),
                self._settings.proxy_image,
                self._settings.allowed_images,
                _was_degraded(body),
            )
            current = await self._apply(actor, current, image)
            current, scaled = await self._scale(actor, current)
        except Fault as found:
            fault = found
        except KubeError as error:
            if error.status != 403:
                raise
            fault = _refused(error)
        status = await self._look(actor, body, current, fault, scaled)
        by_type = {row["type"]: row["status"] for row in status["conditions"]}
        degraded = by_type["Degraded"] == "True"
        stable = by_type["Progressing"] == "False" and not degraded
        # By the Deployment and not by what was wanted: a pass that was refused has changed nothing.
        has_wanted = _install_image(current) == self._settings.proxy_image
        for other in self._rollout.seen(key, has_wanted, stable, degraded):
            self._wake(other)
        if image != self._settings.proxy_image:
            return WAIT_FOR_SLOT
        return WAIT_FOR_REPAIR if degraded else None

    async def _mine(self, actor: AsyncActor, kind: str) -> Object | None:
        """The child if there is one and it is this actor's; somebody else's is a fault, never adopted."""
        found = await self._kube.get(kind, actor.namespace, actor.name)
        if found is None:
            return None
        owners = [o for o in found["metadata"].get("ownerReferences") or [] if o.get("controller")]
        if len(owners) == 1 and owners[0].get("uid") == actor.metadata.uid:
            return found
        whose = f"belongs to {owners[0]['kind']} {owners[0]['name']}" if owners else "belongs to nobody"
        raise Fault(
            "NameTaken",
            f"a {kind} {actor.name!r} is there and {whose}; delete or rename it, or give the actor another name",
        )

    async def _apply(self, actor: AsyncActor, current: Object | None, image: str) -> Object:
        """Apply the children; the Deployment as it is then."""
        manifests = desired(actor, self._settings, image)
        if actor.spec.service.enabled:
            await self._mine(actor, "Service")
        elif (await self._mine_or_none(actor, "Service")) is not None:
            await self._kube.delete("Service", actor.namespace, actor.name)
        applied: dict[str, Object] = {}
        try:
            for manifest in manifests:
                if manifest["kind"] == "Deployment" and current is None:
                    # Born with its replicas, so that one of 0 never starts a pod; then they change hands.
                    born = {**manifest, "spec": {"replicas": actor.spec.replicas, **manifest["spec"]}}
                    await self._kube.apply(born, MANAGER, force=True)
                    await self._kube.apply(_replicas(actor), REPLICAS_MANAGER, force=False)
                applied[manifest["kind"]] = await self._kube.apply(manifest, MANAGER, force=True)
        except KubeError as error:
            if error.passing:
                raise
            raise _refused(error) from None
        return applied["Deployment"]

    async def _mine_or_none(self, actor: AsyncActor, kind: str) -> Object | None:
        try:
            return await self._mine(actor, kind)
        except Fault:
            return None

    async def _scale(self, actor: AsyncActor, current: Object) -> tuple[Object, str | None]:
        """Set the replicas without force: the Deployment then, and the name of whoever else owns them, else None."""
        ours = any(entry.get("manager") == REPLICAS_MANAGER for entry in current["metadata"].get("managedFields") or [])
        if ours and current["spec"].get("replicas") == actor.spec.replicas:
            return current, None
        try:
            return await self._kube.apply(_replicas(actor), REPLICAS_MANAGER, force=False), None
        except KubeError as error:
            if not error.conflict:
                raise error if error.passing else _refused(error) from None
            match = re.search(r'conflict with "([^"]+)"', str(error))
            return current, match.group(1) if match else "somebody else"

    async def _look(
        self, actor: AsyncActor, body: Object, deployment: Object | None, fault: Fault | None, scaled: str | None
    ) -> dict[str, Any]:
        """Observe, compute the status, write it if it differs, and tell transitions as Events."""
        pods: list[Object] = []
        events: list[Object] = []
        missing: list[str] = []
        if fault is None:
            try:
                pods, events, missing = await self._observe(actor, deployment)
            except KubeError as error:
                if error.status != 403:
                    raise
                fault = _refused(error)
        observed = Observed(
            deployment=deployment,
            pods=pods,
            events=events,
            missing_secrets=missing,
            fault=(fault.reason, fault.message) if fault is not None else None,
            scaled_externally=scaled,
            previous=body.get("status") or {},
        )
        status = conditions(actor, observed, self._now())
        await self._write_status(body, status)
        return status

    async def _observe(
        self, actor: AsyncActor, deployment: Object | None
    ) -> tuple[list[Object], list[Object], list[str]]:
        """The actor's pods, the warnings about them, and the Secrets that are missing."""
        pods = await self._kube.list("Pod", actor.namespace, labels=f"{ACTOR_LABEL}={actor.name}")
        pods = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        missing = await self._missing_secrets(actor)
        well = deployment is not None and _all_available(deployment)
        return pods, [] if well else await self._warnings(actor, pods), missing

    async def _missing_secrets(self, actor: AsyncActor) -> list[str]:
        """Secrets that are named and not there; a backend's default one may be absent.

        The chart grants no sight of the actors' Secrets: then the kubelet's events tell what is missing.
        """
        if actor.spec.state_proxy is None or not self._may_read_secrets:
            return []
        config = resolve(actor, self._settings, RUNTIME_CONTAINER)
        named = sorted({mount.secret_name for mount in config.mounts if not mount.secret_optional})
        try:
            return [name for name in named if await self._kube.get("Secret", actor.namespace, name) is None]
        except KubeError as error:
            if error.status != 403:
                raise
            log.info("not allowed to look for Secrets; the kubelet's events tell of missing ones")
            self._may_read_secrets = False
            return []

    async def _warnings(self, actor: AsyncActor, pods: Sequence[Object]) -> list[Object]:
        """Warnings about the actor's pods and ReplicaSets of the last ten minutes, the newest last.

        Pods by name: Kubernetes cuts long ones, and others' may begin alike. A ReplicaSet's name is the Deployment's
        and one hash, which has no dash.
        """
        names = {pod["metadata"]["name"] for pod in pods}
        replica_set = re.compile(rf"{re.escape(actor.name)}-[a-z0-9]+")
        found = await self._kube.list("Event", actor.namespace, fields="type=Warning")
        since = (self._now() - datetime.timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        mine = [
            event
            for event in found
            if when(event) >= since and _is_about(event.get("involvedObject") or {}, names, replica_set)
        ]
        return sorted(mine, key=when)

    async def _write_status(self, body: Object, status: dict[str, Any]) -> None:
        previous = body.get("status") or {}
        if previous == status:
            return
        metadata = body["metadata"]
        patch = {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": status,
        }
        await self._kube.apply(patch, STATUS_MANAGER, force=True, subresource="status")
        before = {row["type"]: row for row in previous.get("conditions") or []}
        for row in status["conditions"]:
            old = before.get(row["type"])
            if old is None or (old["status"], old["reason"]) != (row["status"], row["reason"]):
                if old is None and row["status"] != "True":
                    continue
                bad = row["type"] == "Degraded" if row["status"] == "True" else row["type"] in ("Ready", "StateReady")
                await self._event(
                    body, "Warning" if bad else "Normal", row["reason"], f"{row['type']}: {row['message']}"
                )

    async def _event(self, body: Object, kind: str, reason: str, message: str) -> None:
        """An Event on the actor. One that cannot be written is logged, and does not fail the pass."""
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = body["metadata"]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": body["apiVersion"],
                "kind": body["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata.get("uid"),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "source": {"component": MANAGER},
            "reportingComponent": MANAGER,
        }
        try:
            await self._kube.create(event)
        except KubeError as error:
            where = {"actor": f"{metadata['namespace']}/{metadata['name']}"}
            log.warning("event not written", extra={**where, "reason": reason, "cause": str(error)})

    async def _report_invalid(self, body: Object, message: str) -> None:
        """An actor that the CRD let pass and the model does not: say so, and leave its children as they are."""
        metadata = body["metadata"]
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        previous = body.get("status") or {}
        rows = []
        for kind, status in (("Ready", "False"), ("Degraded", "True")):
            old = next((c for c in previous.get("conditions") or [] if c["type"] == kind), None)
            since = old["lastTransitionTime"] if old is not None and old["status"] == status else stamp
            rows.append(
                {
                    "type": kind,
                    "status": status,
                    "reason": "InvalidSpec",
                    "message": message[:1024],
                    "observedGeneration": metadata.get("generation", 0),
                    "lastTransitionTime": since,
                }
            )
        kept = {name: previous[name] for name in ("replicas", "readyReplicas", "selector") if name in previous}
        status_now = {**kept, "observedGeneration": metadata.get("generation", 0), "conditions": rows}
        await self._write_status(body, status_now)

    async def _hold_finalizer(self, actor: AsyncActor, body: Object) -> None:
        """A finalizer exactly while deletion will need us."""
        wanted = actor.spec.deletion_policy == "Delete" and actor.spec.state_proxy is not None
        held = purge.FINALIZER in (body["metadata"].get("finalizers") or [])
        if wanted != held:
            await self._set_finalizer(body, wanted)

    async def _set_finalizer(self, body: Object, wanted: bool) -> None:
        metadata = {"name": body["metadata"]["name"], "namespace": body["metadata"]["namespace"]}
        patch: Manifest = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
        if wanted:
            metadata["finalizers"] = [purge.FINALIZER]
        await self._kube.apply(patch, FINALIZER_MANAGER, force=True)

    async def _end(self, actor: AsyncActor, body: Object, key: Key) -> float | None:
        """A deleted actor; one with our finalizer is held until its state is purged, or cannot be."""
        if purge.FINALIZER not in (body["metadata"].get("finalizers") or []):
            return None
        try:
            again = await self._purge(actor, body)
        except KubeError as error:
            if error.passing or error.status >= 500:
                raise
            times = self._purges_refused[key] = self._purges_refused.get(key, 0) + 1
            if times < purge.ATTEMPTS:
                await self._event(body, "Warning", "PurgeRefused", str(_refused(error).message))
                return WAIT_FOR_REPAIR
            said = f"{purge.ATTEMPTS} attempts to purge the state were refused ({error}); the rest of it is kept"
            await self._release(body, "Warning", "StateNotPurged", said)
            again = None
        if again is None:
            self._purges_refused.pop(key, None)
        return again

    async def _purge(self, actor: AsyncActor, body: Object) -> float | None:
        """One step of it: pods away, state purged, finalizer released. Seconds until the next, or None."""
        namespace = await self._kube.get("Namespace", None, actor.namespace)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            await self._release(body, "Warning", "StateKept", "the namespace is terminating; the state is kept")
            return None
        if actor.spec.state_proxy is None or not purge.own_config(actor, self._settings).mounts:
            await self._release(body, "Normal", "NothingToPurge", "the actor has no state of its own")
            return None
        if await self._kube.get("Deployment", actor.namespace, actor.name) is not None:
            await self._kube.delete("Deployment", actor.namespace, actor.name)
        pods = await self._kube.list("Pod", actor.namespace, labels=f"{ACTOR_LABEL}={actor.name}")
        if pods:
            return WAIT_FOR_PURGE
        job = await self._kube.get("Job", actor.namespace, purge.job_name(actor))
        if job is None:
            await self._kube.apply(purge.job(actor, self._settings), MANAGER, force=True)
            await self._event(body, "Normal", "Purging", "its pods are gone; a Job purges the state")
            return WAIT_FOR_PURGE
        if not purge.own(job, actor):
            raise KubeError(409, f"a Job {purge.job_name(actor)!r} is there and belongs to somebody else")
        outcome, words = purge.outcome(job)
        if outcome == "running":
            await self._tell_what_it_waits_for(actor, body, job)
            return WAIT_FOR_PURGE
        await self._kube.delete("Job", actor.namespace, purge.job_name(actor))
        if outcome == "failed":
            said = f"{purge.ATTEMPTS} attempts to purge the state failed ({words}); the rest of it is kept"
            await self._release(body, "Warning", "StateNotPurged", said)
            return None
        await self._release(body, "Normal", "StatePurged", "the state is gone")
        return None

    async def _tell_what_it_waits_for(self, actor: AsyncActor, body: Object, job: Object) -> None:
        """An Event where the Job's pod cannot start, one for each reason."""
        label = f"batch.kubernetes.io/job-name={job['metadata']['name']}"
        try:
            pods = await self._kube.list("Pod", actor.namespace, labels=label)
            events = await self._kube.list("Event", actor.namespace, fields="type=Warning")
        except KubeError as error:
            if error.status != 403:
                raise
            log.info(
                "not allowed to see what a purge waits for",
                extra={"actor": f"{actor.namespace}/{actor.name}", "cause": str(error)},
            )
            return
        found = purge.waits_for(job, pods, events)
        told = self._purges_told.setdefault((actor.namespace, actor.name), set())
        if found is not None and found[0] not in told:
            told.add(found[0])
            await self._event(body, "Warning", "PurgeWaits", ": ".join(found))

    async def _release(self, body: Object, kind: str, reason: str, message: str) -> None:
        await self._event(body, kind, reason, message)
        await self._set_finalizer(body, wanted=False)


def _replicas(actor: AsyncActor) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": actor.name, "namespace": actor.namespace},
        "spec": {"replicas": actor.spec.replicas},
    }


def _was_degraded(body: Object) -> bool:
    """What the pass before this one said of the actor."""
    rows = (body.get("status") or {}).get("conditions") or []
    return any(row["type"] == "Degraded" and row["status"] == "True" for row in rows)


def _is_about(what: Mapping[str, Any], pods: Container[str], replica_set: re.Pattern[str]) -> bool:
    kind, name = what.get("kind"), str(what.get("name", ""))
    return name in pods if kind == "Pod" else kind == "ReplicaSet" and replica_set.fullmatch(name) is not None


def _install_image(deployment: Object | None) -> str | None:
    """The proxy image that a Deployment's template names."""
    if deployment is None:
        return None
    containers = deployment["spec"]["template"]["spec"].get("initContainers") or []
    return next((str(c["image"]) for c in containers if c["name"] == INSTALL_CONTAINER), None)


def _all_available(deployment: Object) -> bool:
    available: int = (deployment.get("status") or {}).get("availableReplicas", 0)
    wanted: int = deployment["spec"].get("replicas", 1)
    return available >= wanted
