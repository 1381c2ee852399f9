"""The webhook as a server: TLS, live reload, limits, health, metrics, an orderly end; never a 500."""

import asyncio
import base64
import datetime
import io
import json
import re
import ssl
import time
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asya_operator import admission
from asya_operator.certificates import Held, issue
from asya_operator.precedence import LINGER_SECONDS
from asya_operator.webhook import (
    FINISH_SECONDS,
    LONGEST_DRAIN_SECONDS,
    MAX_BODY,
    Addresses,
    Drain,
    Files,
    Server,
)
from support.pods import SETTINGS, pod

NOW = datetime.datetime.now(datetime.UTC)
NAME = "asya-webhook.asya.svc"
HELD = issue(Held(), NOW, (NAME,))
DEPLOYMENT = Path(__file__).resolve().parents[2] / "chart" / "templates" / "webhook" / "deployment.yaml"


def review(**changes):
    request = {
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "team-a",
        "object": pod(),
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def put(files: Files, held: Held) -> None:
    """As the kubelet does: both files change at once, nearly."""
    files.cert.write_bytes(held.leaf.cert)
    files.key.write_bytes(held.leaf.key)


async def eventually(holds, deadline: float = 10.0) -> None:
    async with asyncio.timeout(deadline):
        while not await holds():
            await asyncio.sleep(0.02)


class Client:
    """An API server, as far as a webhook sees one."""

    def __init__(self, server: Server, bundle: bytes) -> None:
        self.server = server
        self.context = ssl.create_default_context(cadata=bundle.decode())
        connector = aiohttp.TCPConnector(ssl=self.context)
        self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(20))

    async def post(self, body: object, **kwargs):
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **kwargs.pop("headers", {})}
        url = f"https://127.0.0.1:{self.server.addresses.port}/mutate"
        async with self.session.post(url, data=data, headers=headers, server_hostname=NAME, **kwargs) as answer:
            return answer.status, await answer.text()

    async def health(self, path: str):
        async with self.session.get(f"http://127.0.0.1:{self.server.addresses.health_port}{path}") as answer:
            return answer.status, await answer.text()


class ApiServerConnection:
    """One that is kept between two reviews, as Go's HTTP client keeps it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "ApiServerConnection":
        context = ssl.create_default_context(cadata=HELD.bundle().decode())
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=NAME))

    async def post(self, body: bytes) -> bool:
        """Whether another may follow.

        Raises:
            OSError, EOFError: the connection ended before the answer did.
        """
        head = f"POST /mutate HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._writer.write(head.encode() + b"\r\n\r\n" + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert answer.startswith("http/1.1 200 ")
        await self._reader.readexactly(int(re.search(r"content-length: (\d+)", answer)[1]))
        return "connection: close" not in answer

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / "tls.crt", tmp_path / "tls.key")


@pytest.fixture
async def webhook(files):
    put(files, HELD)
    server = Server(SETTINGS, files, Addresses("127.0.0.1", 0, 0))
    await server.start()
    client = Client(server, HELD.bundle())

    async def up():
        return server.addresses.port != 0

    await eventually(up)
    yield client
    await client.session.close()
    await server.stop(lame_duck=0)


async def test_a_pod_is_injected(webhook):
    status, text = await webhook.post(review())
    response = json.loads(text)["response"]
    assert (status, response["uid"], response["allowed"]) == (200, "u-1", True)
    assert "asya-state-proxy" in base64.b64decode(response["patch"]).decode()
    assert 'reviews_total{result="injected"} 1.0' in (await webhook.health("/metrics"))[1]


async def test_the_end_of_the_certificate_is_told(webhook, files):
    async def told():
        name = "asya_operator_webhook_certificate_expiry_timestamp_seconds"
        text = (await webhook.health("/metrics"))[1]
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    assert await told() == HELD.leaf.ends().timestamp()
    later = issue(Held(), NOW + datetime.timedelta(days=1), (NAME,))
    put(files, later)

    async def moved():
        return await told() == later.leaf.ends().timestamp()

    await eventually(moved)


async def test_a_refusal_is_an_answer(webhook, caplog):
    body = review()
    body["request"]["object"]["metadata"]["annotations"] = {}
    status, text = await webhook.post(body)
    assert status == 200
    assert json.loads(text)["response"]["allowed"] is False
    figures = (await webhook.health("/metrics"))[1]
    assert 'reviews_total{result="refused"} 1.0' in figures
    assert 'reviews_total{result="injected"} 0.0' in figures
    assert "review_seconds_count 1.0" in figures
    (line,) = [record for record in caplog.records if record.getMessage() == "pod refused"]
    namespace = body["request"]["namespace"]
    assert (line.actor, line.uid, line.namespace) == (f"{namespace}/chat-agent", "u-1", namespace)
    assert "no annotation" in line.cause


@pytest.mark.parametrize(
    ("body", "headers", "wanted"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (review(), {"Content-Type": "text/plain"}, 415),
        ({**review(), "apiVersion": "admission.k8s.io/v1beta1"}, {}, 400),
        (b" " * (MAX_BODY + 1), {}, 413),
    ],
)
async def test_malformed(webhook, body, headers, wanted):
    status, _ = await webhook.post(body, headers=headers)
    assert status == wanted
    assert 'reviews_total{result="malformed"} 1.0' in (await webhook.health("/metrics"))[1]


async def test_other_paths_and_methods(webhook):
    url = f"https://127.0.0.1:{webhook.server.addresses.port}"
    async with webhook.session.get(url + "/mutate", server_hostname=NAME) as answer:
        assert answer.status == 405
    async with webhook.session.post(url + "/x", server_hostname=NAME) as answer:
        assert answer.status == 404


async def test_the_largest_pod_passes(webhook):
    big = pod()
    big["metadata"]["annotations"]["large"] = "x" * (3 * 2**20)
    status, text = await webhook.post(review(object=big))
    assert status == 200
    assert json.loads(text)["response"]["allowed"] is True


async def test_a_fault_of_ours_is_no_500(webhook, monkeypatch, caplog):
    def broken(*_):
        raise KeyError("something we did not think of")

    monkeypatch.setattr(admission, "answer", broken)
    status, text = await webhook.post(review())
    response = json.loads(text)["response"]
    assert (status, response["uid"], response["allowed"]) == (200, "u-1", False)
    assert "the webhook failed on this pod" in response["status"]["message"]
    assert 'reviews_total{result="failed"} 1.0' in (await webhook.health("/metrics"))[1]
    assert "something we did not think of" in caplog.text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300) | st.sampled_from([b"null", b"0", b'{"request":{"uid":"x"}}']))
async def test_any_body_over_the_wire(webhook, body):
    status, _ = await webhook.post(body)
    assert 400 <= status < 500


async def test_a_new_certificate_is_taken_without_dropping_a_connection(webhook, files):
    """An open connection goes on; a new one meets the new certificate, of an authority that the bundle has."""
    url = f"https://127.0.0.1:{webhook.server.addresses.port}/mutate"
    assert (await webhook.post(review()))[0] == 200
    fresh = issue(Held(), NOW, (NAME,))
    put(files, fresh)

    async def reloaded():
        return 'certificate_reloads_total{result="loaded"} 2.0' in (await webhook.health("/metrics"))[1]

    await eventually(reloaded)
    assert (await webhook.post(review()))[0] == 200, "the kept-alive connection was dropped"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=fresh.bundle().decode()))
    ) as other:
        async with other.post(url, json=review(), server_hostname=NAME) as answer:
            assert answer.status == 200


async def test_a_torn_pair_leaves_the_old_one_in_use(webhook, files):
    files.cert.write_bytes(issue(Held(), NOW, (NAME,)).leaf.cert)

    async def refused():
        return 'certificate_reloads_total{result="refused"} 1.0' in (await webhook.health("/metrics"))[1]

    await eventually(refused)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=webhook.context)) as other:
        url = f"https://127.0.0.1:{webhook.server.addresses.port}/mutate"
        async with other.post(url, json=review(), server_hostname=NAME) as answer:
            assert answer.status == 200
    assert (await webhook.health("/readyz"))[0] == 200


async def test_not_ready_without_a_certificate_and_ready_with_one(files):
    server = Server(SETTINGS, files, Addresses("127.0.0.1", 0, 0))
    await server.start()
    client = Client(server, HELD.bundle())
    try:
        assert (await client.health("/healthz"))[0] == 200
        assert (await client.health("/readyz")) == (503, "no valid certificate yet\n")
        put(files, HELD)

        async def ready():
            return (await client.health("/readyz"))[0] == 200

        await eventually(ready)
    finally:
        await client.session.close()
        await server.stop(lame_duck=0)


async def test_an_expired_certificate_is_not_ready(files):
    past = NOW - datetime.timedelta(days=400)
    put(files, issue(Held(), past, (NAME,)))
    server = Server(SETTINGS, files, Addresses("127.0.0.1", 0, 0))
    await server.start()
    client = Client(server, HELD.bundle())
    try:

        async def loaded():
            return 'result="loaded"} 1.0' in (await client.health("/metrics"))[1]

        await eventually(loaded)
        assert (await client.health("/readyz"))[0] == 503
    finally:
        await client.session.close()
        await server.stop(lame_duck=0)


async def test_nobody_that_keeps_connections_loses_a_review_when_a_webhook_ends(files):
    """API servers keep connections to a pod that ends, open others to the pods that stay, and repeat nothing."""
    put(files, HELD)
    servers = [Server(SETTINGS, files, Addresses("127.0.0.1", 0, 0)) for _ in range(2)]
    for server in servers:
        await server.start()
        await server.listening.wait()
    ending, staying = (server.addresses.port for server in servers)
    kept: list[ApiServerConnection] = []
    reviewed, lost, over = 0, [], asyncio.Event()

    async def create() -> None:
        nonlocal reviewed
        body = json.dumps(review()).encode()
        while not over.is_set():
            port = staying if servers[0].drain.stopping.is_set() else ending
            connection = kept.pop() if kept else await ApiServerConnection.open(port)
            try:
                again = await connection.post(body)
            except (OSError, EOFError) as error:
                lost.append(repr(error))
                continue
            reviewed += 1
            if again:
                kept.append(connection)
            else:
                await connection.close()

    users = [asyncio.create_task(create()) for _ in range(6)]
    try:

        async def busy():
            return reviewed > 30

        await eventually(busy)
        await servers[0].stop(lame_duck=0.3)
    finally:
        over.set()
        await asyncio.gather(*users)
        for connection in kept:
            await connection.close()
        await servers[1].stop(lame_duck=0)
        if not servers[0].drain.stopping.is_set():
            await servers[0].stop(lame_duck=0)
    assert lost == []


def test_an_end_is_over_before_the_kubelet_kills_and_the_operator_goes_on():
    longest = LONGEST_DRAIN_SECONDS + FINISH_SECONDS
    assert longest <= LINGER_SECONDS
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", DEPLOYMENT.read_text())
    assert longest < int(grace[1])


async def test_an_end_waits_for_those_that_still_ask_and_not_for_ever():
    drain = Drain()
    asking = asyncio.create_task(drain.quiet(0.3, 60.0))
    for _ in range(8):
        await asyncio.sleep(0.1)
        drain.asked = time.monotonic()
    assert not asking.done()
    async with asyncio.timeout(10):
        await asking
        drain.asked = time.monotonic() + 3600
        await drain.quiet(0.1, 0.2)
