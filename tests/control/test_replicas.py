"""Whose the number of replicas is, on a real API server: an autoscaler's, a person's, the actor's."""

import pytest

from support.actors import actor
from support.running_operator import Cluster, eventually, running


@pytest.fixture(autouse=True)
def _kubeconfig(kube, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))


async def made(cluster: Cluster) -> None:
    """An actor whose first pass is over."""
    cluster.create("asyncactors", actor())
    await eventually(lambda: cluster.condition("Ready"))


async def scaled(cluster: Cluster, replicas: int) -> None:
    await eventually(lambda: cluster.get("deployments")["spec"]["replicas"] == replicas)


async def test_the_last_word_counts(cluster):
    """A person scales the Deployment once, and the actor from then on: that had no effect for ever."""
    async with running(cluster):
        await made(cluster)
        cluster.patch("deployments", "chat-agent", {"spec": {"replicas": 3}}, "/scale")
        row = await eventually(lambda: cluster.condition("ScaledExternally"))
        assert "another number in the AsyncActor takes them back" in row["message"]
        # A change of anything else does not.
        cluster.patch("asyncactors", "chat-agent", {"spec": {"port": 9000}})
        await eventually(lambda: cluster.port("chat-agent") == 9000)
        assert cluster.get("deployments")["spec"]["replicas"] == 3
        cluster.patch("asyncactors", "chat-agent", {"spec": {"replicas": 2}}, "/scale")
        await scaled(cluster, 2)
        await eventually(lambda: not cluster.condition("ScaledExternally"))
        # And it stays the actor's.
        cluster.patch("asyncactors", "chat-agent", {"spec": {"replicas": 1}}, "/scale")
        await scaled(cluster, 1)


async def test_a_new_operator_takes_nothing_from_an_autoscaler(cluster):
    async with running(cluster):
        await made(cluster)
        cluster.patch("deployments", "chat-agent", {"spec": {"replicas": 5}}, "/scale")
        await eventually(lambda: cluster.condition("ScaledExternally"))
    async with running(cluster):
        cluster.patch("asyncactors", "chat-agent", {"spec": {"port": 9000}})
        await eventually(lambda: cluster.port("chat-agent") == 9000)
        assert cluster.get("deployments")["spec"]["replicas"] == 5
