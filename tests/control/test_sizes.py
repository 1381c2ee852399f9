"""Actors too large for an annotation, for an object, or for etcd: they work, or the reason is said."""

import pytest

from asya_operator.kube import Kube
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.running_operator import SETTINGS

KIB = 1024


@pytest.fixture
async def passes(cluster):
    kube = await Kube.connect(str(cluster.kube.kubeconfig))
    yield Reconciler(kube, SETTINGS)
    await kube.close()


def variables(count, size):
    return [{"name": f"V{number}", "value": "x" * size} for number in range(count)]


async def test_a_spec_larger_than_an_annotation_works(cluster, passes):
    """Nothing keeps the whole spec in an annotation, whose limit is 256 KiB together."""
    cluster.create("asyncactors", actor(spec__env=variables(100, 4 * KIB)))
    await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.get("services")
    assert cluster.condition("Degraded")["status"] == "False"


async def test_annotations_that_are_too_large_together_are_named(cluster, passes):
    template = {"metadata": {"annotations": {"large": "x" * 300 * KIB}}}
    body = actor(spec__podTemplate=template, spec__deletionPolicy="Delete")
    cluster.create("asyncactors", body)
    await passes.reconcile(cluster.namespace, "chat-agent")
    row = cluster.condition("Degraded")
    assert row["reason"] == "ApplyFailed"
    assert "spec.template.annotations: Too long" in row["message"]
    # And it can go.
    cluster.delete("asyncactors")
    for _ in range(3):
        await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.get("jobs", "chat-agent-purge") or cluster.get("asyncactors") is None


async def test_an_actor_larger_than_etcd_takes_is_refused_at_once(cluster):
    answer = cluster.kube.request("POST", cluster.path("asyncactors"), json=actor(spec__env=variables(500, 4 * KIB)))
    assert (answer.status_code, answer.json()["message"]) == (500, "etcdserver: request is too large"), answer.text
