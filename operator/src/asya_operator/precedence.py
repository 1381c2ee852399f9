"""The webhook comes first: a new proxy image spreads only when every webhook pod has the settings that name it.

An older webhook does not know the image and gives a pod the one it knows, under a template that says otherwise; nothing
would ever replace that pod. Helm changes operator and webhook at one time, and either may be ready first.
"""

import datetime
import logging
from collections.abc import Callable

from asya_operator.kube import KubeApi, KubeError, Object
from asya_operator.settings import WebhookSettings

log = logging.getLogger("asya_operator.precedence")

# After its rollout the last old pods go on answering (webhook.LONGEST_DRAIN_SECONDS), and finish what is open.
LINGER_SECONDS = 20.0


class Precedence:
    """Asks until the webhook's Deployment has been rolled out for a while; then never again in this process."""

    def __init__(self, kube: KubeApi, place: WebhookSettings | None, now: Callable[[], datetime.datetime]) -> None:
        """Without a `place` nothing is waited for."""
        self._kube = kube
        self._place = place
        self._now = now
        self._settled: datetime.datetime | None = None
        self._over = place is None

    async def webhook_is_current(self) -> bool:
        """False while pods of an older webhook may answer.

        Raises:
            KubeError: the API server could not be asked.
        """
        if self._over or self._place is None:
            return True
        try:
            found = await self._kube.get("Deployment", self._place.namespace, self._place.name)
        except KubeError as error:
            if error.status != 403:
                raise
            log.warning("may not see the webhook's Deployment: a new proxy image does not wait for it")
            found = None
        if found is None:
            self._over = True
        elif not _rolled_out(found):
            self._settled = None
        else:
            self._settled = self._settled or self._now()
            self._over = (self._now() - self._settled).total_seconds() >= LINGER_SECONDS
        return self._over


def _rolled_out(deployment: Object) -> bool:
    status, replicas = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
    return bool(status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and counts == {replicas})
