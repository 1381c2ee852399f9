"""One actor and its state, from the manifest to the message, through everything that ends a process."""

import json
from functools import partial
from typing import Any

import pytest
import yaml

from rig.actors import Actor, Namespace, container_status
from rig.cluster import ROOT, Cluster
from rig.waiting import until
from support.golden import Golden

ASK = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1], sys.argv[2].encode(), {"content-type": "application/json"})
print(urllib.request.urlopen(request, timeout=20).read().decode())
"""


def from_inside(sender: Actor, url: str, payload: object) -> Any:
    """What a POST from inside a pod answers: cluster DNS, the Service's address, kube-proxy."""
    return json.loads(sender.exec("asya-runtime", "python3", "-c", ASK, url, json.dumps(payload)))


def test_the_seed_manifest_answers_and_remembers(namespace: Namespace) -> None:
    body = yaml.safe_load((ROOT / "examples" / "chat-agent" / "actor.yaml").read_text())
    body["metadata"]["namespace"] = namespace.name
    # What a user's cluster has and this one has not: a registry with the image, and S3.
    body["spec"]["image"] = namespace.images["plain"]
    body["spec"]["stateProxy"]["backend"] = "redis"
    namespace.cluster.apply(body, namespace=namespace.name)
    agent = Actor(namespace.cluster, namespace.name, "chat-agent").ready()
    sender = namespace.actor("sender", "handlers.plain").ready()

    url = f"http://chat-agent.{namespace.name}:8080/"
    first = from_inside(sender, url, {"prompt": "Hello, I am Ada."})
    second = from_inside(sender, url, {"prompt": "Who am I?"})

    assert "first message" in first["response"]
    assert second["response"].endswith('This is message 2; your first was "Hello, I am Ada.".')
    listed = agent.exec("asya-state-proxy", "asya-state-proxy", "ls")
    assert listed.split()[1:] == ["history.json"]
    history = json.loads(agent.exec("asya-state-proxy", "asya-state-proxy", "cat", "history.json"))
    assert [message["role"] for message in history] == ["user", "assistant"] * 2


def test_state_survives_whatever_ends_a_process(namespace: Namespace, kube: Cluster) -> None:
    actor = namespace.actor("counter", "handlers.counter", {"consistency": "cas"}).ready()
    assert actor.send()["count"] == 1

    before = actor.pod()
    assert actor.delete_pod()["metadata"]["uid"] != before["metadata"]["uid"]
    assert actor.send()["count"] == 2

    before = actor.pod()
    actor.kubectl("rollout", "restart", "deploy/counter")
    actor.replaced(before)
    actor.rolled_out()
    assert actor.send()["count"] == 3

    def restarted_once(container: str) -> bool:
        return actor.restart_count(container) == 1

    for number, container in enumerate(("asya-state-proxy", "asya-runtime")):
        pod = actor.pod()
        kube.kill(container_status(pod, container)["containerID"])
        until(partial(restarted_once, container), 30, f"{container} started again")
        actor.ready()
        assert actor.send()["count"] == 4 + number
        assert actor.pod()["metadata"]["uid"] == pod["metadata"]["uid"]


def test_an_actor_without_state_is_one_container(namespace: Namespace) -> None:
    actor = namespace.actor("plain", "handlers.plain").ready()
    assert actor.send({"number": 41}) == {"number": 41, "answer": 42}
    spec = actor.pod()["spec"]
    assert [container["name"] for container in spec["containers"]] == ["asya-runtime"]
    assert [container["name"] for container in spec["initContainers"]] == ["asya-install"]
    volumes = [v["name"] for v in spec["volumes"] if not v["name"].startswith("kube-api-access-")]
    assert volumes == ["asya-shim"]


def test_nothing_of_the_users_runs_before_the_state_works(namespace: Namespace) -> None:
    seed = {
        "name": "seed",
        "image": namespace.images["plain"],
        "command": ["python3", "/opt/asya/run.py", "read_state.py", "/state/none.txt", "/state/greeting.txt"],
    }
    actor = namespace.actor(
        "early", "at_import.process", {"containers": ["seed"]}, podTemplate={"spec": {"initContainers": [seed]}}
    ).ready()
    # The handler's first line read what the init container wrote in the same start.
    assert actor.send() == {"first": "found: nothing"}
    assert [actor.restart_count(name) for name in ("asya-state-proxy", "seed", "asya-runtime")] == [0, 0, 0]

    again = dict(seed, command=[*seed["command"][:3], "/state/greeting.txt", "/state/greeting.txt"])
    namespace.actor(
        "early", "at_import.process", {"containers": ["seed"]}, podTemplate={"spec": {"initContainers": [again]}}
    )
    actor.rolled_out()
    until(lambda: actor.send() == {"first": "found: found: nothing"}, 30, "the init container read the state")


def test_what_a_handler_writes_when_it_ends_is_stored(namespace: Namespace) -> None:
    actor = namespace.actor("last", "at_sigterm.process", {}).ready()
    first = actor.send()
    assert first["said"] is None
    actor.delete_pod()
    until(lambda: actor.send()["said"] == first["pod"], 30, "the last words of the first pod")


@pytest.mark.parametrize("container", ["asya-runtime"])
def test_programs_without_the_shim_are_told_where_the_state_is(
    namespace: Namespace, golden: Golden, container: str
) -> None:
    actor = namespace.actor("guarded", "handlers.files", {}).ready()
    actor.send({"write": {"a.txt": "b"}})
    told = actor.exec(container, "cat", "/state").replace(namespace.name, "NAMESPACE")
    golden.check("guard.txt", told)
    refused = actor.exec(container, "sh", "-c", "echo x > /state/b.txt; echo status $?")
    assert refused.strip() == "status 2"
    # The line that the guard tells works as it stands.
    line = next(line for line in told.splitlines() if "kubectl" in line).partition("kubectl ")[2]
    listed = namespace.cluster.kubectl(*line.replace("NAMESPACE", namespace.name).split())
    assert listed.split() == ["1", "a.txt"]
