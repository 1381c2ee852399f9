"""Pods of every shape: many at a time, restricted, with directories, entrypoints and meshes in the way."""

import pytest

from rig.actors import Actor, Namespace
from rig.load import Writers
from rig.waiting import until

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def test_concurrent_writers_lose_nothing_over_scaling(namespace: Namespace) -> None:
    actor = namespace.actor("counter", "handlers.ledger", {"consistency": "cas"}, conflictRetries=50).ready()
    writers = Writers(actor)

    def scale(replicas: int) -> None:
        actor.kubectl("scale", "asyncactor", "counter", f"--replicas={replicas}")
        until(
            lambda: (actor.status() or {}).get("readyReplicas") == replicas and len(actor.pods()) == replicas,
            60,
            f"{replicas} replicas",
        )
        since = len(writers.answered)
        until(lambda: len(writers.answered) >= since + 15, 60, f"messages answered by {replicas} replicas")

    with writers.running():
        for replicas in (1, 3, 1):
            scale(replicas)

    assert len(writers.lost_nothing()) >= 3


@pytest.mark.parametrize("namespace", [RESTRICTED], indirect=True)
def test_a_restricted_namespace_with_another_user_and_a_read_only_root(namespace: Namespace) -> None:
    template = {
        "spec": {
            "securityContext": {"runAsUser": 12345, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "asya-runtime",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }
            ],
        }
    }
    actor = namespace.actor("strict", "handlers.files", {}, podTemplate=template).ready()
    answer = actor.send({"write": {"a.txt": "by 12345"}, "read": ["a.txt"]})
    assert answer["read"] == {"a.txt": "by 12345"}
    assert actor.exec("asya-runtime", "id", "-u").strip() == "12345"
    assert actor.exec("asya-runtime", "sh", "-c", "echo x > /app/x 2>&1 || echo refused").strip().endswith("refused")


def test_an_image_with_the_mount_path_as_a_directory(namespace: Namespace) -> None:
    image = namespace.images["directory"]
    actor = namespace.actor("directory", "handlers.files", {}, image=image)
    row = actor.wait("StateReady", "False", "GuardRefused")
    assert "guard: directory" in row["message"]
    assert actor.condition("Ready")["status"] == "False"

    namespace.actor("directory", "handlers.files", {"guard": "directory"}, image=image)
    actor.wait("GuardWeak", "True")
    actor.ready()
    answer = actor.send({"write": {"a.txt": "stored"}, "read": ["a.txt", "own.txt"]})
    assert answer["read"] == {"a.txt": "stored", "own.txt": None}
    assert "is the state of actor" in actor.exec("asya-runtime", "cat", "/state/README.asya")


def test_an_image_with_an_entrypoint(namespace: Namespace) -> None:
    actor = namespace.actor(
        "entry", "handlers.where", {}, image=namespace.images["entrypoint"], entrypoint="image"
    ).ready()
    assert actor.send()["prepared"] == "by the entrypoint"


def test_a_native_sidecar_of_a_mesh_stays_first(namespace: Namespace) -> None:
    mesh = {
        "name": "istio-proxy",
        "image": namespace.images["plain"],
        "command": ["python3", "-c", "import signal; signal.sigwait({signal.SIGTERM})"],
        "restartPolicy": "Always",
    }
    after = {"name": "after", "image": namespace.images["plain"], "command": ["true"]}
    template = {"spec": {"initContainers": [mesh, after]}}
    actor = namespace.actor("meshed", "handlers.files", {}, podTemplate=template).ready()
    assert [c["name"] for c in actor.pod()["spec"]["initContainers"]] == ["istio-proxy", "asya-state-proxy", "after"]
    assert actor.send({"write": {"a": "b"}})["list"] == ["a"]


def test_a_handler_that_holds_the_interpreter_is_not_restarted(namespace: Namespace) -> None:
    actor = namespace.actor("busy", "handlers.hold_the_interpreter", {}).ready()
    uid = actor.pod()["metadata"]["uid"]
    assert actor.send({"seconds": 20}, deadline=60) == {"held": 20}
    assert actor.pod()["metadata"]["uid"] == uid
    assert actor.restart_count("asya-runtime") == 0
    assert _never_unready(actor)


def _never_unready(actor: Actor) -> bool:
    """True where the pod has been ready since it first was."""
    rows = actor.pod()["status"]["conditions"]
    ready = next(row for row in rows if row["type"] == "Ready")
    return bool(ready["status"] == "True")
