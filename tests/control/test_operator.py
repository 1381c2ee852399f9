"""The whole operator against a real API server: what it makes, repairs, refuses, tells and leaves alone.

There is no controller here: the tests play the Deployment controller by writing status.
"""

import datetime
import json
import time

import pytest

from asya_operator.kube import Kube, KubeError
from support.actors import actor
from support.pods import NEW_IMAGE, OLD_IMAGE
from support.running_operator import SETTINGS, eventually, running


@pytest.fixture(autouse=True)
def _kubeconfig(kube, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))


async def test_an_actor_becomes_a_deployment_and_a_service(cluster):
    async with running(cluster):
        made = cluster.create("asyncactors", actor(spec__replicas=2))
        deployment = await eventually(lambda: cluster.get("deployments"))
        service = await eventually(lambda: cluster.get("services"))
        for child in (deployment, service):
            (owner,) = child["metadata"]["ownerReferences"]
            assert (owner["uid"], owner["controller"]) == (made["metadata"]["uid"], True)
        assert deployment["spec"]["replicas"] == 2
        assert service["spec"]["ports"][0]["port"] == 8080
        # The right managers own the right fields; nobody owns the replicas but theirs.
        await eventually(lambda: "asya-operator-replicas" in managers(cluster))
        await eventually(lambda: "f:replicas" not in managers(cluster)["asya-operator"]["f:spec"])
        assert managers(cluster)["asya-operator-replicas"]["f:spec"] == {"f:replicas": {}}
        await eventually(lambda: cluster.condition("Ready").get("reason") == "Unavailable")
        cluster.available(2)
        await eventually(lambda: cluster.condition("Ready").get("status") == "True")
        assert cluster.condition("Progressing")["status"] == "False"
        body = cluster.get("asyncactors")
        assert body["status"]["observedGeneration"] == body["metadata"]["generation"]
        assert body["status"]["selector"] == "asya.sh/actor=chat-agent"
        # No trace of kopf, and no finalizer where none is needed.
        assert "finalizers" not in body["metadata"]
        assert not any("kopf" in key for key in body["metadata"].get("annotations", {}))


def managers(cluster):
    fields = cluster.get("deployments")["metadata"]["managedFields"]
    return {entry["manager"]: entry["fieldsV1"] for entry in fields if "subresource" not in entry}


async def test_nothing_is_written_when_nothing_changes(cluster):
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))
        cluster.available()
        await eventually(lambda: cluster.condition("Ready").get("status") == "True")
        await eventually(lambda: not len(operator.queue) and not operator.queue._busy)
        before = [
            cluster.get(kind)["metadata"]["resourceVersion"] for kind in ("asyncactors", "deployments", "services")
        ]
        told = cluster.events()
        for _ in range(3):
            assert await operator.reconciler.reconcile(cluster.namespace, "chat-agent") is None
        after = [
            cluster.get(kind)["metadata"]["resourceVersion"] for kind in ("asyncactors", "deployments", "services")
        ]
        assert after == before
        assert cluster.events() == told


async def test_drift_is_repaired(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))
        await eventually(lambda: cluster.get("services"))
        container = {"name": "asya-runtime", "image": "my-chat-agent:latest", "command": ["sh"]}
        cluster.patch("deployments", "chat-agent", {"spec": {"template": {"spec": {"containers": [container]}}}})
        await eventually(
            lambda: cluster.get("deployments")["spec"]["template"]["spec"]["containers"][0]["command"][0] == "python3"
        )
        uid = cluster.get("services")["metadata"]["uid"]
        cluster.delete("services")
        await eventually(lambda: (cluster.get("services") or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid)
        cluster.patch(
            "services", "chat-agent", {"metadata": {"labels": {"asya.sh/actor": "chat-agent", "mine": "kept"}}}
        )
        cluster.delete("deployments", propagationPolicy="Background")
        await eventually(lambda: cluster.get("deployments"))
        assert cluster.get("services")["metadata"]["labels"]["mine"] == "kept"


async def test_a_service_can_be_switched_off(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("services"))
        cluster.patch("asyncactors", "chat-agent", {"spec": {"service": {"enabled": False}}})
        await eventually(lambda: cluster.get("services") is None)


async def test_scaling_and_somebody_elses_scaling(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))
        cluster.patch("asyncactors", "chat-agent", {"spec": {"replicas": 3}}, "/scale")
        await eventually(lambda: cluster.get("deployments")["spec"]["replicas"] == 3)
        theirs = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "chat-agent"},
            "spec": {"replicas": 5},
        }
        answer = cluster.kube.apply(theirs, cluster.path("deployments", "chat-agent"), fieldManager="their-autoscaler")
        assert answer.status_code == 200
        row = await eventually(lambda: cluster.condition("ScaledExternally"))
        assert row["reason"] == "OwnedByAnother"
        assert "their-autoscaler owns the replicas" in row["message"]
        assert cluster.get("deployments")["spec"]["replicas"] == 5


async def test_zero_replicas_never_start_a_pod(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__replicas=0))
        deployment = await eventually(lambda: cluster.get("deployments"))
        assert deployment["spec"]["replicas"] == 0
        assert await eventually(lambda: cluster.condition("Ready").get("reason")) == "ScaledToZero"


async def test_another_owners_deployment_is_refused(cluster):
    theirs = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "chat-agent"},
        "spec": {"selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}},
                              "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }  # fmt: skip
    before = cluster.create("deployments", theirs)
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor())
        row = await eventually(
            lambda: cluster.condition("Degraded").get("status") == "True" and cluster.condition("Degraded")
        )
        assert row["reason"] == "NameTaken"
        assert "a Deployment 'chat-agent' is there and belongs to nobody" in row["message"]
        assert cluster.get("deployments")["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        await eventually(lambda: ("Warning", "NameTaken") in [event[:2] for event in cluster.events()])
        taken = ("asya_operator_degraded_actors", {"reason": "NameTaken"})
        await operator.compare()
        assert operator.metrics.registry.get_sample_value(*taken) == 1
        cluster.delete("asyncactors")
        await eventually(lambda: not cluster.get("asyncactors"))
        await operator.compare()
        assert operator.metrics.registry.get_sample_value(*taken) is None


async def test_a_spec_the_model_refuses_is_reported(cluster):
    template = {
        "spec": {"containers": [{"name": "asya-runtime", "volumeMounts": [{"name": "v", "mountPath": "/state/x"}]}]}
    }
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__podTemplate=template))
        row = await eventually(lambda: cluster.condition("Degraded"))
        assert row["reason"] == "InvalidSpec"
        assert "'/state/x' is, or lies above or below, '/state'" in row["message"]
        assert cluster.get("deployments") is None


async def test_what_the_api_server_refuses_is_reported(cluster):
    template = {"spec": {"containers": [{"name": "helper"}]}}
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__podTemplate=template))
        row = await eventually(
            lambda: cluster.condition("Degraded").get("status") == "True" and cluster.condition("Degraded")
        )
        assert row["reason"] == "ApplyFailed"
        assert "containers[1].image: Required value" in row["message"]


async def test_a_missing_secret_is_named_until_it_is_there(cluster):
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor(spec__stateProxy__credentials={"secretName": "keys"}))
        row = await eventually(
            lambda: cluster.condition("StateReady").get("status") == "False" and cluster.condition("StateReady")
        )
        assert (row["reason"], row["message"]) == (
            "SecretMissing",
            "Secret 'keys' does not exist; create it, or correct stateProxy.credentials",
        )
        cluster.create("secrets", {"metadata": {"name": "keys"}, "stringData": {"AWS_ACCESS_KEY_ID": "hunter2"}})
        await operator.reconciler.reconcile(cluster.namespace, "chat-agent")
        assert cluster.condition("StateReady")["reason"] == "NoPods"
        assert "hunter2" not in json.dumps(cluster.get("asyncactors")) + json.dumps(cluster.events())


async def test_without_a_right_to_secrets_the_events_of_the_kubelet_tell(cluster, monkeypatch):
    asked = []
    get = Kube.get

    async def refused(self, kind, namespace, name):
        if kind == "Secret":
            asked.append(name)
            raise KubeError(403, f'secrets "{name}" is forbidden')
        return await get(self, kind, namespace, name)

    monkeypatch.setattr(Kube, "get", refused)
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor(spec__stateProxy__credentials={"secretName": "keys"}))
        await eventually(lambda: cluster.condition("StateReady").get("reason") == "NoPods")
        pod = {
            "metadata": {"name": "chat-agent-5f-abc", "labels": {"asya.sh/actor": "chat-agent"}},
            "spec": {
                "initContainers": [{"name": "asya-state-proxy", "image": "i", "restartPolicy": "Always"}],
                "containers": [{"name": "c", "image": "i"}],
            },
        }
        cluster.create("pods", pod)
        said = 'MountVolume.SetUp failed for volume "asya-credentials-state" : secret "keys" not found'
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "metadata": {"generateName": "e-"},
            "involvedObject": {"kind": "Pod", "name": "chat-agent-5f-abc", "namespace": cluster.namespace},
            "type": "Warning",
            "reason": "FailedMount",
            "message": said,
            "lastTimestamp": stamp,
        }
        cluster.create("events", event)
        await operator.reconciler.reconcile(cluster.namespace, "chat-agent")
        assert cluster.condition("StateReady")["reason"] == "SecretMissing"
    assert asked == ["keys"]


async def test_it_runs_as_a_user_without_a_name(cluster, monkeypatch):
    """As in its image; kopf would ask for the name."""

    def nobody():
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nobody)
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))


async def test_what_somebody_else_writes_into_the_status_does_not_last(cluster):
    """No conflict ends a pass: the status is the operator's, and written by force."""
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.condition("Ready"))
        before = cluster.get("asyncactors")["status"]
        theirs = {**before, "replicas": 7, "conditions": [{**before["conditions"][0], "reason": "Theirs"}]}
        body = {"apiVersion": "asya.sh/v1alpha1", "kind": "AsyncActor", "metadata": {"name": "chat-agent"}}
        path = cluster.path("asyncactors", "chat-agent") + "/status"
        answer = cluster.kube.apply({**body, "status": theirs}, path, fieldManager="theirs")
        assert answer.status_code == 200, answer.text
        await operator.reconciler.reconcile(cluster.namespace, "chat-agent")
        after = cluster.get("asyncactors")["status"]
        assert (after["replicas"], [row["reason"] for row in after["conditions"]]) == (
            0,
            [row["reason"] for row in before["conditions"]],
        )


async def test_a_restart_makes_nothing_twice(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))
        await eventually(lambda: cluster.condition("Ready"))
    before = cluster.get("deployments")["metadata"]["generation"]
    cluster.patch("asyncactors", "chat-agent", {"spec": {"port": 9000}})
    async with running(cluster):
        await eventually(lambda: cluster.get("services")["spec"]["ports"][0]["port"] == 9000)
        await eventually(lambda: cluster.get("deployments")["metadata"]["generation"] == before + 1)
    assert len(cluster.items("deployments")) == 1


async def test_delete_keeps_the_state_unless_told_otherwise(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.get("deployments"))
        cluster.delete("asyncactors")
        await eventually(lambda: cluster.get("asyncactors") is None)
        assert cluster.items("jobs") == []


async def test_delete_purges_and_lets_go(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
        await eventually(lambda: "asya.sh/purge-state" in cluster.get("asyncactors")["metadata"].get("finalizers", []))
        await eventually(lambda: cluster.get("deployments"))
        pod = {
            "metadata": {"name": "p", "labels": {"asya.sh/actor": "chat-agent"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        cluster.create("pods", pod)
        cluster.delete("asyncactors")
        await eventually(lambda: cluster.get("deployments") is None)
        # Not before the last pod is gone.
        assert cluster.items("jobs") == []
        cluster.delete("pods", "p", gracePeriodSeconds="0")
        job = await eventually(lambda: cluster.get("jobs", "chat-agent-purge"))
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["asya-state-proxy", "purge"]
        assert {"name": "STATE_PREFIX", "value": f"{cluster.namespace}/chat-agent/"} in container["env"]
        now = job["metadata"]["creationTimestamp"]
        done = {
            "startTime": now,
            "completionTime": now,
            "succeeded": 1,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": now}
                for kind in ("SuccessCriteriaMet", "Complete")
            ],
        }
        cluster.patch("jobs", "chat-agent-purge", {"status": done}, "/status")
        await eventually(lambda: cluster.get("asyncactors") is None)
        assert ("Normal", "StatePurged") in [event[:2] for event in cluster.events()]


async def test_a_failed_purge_lets_go_and_says_so(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
        await eventually(lambda: "finalizers" in cluster.get("asyncactors")["metadata"])
        cluster.delete("asyncactors")
        job = await eventually(lambda: cluster.get("jobs", "chat-agent-purge"))
        now = job["metadata"]["creationTimestamp"]
        failed = {
            "startTime": now,
            "failed": 3,
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "lastTransitionTime": now,
                    "reason": "BackoffLimitExceeded",
                    "message": "no",
                }
                for kind in ("FailureTarget", "Failed")
            ],
        }
        cluster.patch("jobs", "chat-agent-purge", {"status": failed}, "/status")
        await eventually(lambda: cluster.get("asyncactors") is None)
        assert (
            "Warning",
            "StateNotPurged",
            "3 attempts to purge the state failed (no); the rest of it is kept",
        ) in cluster.events()


async def test_the_finalizer_goes_with_the_policy(cluster):
    async with running(cluster):
        cluster.create("asyncactors", actor(spec__deletionPolicy="Delete"))
        await eventually(lambda: "finalizers" in cluster.get("asyncactors")["metadata"])
        cluster.patch("asyncactors", "chat-agent", {"spec": {"deletionPolicy": "Retain"}})
        await eventually(lambda: "finalizers" not in cluster.get("asyncactors")["metadata"])


async def test_a_new_proxy_image_rolls_one_actor_at_a_time(cluster):
    def image(name):
        deployment = cluster.get("deployments", name)
        return deployment and deployment["spec"]["template"]["spec"]["initContainers"][0]["image"]

    old = SETTINGS.model_copy(update={"proxy_image": OLD_IMAGE, "allowed_images": []})
    names = ["one", "two", "three"]
    async with running(cluster, old):
        for name in names:
            cluster.create("asyncactors", actor(metadata__name=name))
        for name in names:
            await eventually(lambda name=name: image(name) == OLD_IMAGE)
            cluster.available(name=name)
    async with running(cluster) as operator:
        for rolled in (1, 2, 3):
            await eventually(lambda rolled=rolled: [image(n) for n in names].count(NEW_IMAGE) == rolled)
            for name in names:
                await operator.reconciler.reconcile(cluster.namespace, name)
            assert [image(n) for n in names].count(NEW_IMAGE) == rolled
            for name in names:
                cluster.available(name=name)
            for name in names:
                operator.queue.add((cluster.namespace, name))


async def test_health_and_metrics(cluster):
    async with running(cluster) as operator:
        cluster.create("asyncactors", actor())
        await eventually(lambda: cluster.condition("Ready"))
        await operator.compare()
        text = operator.metrics.registry.get_sample_value("asya_operator_actors")
        assert text == 1
        assert operator.alive
        sample = operator.metrics.registry.get_sample_value
        assert sample("asya_operator_passes_total", {"result": "done"}) > 0
        assert sample("asya_operator_passes_total", {"result": "failed"}) is not None
        assert sample("asya_operator_pass_seconds_count") > 0
        proven = sample("asya_operator_watch_proven_timestamp_seconds")
        assert proven > time.time() - 60
        # A watch that went deaf: two lists show what it does not.
        operator.watchdog.seen((cluster.namespace, "chat-agent"), "stale")
        operator.watchdog.seen = lambda *_: None
        await operator.compare()
        await operator.compare()
        late = sample("asya_operator_watch_proven_timestamp_seconds")
        await operator.compare()
        assert not operator.alive
        assert sample("asya_operator_watch_proven_timestamp_seconds") == late > proven
