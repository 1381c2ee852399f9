"""What takes an API server of one's own to show: its restart, and a resource definition that another project made."""

import asyncio
import contextlib
import itertools
import subprocess

import pytest

from asya_operator import operate
from asya_operator.definition import ForeignDefinition
from support.actors import actor
from support.definitions import foreign
from support.kube import CRD, CRD_COLLECTION, api_server, install, program
from support.running_operator import Cluster, eventually, healthz, running

FAILED = ("asya_operator_passes_total", {"result": "failed"})
DEFINITION = f"{CRD_COLLECTION}/asyncactors.asya.sh"
numbers = itertools.count()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    with api_server(tmp_path_factory.mktemp("own")) as kube:
        yield kube


@pytest.fixture
def alone(own_server, monkeypatch):
    """A namespace of that server; the short waits are kopf's for another attempt, and ours."""
    made = operate.kopf_settings

    def quick():
        settings = made()
        settings.networking.error_backoffs = [0.1] * 1000
        return settings

    monkeypatch.setattr(operate, "kopf_settings", quick)
    monkeypatch.setattr(operate, "DEFINITION_SECONDS", 0.1)
    monkeypatch.setattr("asya_operator.work.FIRST_RETRY", 0.1)
    monkeypatch.setenv("KUBECONFIG", str(own_server.kubeconfig))
    name = f"alone-{next(numbers)}"
    assert own_server.request("POST", "/api/v1/namespaces", json={"metadata": {"name": name}}).status_code == 201
    return Cluster(own_server, name)


def remove_definition(kube):
    kube.request("DELETE", DEFINITION)
    kube.wait(lambda: kube.request("GET", DEFINITION).status_code == 404)


@pytest.fixture
def ours(alone):
    install(alone.kube)
    yield alone
    remove_definition(alone.kube)


@pytest.fixture
def theirs(alone):
    """The definition of another project, and an object of it."""
    assert alone.kube.request("POST", CRD_COLLECTION, json=foreign()).status_code == 201
    alone.kube.wait(lambda: alone.kube.request("GET", "/apis/asya.sh/v1alpha1/asyncactors").status_code == 200)
    spec = {"actor": "a", "image": "i", "handler": "agent.process", "stateProxy": []}
    body = {"apiVersion": "asya.sh/v1alpha1", "kind": "AsyncActor", "metadata": {"name": "chat-agent"}, "spec": spec}
    alone.create("asyncactors", body)
    yield alone
    remove_definition(alone.kube)


async def test_a_restart_of_the_api_server(ours):
    """Killed and started again, on the same port and the same data, while an actor is new and another one changes."""
    async with running(ours) as operator:
        ours.create("asyncactors", actor(metadata__name="before"))
        await eventually(lambda: ours.get("services", "before"))
        ours.kube.program.kill()
        operator.queue.add((ours.namespace, "before"))
        await eventually(lambda: operator.metrics.registry.get_sample_value(*FAILED))
        await asyncio.to_thread(ours.kube.start)
        ours.create("asyncactors", actor(metadata__name="after"))
        ours.patch("asyncactors", "before", {"spec": {"port": 9000}})
        await eventually(lambda: ours.get("services", "after"))
        await eventually(lambda: ours.port("before") == 9000)
        assert await healthz(operator) == (200, "ok\n")


async def test_objects_of_another_project_are_left_alone(theirs, caplog):
    before = theirs.get("asyncactors")
    async with running(theirs, wait=False) as operator:
        await eventually(lambda: "is not of this project" in operator.waits_for)
        status, text = await healthz(operator, "/readyz")
        assert status == 503
        assert "spec.stateProxy is array there, and object here" in text
        assert "its objects are left alone. Remove the other project" in text
        assert sum("is not of this project" in record.getMessage() for record in caplog.records) == 1
        assert not operator.ready.is_set()
        assert theirs.get("asyncactors") == before
        assert theirs.items("deployments") == theirs.items("services") == []
        # It goes on by itself once the definition is the right one.
        await asyncio.to_thread(remove_definition, theirs.kube)
        await eventually(lambda: "is not there; apply crds/asyncactors.yaml" in operator.waits_for)
        await asyncio.to_thread(install, theirs.kube)
        theirs.create("asyncactors", actor())
        await eventually(lambda: theirs.get("services"))
        assert await healthz(operator, "/readyz") == (200, "ok\n")


async def test_a_definition_that_is_replaced_ends_the_process(ours, monkeypatch):
    """The next one waits, as above."""
    monkeypatch.setattr(operate, "LIST_SECONDS", 0.1)
    async with contextlib.AsyncExitStack() as process:
        operator = await process.enter_async_context(running(ours))
        version = ours.kube.request("GET", DEFINITION).json()["metadata"]["resourceVersion"]
        body = foreign()
        body["metadata"]["resourceVersion"] = version
        answer = ours.kube.request("PUT", DEFINITION, json=body)
        assert answer.status_code == 200, answer.text
        await eventually(operator.ended.is_set)
        with pytest.raises(ForeignDefinition, match="stateProxy is array there"):
            await process.pop_all().aclose()


def helm(kube, *args: str) -> subprocess.CompletedProcess[str]:
    command = [str(program("helm")), "--kubeconfig", str(kube.kubeconfig), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def release(kube, name: str, *values: str) -> str:
    """What Helm says to an installation in a namespace of its own; empty where it is done."""
    options = [part for value in values for part in ("--set", value)]
    chart = str(CRD.parents[1] / "chart")
    done = helm(kube, "install", name, chart, "--namespace", f"{name}-system", "--create-namespace", *options)
    return done.stderr if done.returncode else ""


def test_helm_does_not_overwrite_it(theirs):
    before = theirs.kube.request("GET", DEFINITION).json()
    said = release(theirs.kube, "asya")
    assert "a resource definition asyncactors.asya.sh that is not of this project" in said
    assert "set crds.install=false if it serves the same API" in said
    assert theirs.kube.request("GET", DEFINITION).json() == before
    assert theirs.kube.request("GET", "/apis/apps/v1/namespaces/asya-system/deployments").json()["items"] == []


def test_two_releases_serve_different_namespaces_or_the_second_is_refused(alone):
    """Two operators on one actor would replace its pods for ever, each with its own proxy image."""
    kube, place = alone.kube, alone.namespace
    try:
        assert release(kube, "first") == ""
        second = ("crds.install=false", f"watchNamespaces={{{place}}}")
        first = "release first in namespace first-system"
        assert f"belongs to {first}, which upgrades it: set crds.install=false" in release(kube, "second")
        assert f"{first} serves all namespaces, and this one {place}; name different" in release(
            kube, "second", *second
        )
        args = ("upgrade", "first", str(CRD.parents[1] / "chart"), "--namespace", "first-system")
        assert helm(kube, *args, "--set", "watchNamespaces={default,kube-public}").returncode == 0
        assert f"default is served by {first}" in release(kube, "second", second[0], "watchNamespaces={default}")
        assert f"{first} serves default, kube-public, and this one all" in release(kube, "second", second[0])
        assert release(kube, "second", *second) == ""
        assert helm(kube, *args, "--set", "fullnameOverride=other", "--reuse-values").returncode == 0
    finally:
        for name in ("first", "second"):
            helm(kube, "uninstall", name, "--namespace", f"{name}-system")
        remove_definition(kube)
