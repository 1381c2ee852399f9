"""Actors of tenants that a pass cannot apply, while a new proxy image spreads: they hold nobody else back."""

import datetime

import pytest

from asya_operator.kube import KubeError
from asya_operator.precedence import LINGER_SECONDS
from asya_operator.reconcile import Reconciler
from asya_operator.rollout import TRIAL_SECONDS, Rollout, Trial
from asya_operator.settings import WebhookSettings
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


class Clock:
    now = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += datetime.timedelta(seconds=seconds)


class OurServer(Server):
    """The actor `ours` alone, with the status that its passes wrote; `available` pods of its Deployment work."""

    def __init__(self):
        super().__init__(None)
        self.status, self.generation, self.available = {}, 1, 1

    async def get(self, kind, namespace, name):
        if kind == "AsyncActor":
            body = await super().get(kind, namespace, name)
            body["metadata"]["generation"] = self.generation
            return {**body, "status": self.status}
        return await super().get(kind, namespace, name)

    async def list(self, kind, namespace, labels="", fields=""):
        return [self.deployments["ours"]] if kind == "Deployment" else []

    async def apply(self, manifest, manager, *, force, subresource=None):
        if manifest["kind"] == "AsyncActor":
            self.status = manifest.get("status", self.status)
            return dict(manifest)
        found = await super().apply(manifest, manager, force=force, subresource=subresource)
        if manifest["kind"] == "Deployment":
            annotations = manifest["metadata"].get("annotations")
            found["metadata"] |= {"generation": 1, "namespace": "ours", "name": "ours"}
            if "template" in manifest["spec"]:
                found["metadata"] = {**found["metadata"], "annotations": annotations or {}}
            rows = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}]
            found["status"] = {
                "observedGeneration": 1,
                "replicas": 1,
                "updatedReplicas": 1,
                "availableReplicas": self.available,
                "conditions": [] if self.available else rows,
            }
            self.deployments["ours"] = found
        return found

    def trial(self):
        return Trial.of(self.deployments["ours"])


async def test_a_trial_ends_when_the_actor_has_been_well_for_a_while():
    server, clock = OurServer(), Clock()
    passes = Reconciler(server, SETTINGS, now=clock)
    await passes.reconcile("ours", "ours")
    begun = server.trial()
    assert begun == Trial(clock.now, 1)
    assert await passes.reconcile("ours", "ours") == pytest.approx(TRIAL_SECONDS, abs=2), "nobody would end it"
    clock.pass_by(TRIAL_SECONDS - 1)
    await passes.reconcile("ours", "ours")
    assert server.trial() == begun
    clock.pass_by(1)
    assert await passes.reconcile("ours", "ours") is None
    assert server.trial() is None


async def test_a_trial_that_fails_goes_on():
    server, clock = OurServer(), Clock()
    passes = Reconciler(server, SETTINGS, now=clock)
    await passes.reconcile("ours", "ours")
    server.available = 0
    for _ in range(3):
        await passes.reconcile("ours", "ours")
        clock.pass_by(TRIAL_SECONDS)
    assert server.trial() is not None


async def test_who_changes_an_actor_ends_its_trial():
    """A tenant that breaks its own actor stops no rollout."""
    server = OurServer()
    passes = Reconciler(server, SETTINGS, now=Clock())
    await passes.reconcile("ours", "ours")
    server.generation = 2
    await passes.reconcile("ours", "ours")
    assert server.trial() is None


async def test_an_actor_that_was_degraded_is_not_put_on_trial():
    server = OurServer()
    server.status = {
        "conditions": [
            {
                "type": "Degraded",
                "status": "True",
                "reason": "r",
                "message": "m",
                "lastTransitionTime": "2026-01-02T11:00:00Z",
            }
        ]
    }
    await Reconciler(server, SETTINGS, now=Clock()).reconcile("ours", "ours")
    assert server.trial() is None


async def test_the_next_process_knows_who_is_on_trial():
    server = OurServer()
    await Reconciler(server, SETTINGS, now=Clock()).reconcile("ours", "ours")
    server.deployments["later"] = _deployment("u-later")
    following = Reconciler(server, SETTINGS, now=Clock())
    await following.recall([None])
    assert await following.reconcile("later", "later") is not None
    pod = server.deployments["later"]["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["image"] == OLD_IMAGE


BEHIND = SETTINGS.model_copy(update={"webhook": WebhookSettings(namespace="system", name="webhook")})


def _webhook(**status):
    counts = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 7}
    return {"metadata": {"generation": 7}, "spec": {"replicas": 2}, "status": {**counts, **status}}


def _image(server):
    return server.deployments["ours"]["spec"]["template"]["spec"]["initContainers"][0]["image"]


@pytest.mark.parametrize(
    "unfinished",
    [
        {"observedGeneration": 6},
        {"updatedReplicas": 1},
        {"replicas": 3},
        {"availableReplicas": 1},
    ],
    ids=["unseen", "updating", "surging", "starting"],
)
async def test_no_actor_gets_an_image_that_a_webhook_does_not_know_yet(unfinished):
    server, clock = OurServer(), Clock()
    server.deployments["webhook"] = _webhook(**unfinished)
    passes = Reconciler(server, BEHIND, now=clock)
    for _ in range(3):
        assert await passes.reconcile("ours", "ours") < LINGER_SECONDS, "it looks again soon"
        clock.pass_by(LINGER_SECONDS)
    assert _image(server) == OLD_IMAGE

    server.deployments["webhook"] = _webhook()
    await passes.reconcile("ours", "ours")
    assert _image(server) == OLD_IMAGE, "the last ones go on answering"
    clock.pass_by(LINGER_SECONDS)
    await passes.reconcile("ours", "ours")
    assert _image(server) == NEW_IMAGE


def test_while_all_are_held_one_looks_for_all_and_then_wakes_them():
    first, second = ("a", "a"), ("b", "b")
    rollout = Rollout(2, held=True)
    for key in (second, first):
        assert rollout.image(key, OLD_IMAGE, NEW_IMAGE, []) == OLD_IMAGE
    assert rollout.image(("c", "new"), None, NEW_IMAGE, []) == NEW_IMAGE
    assert rollout.first(first)
    assert not rollout.first(second)
    assert rollout.seen(first, on_trial=False, stable=True, degraded=False) == set()
    rollout.held = False
    assert rollout.image(first, OLD_IMAGE, NEW_IMAGE, []) == NEW_IMAGE
    assert rollout.seen(first, on_trial=True, stable=False, degraded=False) == {second}


@pytest.mark.parametrize("there", [None, 403], ids=["elsewhere", "not-allowed"])
async def test_a_webhook_that_cannot_be_seen_is_not_waited_for(there):
    class Blind(OurServer):
        async def get(self, kind, namespace, name):
            if name == "webhook" and there:
                raise KubeError(there, "forbidden")
            return await super().get(kind, namespace, name)

    server = Blind()
    await Reconciler(server, BEHIND, now=Clock()).reconcile("ours", "ours")
    assert _image(server) == NEW_IMAGE
