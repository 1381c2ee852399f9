"""The control plane away, stripped, rolled or removed: what goes on, what is refused, and what is said."""

import base64
import copy
import datetime
import threading
from collections.abc import Iterator, Mapping

import pytest
from asya_operator.certificates import CA_LIFE, Held, from_secret, new_authority

from rig.actors import Namespace, container_status, is_ready
from rig.cluster import Cluster, Object
from rig.installation import CERTIFICATE, CONFIGURATION, OPERATOR, SYSTEM, WEBHOOK, Installation
from rig.waiting import until

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
USERS = 6


@pytest.fixture
def repaired(installation: Installation) -> Iterator[Installation]:
    """The installation, to be taken apart; it is whole again after the test."""
    yield installation
    installation.install()
    for name, replicas in ((OPERATOR, 1), (WEBHOOK, 2)):
        installation.scale(name, replicas)


def test_pods_restart_while_the_operator_is_down(namespace: Namespace, repaired: Installation) -> None:
    actor = namespace.actor("counter", "handlers.counter", {"consistency": "cas"}).ready()
    assert actor.send()["count"] == 1
    repaired.scale(OPERATOR, 0)
    actor.delete_pod()
    assert actor.send()["count"] == 2
    # What was asked for meanwhile is done when it is back.
    actor.kubectl("scale", "asyncactor/counter", "--replicas=0")
    repaired.scale(OPERATOR, 1)
    actor.wait("Ready", "False", "ScaledToZero")


def test_without_a_webhook_no_pod_is_made_and_the_reason_is_told(namespace: Namespace, repaired: Installation) -> None:
    actor = namespace.actor("waiting", "handlers.files", {}).ready()
    repaired.scale(WEBHOOK, 0)
    actor.kubectl("delete", "pod", actor.pod()["metadata"]["name"], "--wait=false")
    row = actor.wait("Degraded", "True", "WebhookUnreachable")
    assert "the webhook must run" in row["message"]
    assert actor.pods() == []

    path = f"{ADMISSION}/mutatingwebhookconfigurations/{CONFIGURATION}"
    namespace.cluster.request("DELETE", path).raise_for_status()
    actor.kubectl("rollout", "restart", "deploy/waiting")
    told = until(lambda: namespace.events("the pod has no sidecar asya-state-proxy"), 60, "the policy's refusal")
    assert CONFIGURATION in told[0]["message"]
    assert actor.pods() == []

    repaired.install()
    repaired.scale(WEBHOOK, 2)
    actor.kubectl("rollout", "restart", "deploy/waiting")
    actor.ready(deadline=90)
    assert actor.send({"write": {"a": "b"}})["list"] == ["a"]


def test_without_the_chart_no_turn_is_served_and_nothing_reaches_a_disk(
    namespace: Namespace, repaired: Installation
) -> None:
    actor = namespace.actor("orphan", "handlers.files", {}).ready()
    actor.send({"write": {"a.txt": "stored"}})
    repaired.uninstall()
    # What runs goes on.
    assert actor.send({"read": ["a.txt"]})["read"] == {"a.txt": "stored"}

    before = actor.pod()
    actor.kubectl("delete", "pod", before["metadata"]["name"], "--wait=false")
    running = "asya-runtime runs without a sidecar"
    pod = until(
        lambda: next((p for p in actor.pods() if _runs(p) and p["metadata"]["uid"] != before["metadata"]["uid"]), None),
        30,
        running,
    )
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["asya-install"]
    direct = f"/api/v1/namespaces/{namespace.name}/pods/{pod['metadata']['name']}:8080/proxy/"
    assert namespace.cluster.request("POST", direct, json={"write": {"b.txt": "lost"}}).status_code != 200
    assert (
        actor.exec("asya-runtime", "sh", "-c", "ls -d /state/* 2>/dev/null; test -f /state && echo guarded")
        == "guarded\n"
    )

    repaired.install()
    row = actor.wait("Degraded", "True", "NotInjected")
    assert "delete the pod" in row["message"]

    def last_words() -> Object:
        status = container_status(actor.pod(), "asya-runtime")
        ended = (status.get("lastState") or {}).get("terminated") or (status.get("state") or {}).get("terminated")
        return ended or {}

    ended = until(last_words, 90, "the handler's container gives up")
    assert ended["exitCode"] != 0
    assert "/var/run/asya/state/state.sock" in ended["message"]
    assert not is_ready(actor.pod())
    actor.delete_pod()
    actor.ready()
    assert actor.send({"read": ["a.txt"]})["read"] == {"a.txt": "stored"}


def test_a_stripped_restart_policy_is_refused_by_name(namespace: Namespace) -> None:
    """The policy alone, on a pod as a webhook of the old kind leaves it. It runs after ours, so ours is left out."""
    pod = _pod(namespace)
    proxy = {"name": "asya-state-proxy", "image": "x", "command": ["true"]}
    policy = namespace.cluster.get(f"{ADMISSION}/validatingadmissionpolicies/{CONFIGURATION}")
    body = copy.deepcopy(policy)
    label = {"e2e.asya.sh/policy": namespace.name}
    body["metadata"] = {"name": f"{CONFIGURATION}-{namespace.name}"}
    body["spec"]["matchConstraints"]["objectSelector"] = {"matchLabels": label}
    body.pop("status", None)
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": body["metadata"]["name"]},
        "spec": {"policyName": body["metadata"]["name"], "validationActions": ["Deny"]},
    }
    pod["metadata"]["labels"] = label
    pod["spec"]["initContainers"] = [proxy]
    try:
        namespace.cluster.apply(body, binding)

        def refused() -> str | None:
            answer = _create(namespace, pod, dryRun="All")
            return answer["message"] if answer.get("kind") == "Status" else None

        said = until(refused, 30, "the policy takes effect")
        assert "has lost restartPolicy: Always" in said
        pod["spec"]["initContainers"] = [{**proxy, "restartPolicy": "Always"}]
        assert _create(namespace, pod, dryRun="All")["kind"] == "Pod"
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            namespace.cluster.kubectl("delete", kind, body["metadata"]["name"], "--ignore-not-found")


def test_every_pod_is_injected_while_webhook_and_certificate_are_replaced(
    namespace: Namespace, repaired: Installation
) -> None:
    pod = _pod(namespace)
    pod["spec"]["schedulingGates"] = [{"name": "e2e.asya.sh/never"}]
    old_leaf = _secret(namespace.cluster)["tls.crt"]
    answers: list[Object] = []
    failed: list[BaseException] = []
    replaced = threading.Event()

    def create(pause: float, params: Mapping[str, str]) -> None:
        try:
            while not replaced.wait(pause):
                answers.append(_create(namespace, pod, **params))
        except BaseException as error:
            failed.append(error)

    # Many at a time keep many connections open, each of which may be in use when a webhook ends.
    users = [(0.5, {}), *[(0.1, {"dryRun": "All"})] * USERS]
    creators = [threading.Thread(target=create, args=user) for user in users]
    for creator in creators:
        creator.start()
    try:
        repaired.kubectl("rollout", "restart", f"deploy/{WEBHOOK}")
        repaired.kubectl("rollout", "status", f"deploy/{WEBHOOK}", "--timeout=90s", deadline=100)
        _trust_an_older_authority(namespace.cluster)
        repaired.kubectl("rollout", "restart", f"deploy/{OPERATOR}")
        until(lambda: _secret(namespace.cluster)["tls.crt"] != old_leaf, 60, "the operator issued another certificate")
        until(lambda: _reloads(repaired) == {2}, 90, "both webhooks took it into use without a restart")
    finally:
        replaced.set()
        for creator in creators:
            creator.join(timeout=30)
    assert failed == []
    # Controllers would repeat a creation that was refused; users of kubectl do not, so none may be.
    refused = [answer for answer in answers if answer.get("kind") != "Pod"]
    assert refused == []
    assert len(answers) > 100
    naked = [a["metadata"]["name"] for a in answers if a["spec"]["initContainers"][0]["name"] != "asya-state-proxy"]
    assert naked == []


def _runs(pod: Object) -> bool:
    return "running" in (container_status(pod, "asya-runtime").get("state") or {})


def _pod(namespace: Namespace) -> Object:
    """A pod as the operator's Deployment makes it."""
    actor = namespace.actor("template", "handlers.files", {}, replicas=0)
    path = "apps/v1/deployments/template"
    deployment = until(lambda: namespace.get(path), 30, "the Deployment")
    actor.kubectl("delete", "asyncactor", "template", "--wait=false")
    template = deployment["spec"]["template"]
    labels = {name: text for name, text in template["metadata"]["labels"].items() if name != "asya.sh/actor"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "labels": labels, "generateName": "made-"},
        "spec": template["spec"],
    }


def _create(namespace: Namespace, pod: Object, **params: str) -> Object:
    answer = namespace.cluster.request("POST", f"/api/v1/namespaces/{namespace.name}/pods", json=pod, params=params)
    body: Object = answer.json()
    return body


def _secret(cluster: Cluster) -> dict[str, bytes]:
    found = cluster.get(f"/api/v1/namespaces/{SYSTEM}/secrets/{CERTIFICATE}")
    return {name: base64.b64decode(text) for name, text in found["data"].items()}


def _trust_an_older_authority(cluster: Cluster) -> None:
    """As if another authority had been made a year ago: it is trusted, and the operator must sign with it next."""
    held = from_secret(_secret(cluster))
    older = new_authority(datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=365))
    assert datetime.timedelta(days=500) < CA_LIFE
    # The newest of those that are old enough, also where this test was here before.
    both = Held((*held.authorities[:-1], older, held.authorities[-1]), held.leaf)
    path = f"{ADMISSION}/mutatingwebhookconfigurations/{CONFIGURATION}"
    bundle = base64.b64encode(both.bundle()).decode()
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle}]
    json_patch = {"Content-Type": "application/json-patch+json"}
    cluster.request("PATCH", path, json=patch, headers=json_patch).raise_for_status()
    data = {name: base64.b64encode(value).decode() for name, value in both.to_secret().items()}
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    path = f"/api/v1/namespaces/{SYSTEM}/secrets/{CERTIFICATE}"
    cluster.request("PATCH", path, json={"data": data}, headers=merge_patch).raise_for_status()


def _reloads(installation: Installation) -> set[int]:
    """How many certificates each webhook pod has loaded, where every one of them says the same."""
    path = f"/api/v1/namespaces/{SYSTEM}/pods"
    pods = installation.cluster.get(path, labelSelector="app.kubernetes.io/component=webhook")["items"]
    counts = set()
    for pod in pods:
        if pod["metadata"].get("deletionTimestamp"):
            continue
        name = pod["metadata"]["name"]
        answer = installation.cluster.request("GET", f"{path}/{name}:8080/proxy/metrics")
        lines = [
            line
            for line in answer.text.splitlines()
            if line.startswith("asya_operator_webhook_certificate_reloads_total{")
        ]
        counts.add(sum(int(float(line.split()[1])) for line in lines if 'result="loaded"' in line))
    return counts
