"""The CRD on a real API server: what the model passes it takes, what the model refuses it refuses."""

import subprocess

import pytest

from support.actors import BAD, GOOD, actor

COLLECTION = "/apis/asya.sh/v1alpha1/namespaces/default/asyncactors"


def create(kube, body, **params):
    return kube.request("POST", COLLECTION, json=body, params={"dryRun": "All", "fieldValidation": "Strict", **params})


@pytest.mark.parametrize("name", GOOD)
def test_right_manifests_are_taken(kube, name):
    answer = create(kube, GOOD[name])
    assert answer.status_code == 201, answer.json()["message"]


@pytest.mark.parametrize("name", BAD)
def test_wrong_manifests_are_refused(kube, name):
    body, path, _ = BAD[name]
    answer = create(kube, body)
    assert answer.status_code in (400, 422), answer.text
    # Rules over a whole mapping are reported at the mapping.
    at = {"request-over-limit": "spec.resources", "template-label": "spec.podTemplate.metadata.labels"}.get(name, path)
    field = at.partition("[")[0].rpartition(".")[2]
    assert field in answer.text


def test_defaults_are_in_the_schema(kube):
    spec = create(kube, actor(spec__stateProxy={"backend": "redis"})).json()["spec"]
    assert spec == {
        "image": "my-chat-agent:latest",
        "handler": "agent.process",
        "pythonExecutable": "python3",
        "entrypoint": "override",
        "replicas": 1,
        "port": 8080,
        "concurrency": 1,
        "turnTimeout": "5m",
        "conflictRetries": 0,
        "service": {"enabled": True},
        "deletionPolicy": "Retain",
        "stateProxy": {
            "backend": "redis",
            "consistency": "lww",
            "mountPath": "/state",
            "guard": "file",
            "maxFileSize": "64Mi",
            "requestTimeout": "30s",
        },
    }


def test_scale_explain_and_short_name(kube):
    body = actor(metadata__name="scaled")
    assert kube.request("POST", COLLECTION, json=body).status_code == 201
    status = {"status": {"replicas": 1, "selector": "asya.sh/actor=scaled"}}
    patched = kube.request(
        "PATCH", f"{COLLECTION}/scaled/status", json=status, headers={"Content-Type": "application/merge-patch+json"}
    )
    assert patched.status_code == 200
    scale = kube.request("GET", f"{COLLECTION}/scaled/scale").json()
    assert scale["spec"]["replicas"] == 1
    assert scale["status"] == {"replicas": 1, "selector": "asya.sh/actor=scaled"}

    def kubectl(*args: str) -> str:
        command = [str(kube.kubectl), "--kubeconfig", str(kube.kubeconfig), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert "scaled" in kubectl("get", "aa", "scaled")
    assert "READY" in kubectl("get", "asyncactors", "-o", "wide")
    assert "lww: the later write wins" in " ".join(kubectl("explain", "aa.spec.stateProxy.consistency").split())
    assert kube.request("DELETE", f"{COLLECTION}/scaled").status_code == 200
