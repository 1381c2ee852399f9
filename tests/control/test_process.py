"""The operator as a process: killed in the middle of its work, ended by what it cannot survive, and two at once."""

import asyncio
import contextlib

import pytest

from asya_operator.kube import Kube
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.api_front import Front
from support.operator_process import operator_process
from support.running_operator import SETTINGS, eventually, running

# A process imports for some seconds before it does anything, on a busy machine for many.
START = 60


@pytest.fixture(autouse=True)
def _kubeconfig(kube, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))


@pytest.fixture
def front(cluster):
    with Front(cluster.kube.url, cluster.kube.ca_file).serve() as found:
        found.kubeconfig = cluster.kube.kubeconfig_of(cluster.kube.token, f"front-{cluster.namespace}", found.url)
        yield found


async def test_killed_in_the_middle_of_a_pass(cluster, front, tmp_path):
    """Between Deployment and Service, whose request never gets an answer; the next process does the rest."""
    front.rule = lambda request: "hang" if request.method == "PATCH" and "/services/" in request.path else None
    cluster.create("asyncactors", actor())
    with operator_process(cluster, tmp_path, front.kubeconfig) as process:
        deployment = await eventually(lambda: front.seen["refused"] and cluster.get("deployments"), START)
        process.kill()
    assert cluster.get("services") is None
    with operator_process(cluster, tmp_path):
        await eventually(lambda: cluster.get("services"), START)
        await eventually(lambda: cluster.condition("Ready"))
    after = cluster.get("deployments")
    assert [d["metadata"]["uid"] for d in cluster.items("deployments")] == [deployment["metadata"]["uid"]]
    assert after["spec"]["template"] == deployment["spec"]["template"], "its pods were rolled"


async def test_deleted_while_no_operator_runs(cluster):
    """The finalizer holds it until the next one has purged; one that keeps its state goes at once."""
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
        cluster.create("asyncactors", actor(metadata__name="kept"))
        await eventually(lambda: cluster.get("services") and cluster.get("services", "kept"))
    cluster.delete("asyncactors")
    cluster.delete("asyncactors", "kept")
    assert cluster.get("asyncactors", "kept") is None
    assert cluster.get("asyncactors")["metadata"]["finalizers"] == ["asya.sh/purge-state"]
    async with running(cluster):
        await eventually(lambda: cluster.get("jobs", "chat-agent-purge"))
        assert cluster.get("deployments") is None
        assert cluster.get("jobs", "kept-purge") is None


async def test_what_no_watch_survives_ends_the_process(cluster, front, tmp_path):
    """So that the kubelet starts it anew; it never stands there deaf."""
    with operator_process(cluster, tmp_path, front.kubeconfig) as process:
        await eventually(lambda: front.seen["watches"] > 4, START)
        front.end_watches({"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "never heard of"}})
        assert await asyncio.to_thread(process.wait, START) == 1
        assert "never heard of" in process.log()


async def test_two_operators_at_once_agree(cluster, tmp_path):
    """As for a moment when a node is lost: nothing twice, and no end of writing against each other."""
    names = [f"a{number}" for number in range(5)]
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
    with contextlib.ExitStack() as processes:
        for place in places:
            processes.enter_context(operator_process(cluster, place))
        for name in names:
            cluster.create("asyncactors", actor(metadata__name=name, spec__deletionPolicy="Delete"))
        for name in names:
            await eventually(lambda name=name: cluster.get("services", name), START)
            await eventually(lambda name=name: cluster.get("deployments", name))
            cluster.available(name=name)
        for name in names:
            await eventually(lambda name=name: cluster.condition("Ready", name).get("status") == "True")
            await eventually(lambda name=name: cluster.condition("Progressing", name).get("status") == "False")
    before = versions(cluster)
    assert len(before) == 15
    kube = await Kube.connect(str(cluster.kube.kubeconfig))
    for name in names:
        assert await Reconciler(kube, SETTINGS).reconcile(cluster.namespace, name) is None
    await kube.close()
    assert versions(cluster) == before, "they did not agree"


def versions(cluster):
    return {
        (kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
        for kind in ("asyncactors", "deployments", "services")
        for item in cluster.items(kind)
    }
