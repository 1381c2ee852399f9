"""What users see of the passes: the actor's status, and Events on it where a condition changes or a step is taken."""

import datetime
import logging
from collections.abc import Callable
from typing import Any

from asya_operator.kube import MANAGER, STATUS_MANAGER, KubeApi, KubeError, Object

log = logging.getLogger("asya_operator.reports")


class Reports:
    """Statuses and Events, written."""

    def __init__(self, kube: KubeApi, now: Callable[[], datetime.datetime]) -> None:
        self._kube = kube
        self._now = now

    async def write_status(self, body: Object, status: dict[str, Any]) -> None:
        """Where it differs from what stands there; transitions become Events."""
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
                await self.event(
                    body, "Warning" if bad else "Normal", row["reason"], f"{row['type']}: {row['message']}"
                )

    async def event(self, body: Object, kind: str, reason: str, message: str) -> None:
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

    async def report_invalid(self, body: Object, message: str) -> None:
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
        await self.write_status(body, status_now)
