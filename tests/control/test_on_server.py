"""What is rendered and injected, on a real API server: strict field validation, apply, Pod Security `restricted`."""

import pytest
import yaml

from asya_operator.api import parse_actor
from asya_operator.inject import inject
from asya_operator.render import job, manifests
from support.actors import GOOD, actor
from support.pods import PODS, SETTINGS

STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


@pytest.fixture(scope="module")
def namespaces(kube):
    for name, labels in (("team-a", {}), ("strict", {"pod-security.kubernetes.io/enforce": "restricted"})):
        body = {"metadata": {"name": name, "labels": labels}}
        assert kube.request("POST", "/api/v1/namespaces", json=body).status_code == 201
    return ("team-a", "strict")


@pytest.mark.parametrize("name", GOOD)
def test_rendered_objects_are_taken(kube, name):
    for manifest in manifests(parse_actor(GOOD[name]), SETTINGS):
        group = "/apis/apps/v1" if manifest["kind"] == "Deployment" else "/api/v1"
        path = f"{group}/namespaces/default/{manifest['kind'].lower()}s"
        answer = kube.request("POST", path, json=manifest, params=STRICT)
        assert answer.status_code == 201, answer.json()["message"]


def test_a_rendered_job_is_taken(kube):
    body = job(parse_actor(actor()), SETTINGS, ["seed.py"])
    answer = kube.request("POST", "/apis/batch/v1/namespaces/default/jobs", json=body, params=STRICT)
    assert answer.status_code == 201, answer.json()["message"]


@pytest.mark.parametrize("name", PODS)
def test_injected_pods_are_taken(kube, namespaces, name):
    body = inject(PODS[name], "team-a", SETTINGS)
    body["metadata"].pop("namespace", None)
    for container in body["spec"]["containers"]:
        container.setdefault("image", "x")
    body["spec"]["serviceAccountName"] = "default"  # set by an admission plugin that wants a controller
    answer = kube.request("POST", "/api/v1/namespaces/team-a/pods", json=body, params=STRICT)
    assert answer.status_code == 201, answer.json()["message"]


def test_a_restricted_namespace_takes_the_pod(kube, namespaces):
    template = {
        "spec": {
            "securityContext": {"runAsUser": 12345, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "asya-runtime",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        }
    }
    deployment = manifests(parse_actor(actor(spec__podTemplate=template)), SETTINGS)[0]
    pod = {"apiVersion": "v1", "kind": "Pod", **deployment["spec"]["template"]}
    pod["metadata"]["name"] = "p"
    for body in (pod, inject(pod, "strict", SETTINGS)):
        answer = kube.request("POST", "/api/v1/namespaces/strict/pods", json=body, params=STRICT)
        assert answer.status_code == 201, answer.json()["message"]


def test_apply_is_stable(kube):
    """Applying the same manifests again changes nothing: no new resourceVersion, so no loop of repairs."""
    for manifest in manifests(parse_actor(actor()), SETTINGS):
        group = "/apis/apps/v1" if manifest["kind"] == "Deployment" else "/api/v1"
        path = f"{group}/namespaces/default/{manifest['kind'].lower()}s/chat-agent"
        first = kube.apply(manifest, path)
        assert first.status_code == 201, first.text
        second = kube.apply(yaml.safe_load(yaml.safe_dump(manifest)), path)
        assert second.json()["metadata"]["resourceVersion"] == first.json()["metadata"]["resourceVersion"]
        assert kube.request("DELETE", path).status_code == 200
