"""Actors of tenants that a pass cannot apply, while a new proxy image spreads: they hold nobody else back."""

import pytest

from asya_operator.kube import KubeError
from asya_operator.reconcile import Reconciler
from support.actors import actor
from support.pods import NEW_IMAGE, OLD_IMAGE
from support.running_operator import SETTINGS


class Server:
    """An API server with actors of two tenants. That of `theirs` has a Deployment of its own kind, or none; every
    apply of one is refused."""

    def __init__(self, theirs):
        self.deployments = {"theirs": theirs, "ours": _deployment("u-ours")}

    async def get(self, kind, namespace, name):
        if kind == "AsyncActor":
            return actor(metadata__name=name, metadata__namespace=namespace, metadata__uid=f"u-{name}")
        return self.deployments.get(name) if kind == "Deployment" else None

    async def list(self, kind, namespace, labels="", fields=""):
        return []

    async def apply(self, manifest, manager, *, force, subresource=None):
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "Deployment":
            if name == "theirs":
                raise KubeError(403, "exceeded quota: q")
            if "template" in manifest["spec"]:
                self.deployments[name] = {**_deployment("u-ours"), "spec": {**manifest["spec"], "replicas": 1}}
            return self.deployments[name]
        return dict(manifest)

    async def create(self, manifest):
        return dict(manifest)


def _deployment(owner):
    owners = [{"kind": "AsyncActor", "name": "x", "uid": owner, "controller": True}]
    pod = {"initContainers": [{"name": "asya-install", "image": OLD_IMAGE}]}
    return {"metadata": {"ownerReferences": owners}, "spec": {"replicas": 1, "template": {"spec": pod}}}


@pytest.mark.parametrize(
    "theirs",
    [_deployment("somebody"), _deployment("u-theirs"), None],
    ids=["name-taken", "change-refused", "creation-refused"],
)
async def test_an_actor_that_is_refused_does_not_hold_the_rollout(theirs):
    server = Server(theirs)
    passes = Reconciler(server, SETTINGS)
    assert await passes.reconcile("theirs", "theirs") is not None, "nobody would try again"
    await passes.reconcile("ours", "ours")
    pod = server.deployments["ours"]["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["image"] == NEW_IMAGE
