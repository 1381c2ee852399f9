"""The webhook that cannot be asked: what the API server says of a labelled pod, that the operator knows the words, and
that no other pod notices."""

import asyncio
import base64
import contextlib
import datetime
import re
import socket
import threading

import pytest

from asya_operator.api import parse_actor
from asya_operator.certificates import CA_LIFE, Held, issue
from asya_operator.conditions import Observed, conditions
from asya_operator.webhook import Addresses, Files, Server
from support.actors import actor
from support.pods import SETTINGS, pod
from support.ports import free_port

CONFIGURATION = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
NOW = datetime.datetime.now(datetime.UTC)
GOOD = issue(Held(), NOW, ("localhost",))
EXPIRED = issue(Held(), NOW - 2 * CA_LIFE, ("localhost",))
NAMELESS = issue(Held(), NOW, ("elsewhere.svc",))
OTHER = issue(Held(), NOW, ("localhost",))


@contextlib.contextmanager
def silent(_):
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def refusing(_):
    yield free_port()


def serving(held):
    @contextlib.contextmanager
    def server(tmp_path):
        """The webhook in a thread, with this certificate."""
        files = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
        files.cert.write_bytes(held.leaf.cert)
        files.key.write_bytes(held.leaf.key)
        loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
        addresses = Addresses("127.0.0.1", 0, 0)

        async def run():
            found = Server(SETTINGS, files, addresses)
            await found.start()
            while not addresses.port:
                await asyncio.sleep(0.01)
            ready.set()
            await stop.wait()
            await found.stop(lame_duck=0)

        thread = threading.Thread(target=loop.run_until_complete, args=[run()])
        thread.start()
        assert ready.wait(10)
        try:
            yield addresses.port
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            loop.close()

    return server


# name -> (what listens, the authorities that are trusted, the host asked, the API server's words)
DOWN = {
    "refused": (refusing, GOOD, "localhost", "connection refused"),
    "silent": (silent, GOOD, "localhost", "context deadline exceeded|handshake timeout|Timeout exceeded"),
    "no-such-host": (refusing, GOOD, "webhook.nowhere.invalid", "no such host|lookup"),
    "expired": (serving(EXPIRED), EXPIRED, "localhost", "certificate has expired"),
    "another-authority": (serving(OTHER), GOOD, "localhost", "certificate signed by unknown authority"),
    "another-name": (serving(NAMELESS), NAMELESS, "localhost", "certificate is valid for elsewhere.svc, not localhost"),
}


@pytest.mark.parametrize("name", DOWN)
def test_a_labelled_pod_waits_and_says_why(kube, cluster, tmp_path, name):
    listens, trusted, host, words = DOWN[name]
    with listens(tmp_path) as port:
        hook = {
            "name": "state-proxy.asya.sh",
            "clientConfig": {
                "url": f"https://{host}:{port}/mutate",
                "caBundle": base64.b64encode(trusted.bundle()).decode(),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "objectSelector": {"matchLabels": {"asya.sh/state-proxy": "true"}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 1,
            "admissionReviewVersions": ["v1"],
        }
        body = {"metadata": {"name": f"down-{name}"}, "webhooks": [hook]}
        assert kube.request("POST", CONFIGURATION, json=body).status_code == 201
        try:

            def said():
                answer = kube.request("POST", cluster.path("pods"), json=pod(), params={"dryRun": "All"})
                return answer.json().get("message", "") if answer.status_code == 500 else ""

            # The configuration is in use a moment later.
            kube.wait(lambda: "failed calling webhook" in said())
            message = said()
            plain = {"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            cluster.create("pods", plain)
        finally:
            kube.request("DELETE", f"{CONFIGURATION}/down-{name}")
    assert re.search(words, message), message
    event = {"reason": "FailedCreate", "message": f"Error creating: {message}", "lastTimestamp": "2026-01-01T00:00:00Z"}
    rows = conditions(parse_actor(actor()), Observed(deployment={}, events=[event]), NOW)["conditions"]
    (row,) = [row for row in rows if row["type"] == "StateReady"]
    assert row["reason"] == "WebhookUnreachable"
    assert message[:200] in row["message"]
