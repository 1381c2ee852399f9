"""The end of an actor. With `deletionPolicy: Delete` a finalizer holds
it until a Job has purged its state, or cannot."""

import logging

from asya_contract.names import ACTOR_LABEL
from asya_operator import purge, refusals
from asya_operator.api import AsyncActor
from asya_operator.desired import Manifest
from asya_operator.kube import FINALIZER_MANAGER, MANAGER, KubeApi, KubeError, Object
from asya_operator.reports import Reports
from asya_operator.rollout import Key
from asya_operator.settings import Settings

log = logging.getLogger("asya_operator.deletion")

# Looked at again without an event, in seconds.
WAIT_FOR_REPAIR = 30.0
WAIT_FOR_PURGE = 5.0


class Deletion:
    """Steps of it, one a pass."""

    def __init__(self, kube: KubeApi, settings: Settings, reports: Reports) -> None:
        self._kube = kube
        self._settings = settings
        self._reports = reports
        # Purges the API server refuses: how often, by actor.
        self._refused: dict[Key, int] = {}
        # Reasons for which a purge does not get on that have been told, by actor.
        self._told: dict[Key, set[str]] = {}

    def forget(self, key: Key) -> None:
        """An actor that is gone."""
        self._refused.pop(key, None)
        self._told.pop(key, None)

    async def hold_finalizer(self, actor: AsyncActor, body: Object) -> None:
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

    async def end(self, actor: AsyncActor, body: Object, key: Key) -> float | None:
        """A deleted actor; one with our finalizer is held until its state is purged, or cannot be."""
        if purge.FINALIZER not in (body["metadata"].get("finalizers") or []):
            return None
        try:
            again = await self._purge(actor, body)
        except KubeError as error:
            if error.passing or error.status >= 500:
                raise
            times = self._refused[key] = self._refused.get(key, 0) + 1
            if times < purge.ATTEMPTS:
                await self._reports.event(body, "Warning", "PurgeRefused", refusals.of_object(str(error)).message)
                return WAIT_FOR_REPAIR
            said = f"{purge.ATTEMPTS} attempts to purge the state were refused ({error}); the rest of it is kept"
            await self._release(body, "Warning", "StateNotPurged", said)
            again = None
        if again is None:
            self._refused.pop(key, None)
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
            await self._reports.event(body, "Normal", "Purging", "its pods are gone; a Job purges the state")
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
        told = self._told.setdefault((actor.namespace, actor.name), set())
        if found is not None and found[0] not in told:
            told.add(found[0])
            await self._reports.event(body, "Warning", "PurgeWaits", ": ".join(found))

    async def _release(self, body: Object, kind: str, reason: str, message: str) -> None:
        await self._reports.event(body, kind, reason, message)
        await self._set_finalizer(body, wanted=False)
