"""One pass over one actor: read it, compute everything, apply, look, say. Level-triggered: what changed does not
matter, and a pass that finds all as it should be changes nothing."""

import datetime
import logging
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asya_contract.names import ACTOR_LABEL, INSTALL_CONTAINER, RUNTIME_CONTAINER, STATE_CONFIG_ANNOTATION
from asya_operator import refusals
from asya_operator.api import AsyncActor, ManifestError, parse_actor
from asya_operator.conditions import Observed, conditions, when
from asya_operator.deletion import Deletion
from asya_operator.desired import Manifest, desired
from asya_operator.kube import MANAGER, REPLICAS_MANAGER, KubeApi, KubeError, Object
from asya_operator.precedence import Precedence
from asya_operator.reports import Reports
from asya_operator.rollout import Key, Rollout, Trial
from asya_operator.settings import Settings
from asya_operator.state import left_behind, resolve

log = logging.getLogger("asya_operator.reconcile")

# Looked at again without an event, in seconds: a slot of the rollout, a Secret that somebody creates.
WAIT_FOR_SLOT = 60.0
WAIT_FOR_REPAIR = 30.0
WAIT_FOR_WEBHOOK = 3.0


@dataclass
class Fault(Exception):
    """What keeps a pass from applying; becomes the actor's conditions."""

    reason: str
    message: str


def _refused(error: KubeError) -> Fault:
    return Fault(*refusals.of_object(str(error)))


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
        self._precedence = Precedence(kube, settings.webhook, now)
        self._reports = Reports(kube, now)
        self._deletion = Deletion(kube, settings, self._reports)
        self._may_read_secrets = True
        # The replicas that each actor asked for when it was last looked at.
        self._asked: dict[Key, int] = {}

    async def recall(self, namespaces: Sequence[str | None]) -> None:
        """Before the first pass: how far the last process had come with a new image, in these namespaces.

        Raises:
            KubeError: the API server could not be asked.
        """
        for namespace in namespaces:
            self._rollout.recall(await self._kube.list("Deployment", namespace, labels=ACTOR_LABEL))

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One pass. Seconds until it should be looked at again without an event, or None.

        Raises:
            KubeError: the API server could not be asked; try again later.
        """
        key = (namespace, name)
        body = await self._kube.get("AsyncActor", namespace, name)
        if body is None:
            self._forget(key)
            self._deletion.forget(key)
            return None
        try:
            actor = parse_actor(body)
        except ManifestError as error:
            await self._reports.report_invalid(body, str(error))
            return None
        if body["metadata"].get("deletionTimestamp"):
            self._forget(key)
            return await self._deletion.end(actor, body, key)
        return await self._pass(actor, body, key)

    def _forget(self, key: Key) -> None:
        self._asked.pop(key, None)
        for other in self._rollout.forget(key):
            self._wake(other)

    async def _pass(self, actor: AsyncActor, body: Object, key: Key) -> float | None:
        current: Object | None = None
        image = self._settings.proxy_image
        fault: Fault | None = None
        scaled: str | None = None
        try:
            await self._deletion.hold_finalizer(actor, body)
            current = await self._mine(actor, "Deployment")
            self._rollout.held = not await self._precedence.webhook_is_current()
            image = self._rollout.image(
                key,
                _install_image(current),
                self._settings.proxy_image,
                self._settings.allowed_images,
                _is(body, "Degraded"),
            )
            before = _state_config(current)
            current = await self._apply(actor, current, image, self._trial(body, current, image))
            if left := left_behind(before, _state_config(current)):
                await self._reports.event(body, "Warning", "StateLeftBehind", left)
            current, scaled = await self._scale(actor, current, key)
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
        trial = Trial.of(current) if _install_image(current) == self._settings.proxy_image else None
        for other in self._rollout.seen(key, trial is not None, stable, degraded):
            self._wake(other)
        if image != self._settings.proxy_image:
            return WAIT_FOR_WEBHOOK if self._rollout.held and self._rollout.first(key) else WAIT_FOR_SLOT
        if degraded:
            return WAIT_FOR_REPAIR
        return trial.rest(self._now()) + 1.0 if trial is not None else None

    def _trial(self, body: Object, current: Object | None, image: str) -> Trial | None:
        """The actor's trial with `image`, which it is about to have: a new one, the one that it is in, or none."""
        generation: int = body["metadata"].get("generation", 0)
        if current is not None and _install_image(current) != image:
            # One that was Degraded before proves nothing.
            return None if _is(body, "Degraded") else Trial(self._now(), generation)
        trial = Trial.of(current)
        if trial is None or trial.generation != generation:
            return None
        over = trial.rest(self._now()) == 0.0 and not _is(body, "Degraded") and not _is(body, "Progressing")
        return None if over else trial

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

    async def _apply(self, actor: AsyncActor, current: Object | None, image: str, trial: Trial | None) -> Object:
        """Apply the children; the Deployment as it is then."""
        manifests = desired(actor, self._settings, image, trial)
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

    async def _scale(self, actor: AsyncActor, current: Object, key: Key) -> tuple[Object, str | None]:
        """Set the replicas: the Deployment then, and the name of whoever else owns them, else None.

        By force only where the actor has just been given another number: the last word counts.
        """
        asked = self._asked.get(key, actor.spec.replicas)
        ours = any(entry.get("manager") == REPLICAS_MANAGER for entry in current["metadata"].get("managedFields") or [])
        try:
            if not ours or current["spec"].get("replicas") != actor.spec.replicas:
                force = asked != actor.spec.replicas
                current = await self._kube.apply(_replicas(actor), REPLICAS_MANAGER, force=force)
            self._asked[key] = actor.spec.replicas
            return current, None
        except KubeError as error:
            if not error.conflict:
                raise error if error.passing else _refused(error) from None
            self._asked[key] = actor.spec.replicas
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
        await self._reports.write_status(body, status)
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


def _replicas(actor: AsyncActor) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": actor.name, "namespace": actor.namespace},
        "spec": {"replicas": actor.spec.replicas},
    }


def _is(body: Object, condition: str) -> bool:
    """What the pass before this one said of the actor."""
    rows = (body.get("status") or {}).get("conditions") or []
    return any((row["type"], row["status"]) == (condition, "True") for row in rows)


def _is_about(what: Mapping[str, Any], pods: Container[str], replica_set: re.Pattern[str]) -> bool:
    kind, name = what.get("kind"), str(what.get("name", ""))
    return name in pods if kind == "Pod" else kind == "ReplicaSet" and replica_set.fullmatch(name) is not None


def _install_image(deployment: Object | None) -> str | None:
    """The proxy image that a Deployment's template names."""
    if deployment is None:
        return None
    containers = deployment["spec"]["template"]["spec"].get("initContainers") or []
    return next((str(c["image"]) for c in containers if c["name"] == INSTALL_CONTAINER), None)


def _state_config(deployment: Object | None) -> str | None:
    """The annotation of a Deployment's template."""
    if deployment is None:
        return None
    metadata = deployment["spec"]["template"].get("metadata") or {}
    text: str | None = (metadata.get("annotations") or {}).get(STATE_CONFIG_ANNOTATION)
    return text


def _all_available(deployment: Object) -> bool:
    available: int = (deployment.get("status") or {}).get("availableReplicas", 0)
    wanted: int = deployment["spec"].get("replicas", 1)
    return available >= wanted
