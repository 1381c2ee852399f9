"""A request's `traceparent` on its way to S3 and GCS, and spans where OpenTelemetry asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socketserver
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from asya_proxy import tracing
from support.fake_s3 import FakeS3
from support.server_gcs import GcsServer
from support.server_s3 import S3Server
from support.serving import loaded, serving
from support.wire_client import WireClient

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
_HEAD = re.compile(rb"^(?:GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1.1\r\n(.*?)\r\n\r\n", re.DOTALL | re.MULTILINE)


class Tap:
    """Between a store and its server: the heads of the requests that go through."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._sent = bytearray()
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    def seen(self) -> list[tuple[str, str | None]]:
        """Path and traceparent of each request since the last look."""
        heads = _HEAD.findall(bytes(self._sent))
        self._sent.clear()
        found = [(path, re.search(rb"(?im)^traceparent: (.*?)\r?$", lines)) for path, lines in heads]
        return [(path.decode(), None if match is None else match[1].decode()) for path, match in found]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for end in self._ends:
                end.close()
            await asyncio.gather(*self._tasks)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends += [back, writer]
        await asyncio.gather(self._copy(reader, back, self._sent), self._copy(there, writer, None))

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, into: bytearray | None) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if into is not None:
                    into += data
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module", params=[S3Server, GcsServer])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with request.param(tmp_path_factory.mktemp("server")) as found:
        yield found


@asynccontextmanager
async def tapped(server: Any, **more: str) -> AsyncIterator[tuple[Tap, WireClient]]:
    """A proxy whose way to the server is tapped, and a client of the proxy."""
    tap = Tap(server.port)
    async with tap.listening() as endpoint:
        environ = {name: endpoint if value == server.endpoint else value for name, value in server.environ.items()}
        backend = "gcs" if isinstance(server, GcsServer) else "s3"
        async with serving(loaded(backend, environ, STATE_CONSISTENCY="lww", **more)) as client:
            tap.seen()
            yield tap, client


BIG = b"x" * (9 << 20)
REQUESTS = [
    ("PUT", "/keys/f", b"small"),
    ("GET", "/keys/f", None),
    ("HEAD", "/keys/f", None),
    ("PATCH", "/keys/f", b"more"),
    ("GET", "/keys/?prefix=&delimiter=%2F", None),
    ("POST", "/keys/f?rename_to=g", b""),
    ("PUT", "/keys/big", BIG),
    ("GET", "/keys/big", None),
    ("DELETE", "/keys/g", None),
]


async def test_each_request_to_the_store_carries_it(server: Any) -> None:
    async with tapped(server) as (tap, client):
        for traced in (None, PARENT, None):
            headers = {} if traced is None else {"traceparent": traced}
            for method, target, body in REQUESTS:
                reply = await client.ask(method, target, body, headers)
                assert reply.status in (200, 204), (method, target, reply)
                seen = tap.seen()
                assert seen, (method, target)
                assert {found for _, found in seen} == {traced}, (method, target, seen)


async def test_what_is_no_traceparent_goes_nowhere(server: Any) -> None:
    async with tapped(server) as (tap, client):
        assert (await client.ask("PUT", "/keys/f", b"x", {"traceparent": f"{PARENT}-"})).status == 204
        assert {found for _, found in tap.seen()} == {None}


# OpenTelemetry.


class Collector:
    """An OTLP collector over HTTP: the spans that came."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ExportTraceServiceRequest()
                message.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for group in message.resource_spans:
                    collector.resources.append({a.key: a.value.string_value for a in group.resource.attributes})
                    for scope in group.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes(span: Any) -> dict[str, str]:
    return {found.key: found.value.string_value for found in span.attributes}


async def test_spans_stand_between_turn_and_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeS3() as fake, Collector() as collector:
        fake.port = int(fake.endpoint.rpartition(":")[2])  # type: ignore[attr-defined]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with tapped(fake, STATE_ACTOR="ns/a") as (tap, client):
            await client.ask("PUT", "/keys/f", b"x", {"traceparent": PARENT})
            (passed,) = {found for _, found in tap.seen()}
            await client.ask("GET", "/keys/nothing", None, {"traceparent": PARENT})
            await client.ask("PUT", "/keys/f", b"untraced")
        write, read = collector.spans
        assert (write.name, read.name) == ("state write", "state read")
        assert (write.trace_id.hex(), write.parent_span_id.hex()) == (TRACE, SPAN)
        assert passed == f"00-{TRACE}-{write.span_id.hex()}-01"
        assert attributes(write) == {"asya.actor": "ns/a", "asya.mount": "state", "asya.backend": "s3"}
        assert attributes(read)["error.type"] == "key_not_found"
        assert read.status.code == 0
        assert [resource["service.name"] for resource in collector.resources] == ["asya-state-proxy"]


async def test_a_failure_of_the_store_is_the_spans_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeS3() as fake, Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.endpoint}/v1/traces")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        async with serving(loaded("s3", fake.environ, STATE_REQUEST_TIMEOUT="100ms")) as client:
            fake._run(fake._stop())
            assert (await client.ask("GET", "/keys/f", None, {"traceparent": PARENT})).error == "unavailable"
            fake._run(fake._start())
        (span,) = collector.spans
        assert (span.status.code, attributes(span)["error.type"]) == (2, "unavailable")
        assert collector.resources[0]["service.name"] == "mine"


def test_a_collector_that_takes_nothing_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    end = threading.Event()
    monkeypatch.setattr(tracing, "FLUSH", 0.05)
    spans = tracing.Spans({})
    spans._provider = SimpleNamespace(shutdown=end.wait)
    spans.close()
    assert "spans were lost" in caplog.text
    end.set()
    for thread in threading.enumerate():
        if thread.name == "asya-spans":
            thread.join(10)


def test_settings_of_tracing_that_are_wrong_hold_up_no_start(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        assert tracing.Spans(environ).span is tracing.passed_on
    assert "refuses its settings" in caplog.text


async def test_without_opentelemetry_it_is_said_and_passed_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'opentelemetry.sdk'")

    monkeypatch.setattr("asya_proxy.tracing._provider", missing)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with FakeS3() as fake:
        fake.port = int(fake.endpoint.rpartition(":")[2])  # type: ignore[attr-defined]
        async with tapped(fake) as (tap, client):
            await client.ask("PUT", "/keys/f", b"x", {"traceparent": PARENT})
            assert {found for _, found in tap.seen()} == {PARENT}
    (line,) = [record for record in caplog.records if record.name == "asya_proxy.tracing"]
    assert (line.levelno, line.getMessage()) == (logging.WARNING, "no spans: OpenTelemetry is not installed")
