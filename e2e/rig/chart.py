"""The chart as Helm's own engine renders it, for each set of values that changes what comes out."""

import base64
import json
import subprocess
from collections.abc import Sequence
from functools import cache

import yaml

from rig.cluster import ROOT, Object, local_programs

CHART = ROOT / "chart"
KUBE_VERSION = "1.35"
CERTIFICATE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n").decode()
# One file for each set of values that changes what is rendered.
RENDERED: dict[str, list[str]] = {
    "defaults": [],
    "backends": [
        "stateProxy.keyPrefix=prod/",
        "stateProxy.backends.s3.region=eu-central-1",
        "stateProxy.backends.s3.secretName=bucket-keys",
        "stateProxy.backends.s3.env[0].name=AWS_RETRY_MODE,stateProxy.backends.s3.env[0].value=standard",
        "stateProxy.backends.redis.endpoint=rediss://redis.databases:6379/1",
        "stateProxy.backends.nats.endpoint=nats://nats.databases:4222",
        "stateProxy.backends.gcs.resources.limits.memory=512Mi",
    ],
    "namespaces": ["watchNamespaces={team-b,team-a}"],
    "cert-manager": ["certificates.mode=certManager"],
    "given-secret": [
        "certificates.mode=secret",
        "certificates.secretName=mine",
        f"certificates.caBundle={CERTIFICATE}",
    ],
    "openshift": ["stateProxy.uid=0"],
    "images": [
        "images.registry=registry.example.com/asya",
        "images.operator.tag=1.2.3",
        "images.proxy.digest=sha256:" + 64 * "0",
        "images.previousProxies={registry.example.com/asya/asya-state-proxy:1.2.2}",
        "images.pullSecrets={registry}",
        "images.pullPolicy=Always",
    ],
    "placement": [
        "webhook.replicas=1",
        "webhook.priorityClassName=important",
        "operator.nodeSelector.pool=system",
        "webhook.tolerations[0].key=system,webhook.tolerations[0].operator=Exists",
        "commonLabels.team=platform",
        "fullnameOverride=state",
    ],
    "quickstart": ["quickstart.enabled=true"],
    "quickstart-volume": [
        "quickstart.enabled=true",
        "quickstart.storage.size=1Gi,quickstart.storage.className=fast",
        "quickstart.buckets={one}",
        "quickstart.namespaces={team-b,team-a}",
        "quickstart.image.repository=registry.example.com:5000/versitygw",
        "stateProxy.backends.s3.secretName=bucket-keys,stateProxy.backends.s3.region=eu-central-1",
        "stateProxy.uid=0",
    ],
    "network-policies": [
        "networkPolicy.enabled=true",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
        "networkPolicy.apiServer.cidrs={10.0.0.1/32}",
        "quickstart.enabled=true",
    ],
    "monitors": [
        "monitoring.serviceMonitor.enabled=true,monitoring.serviceMonitor.labels.release=prometheus",
        "monitoring.podMonitor.enabled=true,monitoring.podMonitor.interval=30s",
    ],
    "monitors-namespaces": ["monitoring.podMonitor.enabled=true", "watchNamespaces={team-b,team-a}"],
    "priority": ["priorityClass.create=true", "operator.priorityClassName=important"],
    "test": [
        "test.backend=redis,test.bucket=actors,test.secretName=redis-url,test.serviceAccountName=tester",
        "test.consistency=lww",
        "stateProxy.keyPrefix=prod/,stateProxy.backends.redis.endpoint=redis://redis.databases:6379/1",
        "stateProxy.backends.redis.env[0].name=STATE_LOG_LEVEL,stateProxy.backends.redis.env[0].value=debug",
        "images.pullSecrets={registry}",
    ],
}
# No schema of Kubernetes' own is there for them.
FOREIGN = {"cert-manager.io/v1", "monitoring.coreos.com/v1"}


def helm(*args: str) -> str:
    """What Helm prints; its complaint is the error's text."""
    done = subprocess.run([local_programs()["helm"], *args], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise ValueError(done.stderr + done.stdout)
    return done.stdout


def render(values: Sequence[str]) -> str:
    """The whole chart, as `helm install asya --namespace asya-system` would send it."""
    return _rendered(tuple(values))


@cache
def _rendered(values: tuple[str, ...]) -> str:
    settings = [part for value in values for part in ("--set", value)]
    return helm("template", "asya", str(CHART), "-n", "asya-system", "--kube-version", KUBE_VERSION, *settings)


@cache
def objects(text: str) -> list[Object]:
    """What was rendered, parsed; for reading alone."""
    return [body for body in yaml.load_all(text, yaml.CSafeLoader) if body]


@cache
def everything() -> list[Object]:
    """Every object that is rendered for some values, the same ones once."""
    found = [body for values in RENDERED.values() for body in objects(render(values))]
    return list({json.dumps(body, sort_keys=True): body for body in found}.values())
