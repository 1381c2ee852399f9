"""Each figure of the proxy moves when what it counts happens, and each failed operation is one line in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from asya_proxy.errors import Quota, StoreError, Timeout, Unavailable
from asya_proxy.metrics import Metrics
from asya_proxy.stores.base import Body, Change, Reading, Stat, StoreConfig
from asya_proxy.stores.memory import MemoryStore
from support.wire_client import WireClient

SIZE = 3 << 20


class FaultyStore(MemoryStore):
    """Fails the next calls with `failures`, and its streams as `stream` says."""

    def __init__(self) -> None:
        super().__init__(StoreConfig("", "", {}))
        self.failures: list[Exception] = []
        self.stream: StoreError | int | None = None

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        reading = await super().get(key, start=start, end=end, version=version)
        if reading is None or self.stream is None:
            return reading
        return Reading(reading.stat, stream=self._pieces(reading.data or b""))

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        yield data[: SIZE // 3]
        if isinstance(self.stream, StoreError):
            raise self.stream
        yield data[SIZE // 3 : self.stream]

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        if self.failures:
            raise self.failures.pop(0)
        return await super().put(key, body, change)


async def figures(client: WireClient) -> dict[str, float]:
    """Every sample: `name{label="value",...}`, the prefix `asya_proxy_` left out."""
    text = (await client.ask("GET", "/metrics")).body.decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("asya_proxy_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


MOUNT = '{mount="state"}'


async def moved(client: WireClient, before: dict[str, float]) -> dict[str, float]:
    """What has changed since `before`, times and looks at the metrics left out."""
    now = await figures(client)
    changed = {name: value - before.get(name, 0.0) for name, value in now.items() if value != before.get(name, 0.0)}
    return {name: by for name, by in changed.items() if "_seconds_" not in name and 'op="health"' not in name}


async def test_requests_and_bytes(start) -> None:  # type: ignore[no-untyped-def]
    client = await (await start()).client()
    before = await figures(client)
    await client.put("f", b"12345")
    await client.get("f", range="bytes=0-2")
    assert await moved(client, before) == {
        'requests_total{mount="state",op="write",outcome="ok"}': 1,
        'requests_total{mount="state",op="read",outcome="ok"}': 1,
        f"request_bytes_total{MOUNT}": 5,
        f"response_bytes_total{MOUNT}": 3,
    }
    after = await figures(client)
    assert after['request_seconds_count{mount="state",op="write"}'] == 1
    assert 0 < after['request_seconds_sum{mount="state",op="write"}'] < 10


async def test_conflicts_and_retries(start) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    client = await (await start(store, STATE_REQUEST_TIMEOUT="100ms", STATE_CONSISTENCY="cas")).client()
    version = (await client.put("f", if_none_match="*")).etag
    before = await figures(client)
    assert (await client.put("f", if_match='"other"')).error == "conflict"
    assert (await moved(client, before))[f"conflicts_total{MOUNT}"] == 1
    store.failures = [Unavailable("refused", ambiguous=False)]
    assert (await client.put("f", if_match=version)).status == 204
    assert (await moved(client, before))[f"retries_total{MOUNT}"] == 1
    assert f"unknown_outcomes_total{MOUNT}" not in await moved(client, before)


async def test_an_outcome_that_nobody_can_tell(start) -> None:  # type: ignore[no-untyped-def]
    """Also where it is the deadline that ends the attempts to settle it."""
    store = FaultyStore()
    client = await (await start(store, STATE_REQUEST_TIMEOUT="100ms")).client()
    before = await figures(client)
    store.failures = [Timeout("the answer was lost") for _ in range(100)]
    assert (await client.put("f", b"x")).error == "unknown_outcome"
    change = await moved(client, before)
    assert change[f"unknown_outcomes_total{MOUNT}"] == 1
    assert change['requests_total{mount="state",op="write",outcome="unknown_outcome"}'] == 1


async def test_what_is_in_work_and_how_much_may_be(start) -> None:  # type: ignore[no-untyped-def]
    proxy = await start(STATE_MAX_IN_FLIGHT="7", STATE_MAX_BUFFERED="1Mi")
    client, slow = await proxy.client(), await proxy.client()
    quiet = await figures(client)
    assert (quiet["in_flight_requests_limit"], quiet["buffered_bytes_limit"]) == (7, 1 << 20)
    assert (quiet[f"in_flight_requests{MOUNT}"], quiet[f"buffered_bytes{MOUNT}"]) == (1, 0)
    await slow.send(b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nContent-Length: 300\r\n\r\nx")
    async with asyncio.timeout(10):
        while (now := await figures(client))[f"buffered_bytes{MOUNT}"] != 300:
            await asyncio.sleep(0.005)
    assert now[f"in_flight_requests{MOUNT}"] == 2
    assert now["draining"] == 0
    draining = asyncio.create_task(proxy.stop())
    health = proxy.server._health
    async with asyncio.timeout(10):
        while b"asya_proxy_draining 1.0" not in ((await health("/metrics")).data or b""):
            await asyncio.sleep(0.005)
    assert not draining.done()
    await slow.send(b"x" * 299)
    assert (await slow.reply()).status == 204
    assert await draining == 0


async def test_what_the_mounts_are(start) -> None:  # type: ignore[no-untyped-def]
    now = await figures(await (await start(STATE_CONSISTENCY="cas")).client())
    assert now['mount_info{backend="memory",consistency="cas",mount="state"}'] == 1
    assert now[f"ready{MOUNT}"] == 1


async def test_a_backend_that_is_not_there_yet(start) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    connected = asyncio.Event()
    store.connect = connected.wait  # type: ignore[assignment,method-assign]
    client = await (await start(store, ready=False)).client()
    assert (await figures(client))[f"ready{MOUNT}"] == 0
    connected.set()
    assert (await client.ask("GET", "/readyz")).status == 200
    assert (await figures(client))[f"ready{MOUNT}"] == 1


def test_figures_are_there_before_anything_happens() -> None:
    """The first step of a counter that appears with it is no increase to Prometheus."""
    metrics = Metrics()
    metrics.mount("state")
    text = metrics.text().decode()
    for name in ("conflicts", "retries", "unknown_outcomes", "defects", "cut_answers"):
        assert f'asya_proxy_{name}_total{{mount="state"}} 0.0' in text


# Failed operations.

CONTEXT = {"actor": "ns/actor", "mount": "state", "backend": "memory"}


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What the proxy has said of requests: level, message and context; times left out, each of which is one."""
    found = []
    for record in caplog.records:
        if record.name.startswith(("asya_proxy.requests", "asya_proxy.connection")):
            assert float(record.ms) >= 0  # type: ignore[attr-defined]
            said = {name: getattr(record, name, None) for name in (*CONTEXT, "key", "op", "error", "cause")}
            found.append({"level": record.levelname, "message": record.getMessage(), **said})
    return found


async def test_a_failed_operation_is_one_line(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    client = await (await start(store)).client()
    store.failures = [Quota("the disk is full")]
    caplog.clear()
    assert (await client.put("d/h%C3%A9")).error == "quota"
    failed = {"level": "WARNING", "message": "request failed", **CONTEXT, "op": "write"}
    assert lines(caplog) == [{**failed, "key": "d/h%C3%A9", "error": "quota", "cause": "the disk is full"}]


async def test_what_is_ordinary_is_told_to_who_debugs(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    client = await (await start()).client()
    caplog.clear()
    await client.get("nothing")
    assert lines(caplog) == []
    caplog.set_level(logging.DEBUG, logger="asya_proxy.requests")
    await client.get("nothing")
    assert [(line["level"], line["error"]) for line in lines(caplog)] == [("DEBUG", "key_not_found")]


async def test_a_defect_is_one_line_with_its_traceback(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    client = await (await start(store)).client()
    before = await figures(client)
    store.failures = [ZeroDivisionError("our own")]
    caplog.clear()
    await client.put("f")
    (line,) = lines(caplog)
    assert (line["message"], line["error"], line["cause"]) == (
        "request broke",
        "internal",
        "ZeroDivisionError('our own')",
    )
    assert caplog.records[-1].exc_info
    assert (await moved(client, before))[f"defects_total{MOUNT}"] == 1


@pytest.mark.parametrize("fault", ["raises", "ends early"])
async def test_an_answer_that_breaks_off_is_one_line(start, caplog: pytest.LogCaptureFixture, fault: str) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    proxy = await start(store)
    client, watcher = await proxy.client(), await proxy.client()
    await client.put("f", b"x" * SIZE)
    before = await figures(watcher)
    store.stream = Timeout("the store stalled") if fault == "raises" else SIZE - 1
    caplog.clear()
    await client.send(b"GET /keys/f HTTP/1.1\r\nHost: t\r\n\r\n")
    assert len((await client.rest()).partition(b"\r\n\r\n")[2]) < SIZE
    (line,) = lines(caplog)
    cause = "the store stalled" if fault == "raises" else f"the store gave {SIZE - 1} bytes of {SIZE}"
    told = {"message": "answer cut short", "op": "read", "key": "f", **CONTEXT, "cause": cause}
    assert told.items() <= line.items()
    assert (await moved(watcher, before))[f"cut_answers_total{MOUNT}"] == 1


async def test_a_whole_answer_is_no_failure(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    store = FaultyStore()
    client = await (await start(store)).client()
    await client.put("f", b"x" * SIZE)
    store.stream = SIZE
    caplog.clear()
    assert len((await client.get("f")).body) == SIZE
    assert lines(caplog) == []
    assert (await figures(client))[f"cut_answers_total{MOUNT}"] == 0


async def test_what_is_no_request_is_one_line(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    client = await (await start()).client()
    caplog.clear()
    await client.send(b"NONSENSE\r\n\r\n")
    assert b" 400 " in (await client.rest())[:20]
    (line,) = lines(caplog)
    assert (line["op"], line["error"], line["key"]) == ("parse", "bad_request", "")
