"""The certificate of the webhook, kept fresh in the cluster: Secret first, then caBundle."""

import asyncio
import base64
import binascii
import datetime
import logging

from prometheus_client import Gauge

from asya_operator.certificates import BadSecret, Held, from_secret, issue
from asya_operator.kube import Kube, KubeError, Object
from asya_operator.settings import CertificateSettings

log = logging.getLogger("asya_operator.rotation")

MANAGER = "asya-operator-certificates"
# Two reads. A configuration that somebody made anew has no caBundle, and until it has, no pod of an actor starts.
CHECK_SECONDS = 30.0
RETRY_SECONDS = 10.0


async def ensure(kube: Kube, settings: CertificateSettings, now: datetime.datetime) -> Held:
    """One check: read the Secret, issue what is due, write it, and make the API server trust it.

    Raises:
        KubeError: the API server refuses or does not answer.
    """
    secret = await kube.get("Secret", settings.namespace, settings.secret_name)
    held = _held(secret)
    service = f"{settings.service_name}.{settings.namespace}"
    names = [f"{service}.svc", service, *settings.extra_names]
    fresh = issue(held, now, names)
    if fresh != held:
        data = {name: base64.b64encode(value).decode() for name, value in fresh.to_secret().items()}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": settings.secret_name, "namespace": settings.namespace},
            "data": data,
        }
        await kube.apply(body, MANAGER, force=True)
        log.info("certificate issued", extra={"secret": settings.secret_name, "authorities": len(fresh.authorities)})
    await _trust(kube, settings, fresh)
    return fresh


def _held(secret: Object | None) -> Held:
    try:
        data = {name: base64.b64decode(value) for name, value in ((secret or {}).get("data") or {}).items()}
        # The chart may make an empty Secret so that pods can mount it.
        return from_secret({name: value for name, value in data.items() if value})
    except (BadSecret, binascii.Error) as error:
        log.error("certificate Secret not usable; issuing anew", extra={"cause": str(error)})
        return Held()


async def _trust(kube: Kube, settings: CertificateSettings, held: Held) -> None:
    """Put the authorities into the caBundle of our webhooks, where they are not."""
    found = await kube.get("MutatingWebhookConfiguration", None, settings.webhook_configuration)
    if found is None:
        log.warning("webhook configuration missing", extra={"configuration": settings.webhook_configuration})
        return
    bundle = base64.b64encode(held.bundle()).decode()
    hooks = found.get("webhooks") or []
    if all(hook["clientConfig"].get("caBundle") == bundle for hook in hooks):
        return
    patch = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": settings.webhook_configuration},
        "webhooks": [{"name": hook["name"], "clientConfig": {"caBundle": bundle}} for hook in hooks],
    }
    await kube.apply(patch, MANAGER, force=True)
    log.info("caBundle set", extra={"configuration": settings.webhook_configuration})


async def rotate(kube: Kube, settings: CertificateSettings, expiry: Gauge) -> None:
    """Check for ever; a failed check is repeated soon."""
    while True:
        try:
            held = await ensure(kube, settings, datetime.datetime.now(datetime.UTC))
        except KubeError as error:
            log.error("certificate check failed", extra={"cause": str(error)})
            await asyncio.sleep(RETRY_SECONDS)
            continue
        assert held.leaf is not None
        expiry.set(held.leaf.ends().timestamp())
        await asyncio.sleep(CHECK_SECONDS)
