"""The whole operator in one namespace of a real API server, as a test runs it and looks at it."""

import asyncio
import contextlib
import json

import aiohttp

from asya_operator.kube import Kube
from asya_operator.operate import Operator
from asya_operator.settings import parse_settings
from support.loops import farewell
from support.pods import NEW_IMAGE, OLD_IMAGE

SETTINGS = parse_settings(
    json.dumps({"proxyImage": NEW_IMAGE, "allowedImages": [OLD_IMAGE], "maxActorsRolling": 1, "healthPort": 0})
)
MERGE = {"Content-Type": "application/merge-patch+json"}


class Cluster:
    """One namespace of the server, as a user and as the controllers see it."""

    def __init__(self, kube, namespace):
        self.kube, self.namespace = kube, namespace

    def path(self, kind, name="", group=None):
        group = group or {
            "asyncactors": "/apis/asya.sh/v1alpha1",
            "deployments": "/apis/apps/v1",
            "jobs": "/apis/batch/v1",
        }.get(kind, "/api/v1")
        return f"{group}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def create(self, kind, body):
        answer = self.kube.request("POST", self.path(kind), json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def get(self, kind, name="chat-agent"):
        answer = self.kube.request("GET", self.path(kind, name))
        return answer.json() if answer.status_code == 200 else None

    def items(self, kind):
        return self.kube.request("GET", self.path(kind)).json()["items"]

    def patch(self, kind, name, body, sub=""):
        answer = self.kube.request("PATCH", self.path(kind, name) + sub, json=body, headers=MERGE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delete(self, kind, name="chat-agent", **params):
        assert self.kube.request("DELETE", self.path(kind, name), params=params).status_code in (200, 202)

    def available(self, count=1, name="chat-agent"):
        """As the Deployment controller reports it."""
        deployment = self.get("deployments", name)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": count,
            "availableReplicas": count,
        }
        self.patch("deployments", name, {"status": status}, "/status")

    def condition(self, kind, name="chat-agent"):
        body = self.get("asyncactors", name)
        rows = (body or {}).get("status", {}).get("conditions", [])
        return next((row for row in rows if row["type"] == kind), {})

    def port(self, name="chat-agent"):
        return self.get("services", name)["spec"]["ports"][0]["port"]

    def events(self):
        return [
            (e["type"], e["reason"], e["message"])
            for e in self.items("events")
            if e.get("source", {}).get("component") == "asya-operator"
        ]


async def healthz(operator, path="/healthz"):
    """Status and text of the operator's health."""
    port = next(address[1] for address in operator.health_addresses if len(address) == 2)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()


async def eventually(holds, deadline=20.0):
    """Poll until `holds()` is true, and give what it gave."""
    loop = asyncio.get_running_loop()
    until = loop.time() + deadline
    while True:
        found = await asyncio.to_thread(holds)
        if found:
            return found
        assert loop.time() < until, "it did not come true in time"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(cluster, settings=SETTINGS, *, kubeconfig=None, wait=True):
    """The operator, watching the test's namespace alone; kopf's part of it reads KUBECONFIG."""
    settings = settings.model_copy(update={"namespaces": [cluster.namespace]})
    operator = Operator(await Kube.connect(str(kubeconfig or cluster.kube.kubeconfig)), settings)
    stop = asyncio.Event()
    task = asyncio.create_task(operator.run(stop))
    try:
        if wait:
            async with asyncio.timeout(20):
                await operator.ready.wait()
        yield operator
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await task
        await farewell()
