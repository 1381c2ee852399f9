"""The AsyncActor as an object of the cluster: columns, conditions, scale, autoscalers, Jobs, its end."""

import json
from functools import partial

import pytest
import yaml

from rig.actors import Namespace
from rig.backends import BACKENDS
from rig.installation import OPERATOR, RELEASE, SYSTEM, Installation
from rig.waiting import until
from support.golden import Golden


def test_kubectl_shows_waits_scales_and_explains(namespace: Namespace) -> None:
    actor = namespace.actor("shown", "handlers.files", {"consistency": "cas"})
    actor.kubectl("wait", "asyncactor/shown", "--for=condition=Ready", "--timeout=60s", deadline=70)
    header, row = actor.kubectl("get", "aa").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "REPLICAS", "BACKEND", "CONSISTENCY", "AGE"]
    assert row.split()[:6] == ["shown", "True", "Available", "1", "redis", "cas"]
    assert "MESSAGE" in actor.kubectl("get", "aa", "-o", "wide").splitlines()[0]

    rows = {row["type"]: row["status"] for row in actor.status()["conditions"]}
    assert rows == {"Ready": "True", "Progressing": "False", "Degraded": "False", "StateReady": "True"}
    assert actor.status()["observedGeneration"] == actor.body()["metadata"]["generation"]
    assert actor.status()["selector"] == "asya.sh/actor=shown"
    assert "Available" in actor.kubectl("describe", "asyncactor", "shown")

    actor.kubectl("scale", "asyncactor/shown", "--replicas=0")
    actor.wait("Ready", "False", "ScaledToZero")
    until(lambda: not actor.pods(), 30, "no pods")
    actor.kubectl("scale", "asyncactor/shown", "--replicas=1")
    actor.ready()

    explained = namespace.cluster.kubectl("explain", "asyncactor.spec.stateProxy.consistency")
    assert "lww" in explained
    assert "cas" in explained


def test_the_chart_tells_what_to_do_next(installation: Installation, golden: Golden) -> None:
    golden.check("chart/NOTES.txt", installation.cluster.run("helm", "get", "notes", RELEASE, "-n", SYSTEM))


def test_troubles_are_told_with_what_to_do(namespace: Namespace) -> None:
    missing = namespace.actor("missing", "handlers.files", {"credentials": {"secretName": "none"}})
    lost = namespace.actor("lost", "handlers.files", {"endpoint": "redis://127.0.0.1:1"})
    crashing = namespace.actor("crashing", "nowhere.process")
    row = missing.wait("StateReady", "False", "SecretMissing")
    assert "'none'" in row["message"]
    assert "create it" in row["message"]
    assert "nowhere" in crashing.wait("Degraded", "True", "HandlerCrashing")["message"]
    assert lost.condition("Ready")["status"] == "False"

    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "none"},
        "stringData": {"REDIS_URL": BACKENDS["redis"].url},
    }
    namespace.cluster.apply(secret, namespace=namespace.name)
    missing.ready(deadline=120)
    missing.send({"write": {"a": "b"}})


def test_autoscalers_target_the_actor(namespace: Namespace) -> None:
    actor = namespace.actor("scaled", "handlers.files", {}).ready()
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaled"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "asya.sh/v1alpha1", "kind": "AsyncActor", "name": actor.name},
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
        },
    }
    namespace.cluster.apply(autoscaler, namespace=namespace.name)
    actor.kubectl("wait", "hpa/scaled", "--for=condition=AbleToScale", "--timeout=60s", deadline=70)
    # Below its minimum it scales without any metric: through the actor, which passes it on.
    until(lambda: (actor.status() or {}).get("readyReplicas") == 2, 60, "the autoscaler's minimum of replicas")
    assert actor.condition("ScaledExternally") == {}


def test_a_job_made_by_render_runs_with_the_state(namespace: Namespace, installation: Installation) -> None:
    actor = namespace.actor("agent", "handlers.files", {}).ready()
    actor.send({"write": {"in.txt": "from the actor"}})
    manifest = yaml.safe_dump(namespace.manifest("agent", "handlers.files", {}))
    rendered = installation.kubectl(
        "exec", "-i", f"deploy/{OPERATOR}", "--",
        "asya-operator", "render", "-f", "-", "--as", "job", "--", "read_state.py", "/state/in.txt", "/state/out.txt",
        stdin=manifest,
    )  # fmt: skip
    job = yaml.safe_load(rendered)
    job["metadata"] = {"name": "seed", "namespace": namespace.name, "labels": job["metadata"]["labels"]}
    namespace.cluster.apply(job, namespace=namespace.name)
    actor.kubectl("wait", "job/seed", "--for=condition=Complete", "--timeout=60s", deadline=70)
    assert actor.send({"read": ["out.txt"]})["read"] == {"out.txt": "found: from the actor"}
    assert len(actor.pods()) == 1


def _gone(namespace: Namespace, path: str) -> bool:
    return not namespace.get(path)


def test_state_outlives_its_actor_unless_told_otherwise(namespace: Namespace) -> None:
    actor = namespace.actor("heir", "handlers.files", {}).ready()
    actor.send({"write": {"will.txt": "for my heir", "folder/deep.txt": "too"}})
    actor.delete()
    for path in ("apps/v1/deployments/heir", "services/heir"):
        until(partial(_gone, namespace, path), 30, f"{path} is gone")

    actor = namespace.actor("heir", "handlers.files", {}, deletionPolicy="Delete").ready()
    assert actor.send({"read": ["will.txt"]})["read"] == {"will.txt": "for my heir"}
    assert actor.body()["metadata"]["finalizers"] == ["asya.sh/purge-state"]
    actor.delete(deadline=90)
    purged = [event["reason"] for event in namespace.events("state") if event["involvedObject"]["name"] == "heir"]
    assert "StatePurged" in purged

    actor = namespace.actor("heir", "handlers.files", {}).ready()
    assert actor.send({"read": ["will.txt", "folder/deep.txt"]}) == {
        "read": {"will.txt": None, "folder/deep.txt": None},
        "list": [],
        "pod": actor.pod()["metadata"]["name"],
    }


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("backend", "s4", 'Unsupported value: "s4": supported values: "s3", "gcs", "redis", "nats"'),
        ("mountPath", "/etc/state", "mountPath"),
        ("consistncy", "cas", "consistncy"),
    ],
)
def test_bad_manifests_are_refused_by_the_server(namespace: Namespace, field: str, value: str, words: str) -> None:
    body = namespace.manifest("bad", "handlers.files", {field: value})
    answer = namespace.cluster.request(
        "POST",
        f"/apis/asya.sh/v1alpha1/namespaces/{namespace.name}/asyncactors",
        json=body,
        params={"fieldValidation": "Strict"},
    )
    assert answer.status_code in (400, 422), answer.text
    assert words in json.loads(answer.text)["message"]
