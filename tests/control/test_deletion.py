"""The end of actors whose state goes with them: whose Job it is, what cannot be purged, and namespaces that end too."""

import pytest

from asya_operator import purge
from asya_operator.api import parse_actor
from asya_operator.kube import Kube
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.running_operator import SETTINGS, eventually, running

LONG = "a" * 50


@pytest.fixture(autouse=True)
def _kubeconfig(kube, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))


@pytest.fixture
async def passes(cluster):
    kube = await Kube.connect(str(cluster.kube.kubeconfig))
    yield Reconciler(kube, SETTINGS)
    await kube.close()


def test_no_two_actors_share_a_job():
    names = ["a", "a-purge", LONG, LONG + "b", LONG + "c", "a" * 63, "a" * 62 + "b", "a" * 49 + "-b", "a" * 49 + "-c"]
    jobs = [purge.job_name(parse_actor(actor(metadata__name=name))) for name in names]
    assert len(set(jobs)) == len(names)
    assert all(len(job) <= 63 for job in jobs)
    assert jobs[0] == "a-purge"


def test_the_job_runs_where_the_actor_ran():
    """Else a private image, or nodes that are set apart, keep its pod from starting, and the state is kept."""
    place = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]}
    secrets = [{"name": "registry"}]
    body = actor(spec__imagePullSecrets=secrets, spec__podTemplate={"spec": {**place, "hostNetwork": False}})
    found = purge.job(parse_actor(body), SETTINGS)["spec"]["template"]["spec"]
    assert {name: found.get(name) for name in (*place, "imagePullSecrets")} == {**place, "imagePullSecrets": secrets}
    assert "hostNetwork" not in found
    plain = purge.job(parse_actor(actor()), SETTINGS)["spec"]["template"]["spec"]
    assert not {"imagePullSecrets", *place} & plain.keys()


async def test_names_that_begin_alike_are_purged_each_for_itself(cluster):
    names = [f"{LONG}-{number}" for number in range(2)]
    async with running(cluster):
        for name in names:
            cluster.create("asyncactors", actor(metadata__name=name, spec__deletionPolicy="Delete"))
        for name in names:
            await eventually(lambda name=name: cluster.get("services", name))
            cluster.delete("asyncactors", name)
        jobs = await eventually(lambda: len(cluster.items("jobs")) == 2 and cluster.items("jobs"))
    prefixes = {
        entry["value"]
        for job in jobs
        for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]
        if entry["name"] == "STATE_PREFIX"
    }
    assert prefixes == {f"{cluster.namespace}/{name}/" for name in names}


async def test_somebody_elses_job_is_no_purge(cluster, passes):
    container = {"name": "c", "image": "i"}
    theirs = {
        "metadata": {"name": "chat-agent-purge"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
    }
    before = cluster.create("jobs", theirs)
    cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
    await passes.reconcile(cluster.namespace, "chat-agent")
    cluster.delete("asyncactors")
    for _ in range(4):
        await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.get("asyncactors") is None
    (words,) = [message for _, reason, message in cluster.events() if reason == "StateNotPurged"]
    assert "a Job 'chat-agent-purge' is there and belongs to somebody else" in words
    assert (
        cluster.get("jobs", "chat-agent-purge")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    )


async def test_a_purge_that_cannot_start_says_why_each_reason_once(cluster, passes):
    """Else nobody knows for three hours what the actor waits for."""
    cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
    await passes.reconcile(cluster.namespace, "chat-agent")
    cluster.delete("asyncactors")
    for _ in range(2):
        await passes.reconcile(cluster.namespace, "chat-agent")
    job = cluster.get("jobs", "chat-agent-purge")
    about = {"kind": "Job", "name": "chat-agent-purge", "namespace": cluster.namespace}
    said = {"type": "Warning", "reason": "FailedCreate", "lastTimestamp": job["metadata"]["creationTimestamp"]}
    for uid, message in (("of-one-before", "long ago"), (job["metadata"]["uid"], "exceeded quota: q")):
        event = {"metadata": {"generateName": "e-"}, "involvedObject": {**about, "uid": uid}, "message": message}
        cluster.create("events", {**said, **event})

    async def told():
        for _ in range(3):
            assert await passes.reconcile(cluster.namespace, "chat-agent") is not None
        return [message for kind, reason, message in cluster.events() if (kind, reason) == ("Warning", "PurgeWaits")]

    assert await told() == ["FailedCreate: exceeded quota: q"]
    pod = {
        "metadata": {"name": "chat-agent-purge-x2z4k", "labels": {"batch.kubernetes.io/job-name": "chat-agent-purge"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    cluster.create("pods", pod)
    waiting = {"reason": "ErrImagePull", "message": "unauthorized"}
    row = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
    cluster.patch("pods", "chat-agent-purge-x2z4k", {"status": {"containerStatuses": [row]}}, "/status")
    assert sorted(await told()) == ["ErrImagePull: unauthorized", "FailedCreate: exceeded quota: q"]


async def test_a_namespace_that_ends_is_not_held(cluster, passes):
    """Nothing can be made in it any more; the state is kept."""
    cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
    await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.kube.request("DELETE", f"/api/v1/namespaces/{cluster.namespace}").status_code == 200
    cluster.delete("asyncactors")
    assert cluster.get("asyncactors") is not None
    await passes.reconcile(cluster.namespace, "chat-agent")
    assert cluster.get("asyncactors") is None
    assert cluster.items("jobs") == []


async def test_many_come_and_go_at_once(cluster):
    """Made, changed and deleted while the operator works on them: the queue empties, and nothing is left."""
    names = [f"a{number}" for number in range(40)]
    async with running(cluster) as operator:
        for name in names:
            cluster.create("asyncactors", actor(metadata__name=name))
        for name in names[::2]:
            cluster.delete("asyncactors", name)
        for name in names[1::2]:
            cluster.patch("asyncactors", name, {"spec": {"port": 9000}})
        for name in names[1::2]:
            await eventually(lambda name=name: cluster.get("services", name) and cluster.port(name) == 9000)
        await eventually(lambda: not len(operator.queue))
        # There is no garbage collector here: owner references are its work.
        alive = {item["metadata"]["uid"] for item in cluster.items("asyncactors")}
        orphans = [
            item["metadata"]["name"]
            for kind in ("deployments", "services")
            for item in cluster.items(kind)
            if item["metadata"]["ownerReferences"][0]["uid"] not in alive
        ]
        assert set(orphans) <= set(names[::2])
        for name in names[1::2]:
            cluster.delete("asyncactors", name)
        await eventually(lambda: not operator.intents)
        await eventually(lambda: not len(operator.queue))
        assert operator.metrics.registry.get_sample_value("asya_operator_passes_total", {"result": "failed"}) in (
            None,
            0,
        )
