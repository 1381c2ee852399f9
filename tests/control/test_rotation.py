"""Certificate, webhook and API server together: pods are injected by the API server's own call, while the
authority and the serving certificate change under it."""

import asyncio
import base64
import datetime
import json

import pytest

from asya_operator.certificates import CA_LIFE, OVERLAP, RENEW_BEFORE
from asya_operator.kube import Kube
from asya_operator.rotation import ensure
from asya_operator.settings import CertificateSettings
from asya_operator.webhook import Addresses, Files, Server
from support.pods import SETTINGS, pod
from support.ports import free_port

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
NAMESPACE = "asya-control"
CERTIFICATES = CertificateSettings.model_validate(
    {
        "namespace": NAMESPACE,
        "secretName": "webhook-tls",
        "serviceName": "webhook",
        "extraNames": ["localhost"],
        "webhookConfiguration": "asya-test",
    }
)


def configuration(port):
    """As the chart makes it, but for the URL: there is no Service here."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "asya-test"},
        "webhooks": [
            {
                "name": "state.asya.sh",
                "clientConfig": {"url": f"https://localhost:{port}/mutate"},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "objectSelector": {"matchLabels": {"asya.sh/state-proxy": "true"}},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "admissionReviewVersions": ["v1"],
            }
        ],
    }


@pytest.fixture
async def webhook(kube, tmp_path):
    """A webhook on a free port, its configuration, and a way to put the Secret where the kubelet would."""
    kube.request("POST", "/api/v1/namespaces", json={"metadata": {"name": NAMESPACE}})
    files = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    server = Server(SETTINGS, files, Addresses("127.0.0.1", free_port(), 0))
    await server.start()
    answer = kube.request("POST", CONFIGURATION, json=configuration(server.addresses.port))
    assert answer.status_code == 201, answer.text
    client = await Kube.connect(str(kube.kubeconfig))
    yield server, files, client
    await client.close()
    kube.request("DELETE", CONFIGURATION + "/asya-test")
    kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/secrets/webhook-tls")
    await server.stop(lame_duck=0)
    await closed()


async def closed():
    """Until the API server has answered the farewell of each TLS connection: nothing is left to be watched but the
    loop's own pipe."""
    watched = asyncio.get_running_loop()._selector.get_map()
    async with asyncio.timeout(10):
        while len(watched) > 1:
            await asyncio.sleep(0.01)


async def mount(server, files, kube):
    """What the kubelet does: the Secret's content into the files; returns when the server uses it."""
    data = (await asyncio.to_thread(kube.request, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/webhook-tls")).json()[
        "data"
    ]
    key, cert = base64.b64decode(data["tls.key"]), base64.b64decode(data["tls.crt"])
    changed = not files.cert.exists() or files.cert.read_bytes() != cert
    files.key.write_bytes(key)
    files.cert.write_bytes(cert)
    if changed:
        async with asyncio.timeout(20):
            while server.certificate._seen != (cert, key) or not server.certificate.ready.is_set():
                await asyncio.sleep(0.02)


def create(kube, name):
    body = pod()
    body["metadata"] = {**body["metadata"], "name": name}
    answer = kube.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", json=body)
    if answer.status_code == 201:
        kube.request("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}", params={"gracePeriodSeconds": "0"})
    return answer


async def test_the_api_server_has_pods_injected(kube, webhook):
    server, files, client = webhook
    await ensure(client, CERTIFICATES, datetime.datetime.now(datetime.UTC))
    await mount(server, files, kube)
    answer = await asyncio.to_thread(create, kube, "first")
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["initContainers"][0]["name"] == "asya-state-proxy"
    env = {e["name"]: e.get("value") for e in answer.json()["spec"]["initContainers"][0]["env"]}
    assert env["STATE_PREFIX"] == f"prod/{NAMESPACE}/chat-agent/"


async def test_the_users_of_a_refused_pod_read_why(kube, webhook):
    server, files, client = webhook
    await ensure(client, CERTIFICATES, datetime.datetime.now(datetime.UTC))
    await mount(server, files, kube)
    body = pod()
    body["metadata"]["annotations"] = {}
    answer = await asyncio.to_thread(kube.request, "POST", f"/api/v1/namespaces/{NAMESPACE}/pods", json=body)
    assert answer.status_code == 403
    assert "denied the request: asya state: the pod has the label asya.sh/state-proxy" in answer.json()["message"]


async def test_rotation_under_load(kube, webhook):
    """The clock of the certificates runs over ten years up to today (a certificate of the future would not be valid
    yet for the API server); the last three days, in which the authority changes, while pods are created."""
    server, files, client = webhook
    today = datetime.datetime.now(datetime.UTC)
    born = today - CA_LIFE + RENEW_BEFORE - 2.7 * OVERLAP
    for months in range(0, 115, 8):
        await ensure(client, CERTIFICATES, min(born + datetime.timedelta(days=30 * months), today - 3 * OVERLAP))
    await mount(server, files, kube)
    failures, count, stop = [], 0, asyncio.Event()

    async def load(worker):
        nonlocal count
        while not stop.is_set():
            answer = await asyncio.to_thread(create, kube, f"w{worker}-{count}")
            count += 1
            if answer.status_code != 201 or answer.json()["spec"]["initContainers"][0]["name"] != "asya-state-proxy":
                failures.append(answer.text)

    workers = [asyncio.create_task(load(n)) for n in range(4)]
    subjects, issuers = set(), set()
    try:
        for step in (-2.5, -2.0, -1.2, 0.0):
            before = count
            held = await ensure(client, CERTIFICATES, today + step * OVERLAP)
            subjects.add(held.leaf.cert)
            issuers.add(held.leaf.parsed.issuer.rfc4514_string())
            # The kubelet is late: pods meet the old certificate under the new bundle, then the new one.
            async with asyncio.timeout(30):
                while count < before + 10:
                    await asyncio.sleep(0.02)
            await mount(server, files, kube)
            async with asyncio.timeout(30):
                while count < before + 20:
                    await asyncio.sleep(0.02)
    finally:
        stop.set()
        await asyncio.gather(*workers)
    assert failures == []
    assert len(subjects) >= 2
    assert len(issuers) == 2, "the authority did not change"
    assert count >= 80


async def test_nothing_due_writes_nothing(kube, webhook):
    _, _, client = webhook
    now = datetime.datetime.now(datetime.UTC)
    await ensure(client, CERTIFICATES, now)

    def versions():
        secret = kube.request("GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/webhook-tls").json()
        hooks = kube.request("GET", CONFIGURATION + "/asya-test").json()
        return [body["metadata"]["resourceVersion"] for body in (secret, hooks)]

    before = versions()
    await ensure(client, CERTIFICATES, now)
    assert versions() == before


async def test_a_damaged_secret_is_replaced(kube, webhook, caplog):
    _, _, client = webhook
    secret = {"metadata": {"name": "webhook-tls", "namespace": NAMESPACE}, "type": "kubernetes.io/tls",
              "data": {"tls.crt": "eA==", "tls.key": "eA=="}}  # fmt: skip
    assert kube.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", json=secret).status_code == 201
    held = await ensure(client, CERTIFICATES, datetime.datetime.now(datetime.UTC))
    assert held.leaf is not None
    assert "certificate Secret not usable" in caplog.text
    assert json.dumps(held.leaf.key.decode()) not in caplog.text
