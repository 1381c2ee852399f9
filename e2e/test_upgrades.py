"""One release after the other: the chart under load, parts of two versions side by side, a stricter definition."""

import copy
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rig.actors import Actor, Namespace
from rig.cluster import ROOT, Cluster, Object
from rig.images import renamed
from rig.installation import RELEASE, SYSTEM, Installation
from rig.load import Writers
from rig.waiting import until

CHART = ROOT / "chart"
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/asyncactors.asya.sh"
UPGRADE_SECONDS = 120
AT_A_TIME = 2


@pytest.fixture
def restored(installation: Installation) -> Iterator[Installation]:
    """The installation, to be upgraded; it is the session's again after the test."""
    yield installation
    installation.install()


@pytest.fixture
def following(tmp_path: Path) -> Path:
    """The chart's next release: the same, under another version."""
    place = tmp_path / "chart"
    shutil.copytree(CHART, place)
    file = place / "Chart.yaml"
    lines = file.read_text().splitlines()
    new = ["version: 99.0.0" if x.startswith("version:") else x for x in lines]
    new = ["appVersion: 99.0.0" if x.startswith("appVersion:") else x for x in new]
    assert new != lines
    file.write_text("\n".join(new) + "\n")
    return place


def upgrade(installation: Installation, chart: Path, images: Mapping[str, str]) -> float:
    """helm upgrade to a chart and its images; seconds."""
    values = [f"actors.maxRolling={AT_A_TIME}", f"images.previousProxies={{{installation.images['proxy']}}}"]
    for part in ("operator", "proxy"):
        repository, tag = images[part].rsplit(":", 1)
        values += [f"images.{part}.repository={repository}", f"images.{part}.tag={tag}"]
    begun = time.monotonic()
    installation.cluster.run(
        "helm", "upgrade", RELEASE, str(chart), "--namespace", SYSTEM, "--reuse-values",
        *(part for value in values for part in ("--set", value)),
        "--wait", "--timeout", f"{UPGRADE_SECONDS}s",
        deadline=UPGRADE_SECONDS + 30,
    )  # fmt: skip
    return time.monotonic() - begun


@dataclass
class Watch(threading.Thread):
    """Looks all the time which actors have the new image in their template and are not yet all there."""

    namespace: Namespace
    image: str
    most: int = 0
    seen: set[str] = field(default_factory=set)
    failed: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            while not self.done.wait(0.05):
                rolling = {
                    d["metadata"]["name"] for d in self.namespace.get("apps/v1/deployments")["items"] if self._rolls(d)
                }
                self.most = max(self.most, len(rolling))
                self.seen |= rolling
        except BaseException as error:
            self.failed = error

    def _rolls(self, deployment: Object) -> bool:
        status, replicas = deployment.get("status") or {}, deployment["spec"]["replicas"]
        inits = deployment["spec"]["template"]["spec"]["initContainers"]
        new = any(container["image"] == self.image for container in inits)
        current = status.get("observedGeneration") == deployment["metadata"]["generation"]
        there = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")} == {replicas}
        return new and not (current and there)


def proxies(actor: Actor) -> set[str]:
    """The images of an actor's proxies as they run."""
    return {
        container["image"]
        for pod in actor.pods()
        for container in pod["spec"]["initContainers"]
        if container["name"] == "asya-state-proxy"
    }


def test_an_upgrade_under_load_loses_nothing_and_replaces_few_actors_at_a_time(
    namespace: Namespace, restored: Installation, following: Path
) -> None:
    written = [
        Writers(namespace.actor(f"writer-{n}", "handlers.ledger", {"consistency": "cas"}, conflictRetries=50))
        for n in range(2)
    ]
    idle = [namespace.actor(f"idle-{n}", "handlers.counter", {}) for n in range(4)]
    actors = [*(writers.actor for writers in written), *idle]
    for actor in actors:
        actor.ready()
    images = {part: renamed(restored.cluster, restored.images[part], "next") for part in ("operator", "proxy")}
    watch = Watch(namespace, images["proxy"])
    watch.start()
    with written[0].running(2, 0.05), written[1].running(2, 0.05):
        before = [len(writers.answered) for writers in written]
        took = upgrade(restored, following, images)
        begun = time.monotonic()
        for actor in actors:
            until(
                lambda actor=actor: proxies(actor) == {images["proxy"]}, 120, f"{actor.name} runs the new proxy alone"
            )
            actor.ready()
        rolled = time.monotonic() - begun
        for writers, count in zip(written, before, strict=True):
            until(lambda w=writers, c=count: len(w.answered) > c + 20, 60, "messages answered after the upgrade")
    watch.done.set()
    watch.join(timeout=30)
    assert watch.failed is None
    assert watch.seen == {actor.name for actor in actors}
    assert 1 <= watch.most <= AT_A_TIME
    for writers in written:
        assert len(writers.lost_nothing()) == 2
    for actor in idle:
        assert actor.send()["count"] == 1
    answered = sum(len(writers.answered) for writers in written)
    unheard = sum(len(writers.open_ended) for writers in written)
    print(f"helm upgrade {took:.1f} s, actors {rolled:.1f} s more; {answered} answered, {unheard} without an answer")


OTHER_SHIM = """
import os, pathlib, shutil, subprocess, sys
other = sys.argv[1]
place = pathlib.Path("/tmp") / f"shim-{other}"
shutil.copytree("/opt/asya/lib", place)
wire = place / "asya_contract" / "wire.py"
text = wire.read_text()
assert text.count('\\nPROTOCOL = "1"\\n') == 1
wire.chmod(0o644)
wire.write_text(text.replace('\\nPROTOCOL = "1"\\n', f'\\nPROTOCOL = "{other}"\\n'))
code = 'open("/state/b.txt", "w").write("by another shim")'
env = {**os.environ, "PYTHONPATH": str(place)}
done = subprocess.run([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE)
print(done.returncode, done.stderr.decode().splitlines()[-1])
"""
ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect("/var/run/asya/state/state.sock")
    peer.sendall(f"{sys.argv[2]} /keys/b.txt HTTP/1.1\\r\\nHost: x\\r\\nX-Asya-Protocol: {sys.argv[1]}\\r\\n"
                 "Content-Length: 0\\r\\nX-Of-A-Later-Release: 1\\r\\n\\r\\n".encode())
    print(peer.recv(65536).decode())
"""


@pytest.fixture
def actor(namespace: Namespace) -> Actor:
    found = namespace.actor("skewed", "handlers.files", {}).ready()
    found.send({"write": {"a.txt": "b"}})
    return found


def test_shim_and_proxy_of_other_protocols_refuse_each_other_in_one_line(actor: Actor) -> None:
    for other in ("0", "2"):
        told = actor.exec("asya-runtime", "python3", "-c", OTHER_SHIM, other)
        assert "speaks protocol 1, this shim speaks protocol " + other in told
        assert "use shim and proxy of one release" in told
        assert not told.startswith("0 ")
        answer = actor.exec("asya-runtime", "python3", "-c", ASK, other, "PUT")
        assert answer.startswith("HTTP/1.1 400 ")
        assert f"the client speaks protocol {other}, this proxy 1" in answer
    # Headers of a later release do not make another protocol.
    assert actor.exec("asya-runtime", "python3", "-c", ASK, "1", "GET").startswith("HTTP/1.1 404 ")
    assert actor.send()["list"] == ["a.txt"]


def test_a_webhook_refuses_what_it_does_not_know_of_a_newer_operator_and_takes_what_an_older_one_left_out(
    actor: Actor, namespace: Namespace
) -> None:
    template = namespace.get("apps/v1/deployments/skewed")["spec"]["template"]
    config = json.loads(template["metadata"]["annotations"]["asya.sh/state-config"])

    def reviewed(changed: Object) -> Object:
        metadata = copy.deepcopy(template["metadata"])
        metadata["annotations"]["asya.sh/state-config"] = json.dumps(changed)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "generateName": "skewed-"},
            "spec": template["spec"],
        }
        path = f"/api/v1/namespaces/{namespace.name}/pods"
        body: Object = namespace.cluster.request("POST", path, json=pod, params={"dryRun": "All"}).json()
        return body

    refused = reviewed({**config, "fromALaterRelease": True})
    assert refused["kind"] == "Status"
    assert "fromALaterRelease" in refused["message"]
    assert "\n" not in refused["message"].strip()
    assert config["env"] == []
    taken = reviewed({name: value for name, value in config.items() if name != "env"})
    assert taken["spec"]["initContainers"][0]["name"] == "asya-state-proxy"


@pytest.fixture
def stricter(namespace: Namespace) -> Iterator[None]:
    """A resource definition that refuses what this one takes: a pattern and a rule more."""
    before = namespace.cluster.get(DEFINITION)
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    rule = {"rule": "self.bucket.startsWith('strict')", "message": "buckets begin with strict"}
    rules = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    patch = [
        {"op": "add", "path": f"{schema}/handler/pattern", "value": r"^strict\."},
        {
            "op": "add",
            "path": f"{schema}/stateProxy/x-kubernetes-validations",
            "value": [*rules["stateProxy"].get("x-kubernetes-validations", []), rule],
        },
    ]
    _patch_definition(namespace.cluster, patch)
    yield
    back = [{"op": "replace", "path": "/spec/versions", "value": before["spec"]["versions"]}]
    _patch_definition(namespace.cluster, back)


def _patch_definition(cluster: Cluster, patch: list[Object]) -> None:
    headers = {"Content-Type": "application/json-patch+json"}
    cluster.request("PATCH", DEFINITION, json=patch, headers=headers).raise_for_status()


def test_an_object_that_a_stricter_definition_refuses_can_still_be_changed_elsewhere(
    actor: Actor, namespace: Namespace, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("stricter")

    def refused(name: str, **spec: str) -> str | None:
        manifest = namespace.manifest(name, "handlers.counter", {})
        manifest["spec"].update(spec)
        path = f"/apis/asya.sh/v1alpha1/namespaces/{namespace.name}/asyncactors"
        answer = namespace.cluster.request("POST", path, json=manifest, params={"dryRun": "All"}).json()
        return answer["message"] if answer["kind"] == "Status" else None

    said = until(lambda: refused("another"), 30, "the stricter definition is in force")
    assert "spec.handler" in said
    assert "buckets begin with strict" in said

    actor.kubectl("scale", "asyncactor/skewed", "--replicas=2")
    until(lambda: (actor.status() or {}).get("readyReplicas") == 2, 60, "a second replica")
    actor.kubectl("patch", "asyncactor/skewed", "--type=merge", "-p", '{"spec": {"turnTimeout": "4m"}}')
    actor.ready()
    assert actor.send({"read": ["a.txt"]})["read"] == {"a.txt": "b"}
    with pytest.raises(subprocess.CalledProcessError, match=r"spec\.handler"):
        actor.kubectl("patch", "asyncactor/skewed", "--type=merge", "-p", '{"spec": {"handler": "handlers.counter"}}')
