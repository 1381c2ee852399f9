"""Promises: kept, broken and named, at start and by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from asya_proxy import selftest
from asya_proxy.errors import Conflict, PermissionDenied, Unavailable, Unsupported
from asya_proxy.stores.base import ANY, Body, Change, Precondition, Stat
from support.history_store import HistoryStore


class LyingStore(HistoryStore):
    """Ignores the conditions named: create, match, delete; or refuses a current one."""

    def __init__(self, *lies: str) -> None:
        super().__init__()
        self.lies = lies

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        when = change.when
        if "refuses current" in self.lies and when.version is not None:
            raise Conflict("no")
        if ("create" in self.lies and when.absent) or ("match" in self.lies and when.version is not None):
            when = ANY
        return await super().put(key, body, Change(change.id, when))

    async def delete(self, key: bytes, change: Change) -> None:
        when: Precondition = change.when
        if "no delete" in self.lies and not when.any:
            raise Unsupported("501")
        await super().delete(key, Change(change.id, ANY if "delete" in self.lies else when))


@pytest.mark.parametrize(
    ("lies", "broken", "fatal"),
    [
        ((), (), False),
        (("create",), (selftest.PUT_CREATES_TWICE,), True),
        (("match",), (selftest.PUT_IGNORES_MATCH,), True),
        (("refuses current",), (selftest.PUT_REFUSES_CURRENT,), True),
        (("delete",), (selftest.DELETE_IGNORES_MATCH,), False),
        (("no delete",), (selftest.DELETE_LACKS_MATCH,), False),
    ],
)
async def test_each_broken_promise_has_its_name(lies: tuple[str, ...], broken: tuple[str, ...], fatal: bool) -> None:
    store = LyingStore(*lies)
    assert await selftest.recorded(store) is None
    verdict = await selftest.probe(store)
    assert (verdict.broken, bool(verdict.fatal)) == (broken, fatal)
    assert len(store.asked) <= 8
    traits = verdict.lower(store.traits)
    assert traits.conditional_put is not fatal
    assert traits.conditional_delete is (not broken or fatal)
    assert [key for key in store.objects if b"selftest" in key] == []


async def test_a_day_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HistoryStore()
    await selftest.probe(store)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert await selftest.recorded(store) == selftest.Verdict(())
    monkeypatch.setattr("time.time", lambda: selftest.DAY + 1000.0)
    assert await selftest.recorded(store) is None
    data, stat = store.objects[b".asya/promises"]
    store.objects[b".asya/promises"] = (data[:-1], stat)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert await selftest.recorded(store) is None


class RacyStore(HistoryStore):
    """Checks, lets others run, then writes."""

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        try:
            self._check(key, change.when)
        finally:
            await asyncio.sleep(0)
        return await super().put(key, body, Change(change.id, ANY))


async def test_races_are_seen_by_the_races_alone() -> None:
    assert (await selftest.probe(RacyStore())).broken == ()
    assert (await selftest.races(RacyStore())).broken == (selftest.CREATE_RACE, selftest.MATCH_RACE)
    assert (await selftest.races(HistoryStore())).broken == ()


async def test_cas_refuses_a_liar_by_name(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    proxy = await start(LyingStore("match"), ready=False, STATE_CONSISTENCY="cas")
    assert await proxy.task == 1
    (line,) = [record for record in caplog.records if record.message == "refused to serve"]
    assert "put ignores If-Match" in vars(line)["cause"]


async def test_lww_with_a_liar_refuses_what_needs_the_promise(start) -> None:  # type: ignore[no-untyped-def]
    client = await (await start(LyingStore("match"))).client()
    assert (await client.put("f", b"1")).status == 204
    for reply in (
        await client.put("f", b"", if_none_match="*"),
        await client.append("f", b""),
        await client.rename("f", "g", if_none_match="*"),
    ):
        assert (reply.status, reply.error) == (501, "unsupported")
    assert (await client.rename("f", "g")).status == 204


@pytest.mark.parametrize("variables", [{"STATE_READ_ONLY": "true"}, {"STATE_SELF_TEST": "false"}])
async def test_the_test_is_left_out(start, variables: Mapping[str, str]) -> None:  # type: ignore[no-untyped-def]
    store = LyingStore("match")
    await start(store, STATE_CONSISTENCY="cas", **variables)
    assert store.objects == {}


async def test_an_unreachable_backend_is_waited_for(start) -> None:  # type: ignore[no-untyped-def]
    store = HistoryStore()
    store.unreadable = Unavailable("connection refused", ambiguous=False)
    proxy = await start(store, ready=False)
    client = await proxy.client()
    async with asyncio.timeout(10):
        while "connection refused" not in (await client.get("f")).json["message"]:
            await asyncio.sleep(0.005)
    reply = await client.get("f")
    assert (reply.status, reply.error, reply.json["retryable"]) == (503, "unavailable", True)
    not_ready = await client.ask("GET", "/readyz")
    assert (not_ready.status, "connection refused" in not_ready.json["not_ready"]["state"]) == (503, True)
    assert (await client.ask("GET", "/healthz")).status == 200
    store.unreadable = None
    await proxy.ready()
    assert (await client.get("f")).error == "key_not_found"


async def test_no_permission_is_final(start, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    store = HistoryStore()
    store.unreadable = PermissionDenied("the credentials may not read; grant it")
    proxy = await start(store, ready=False)
    assert await proxy.task == 1
    assert "grant it" in caplog.text or any("grant it" in str(vars(record)) for record in caplog.records)


async def test_readiness_forgives_a_single_ping(start, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("asya_proxy.health.FRESH", 0.0)
    store = HistoryStore()
    client = await (await start(store)).client()
    store.unreadable = Unavailable("down")
    assert [(await client.ask("GET", "/readyz")).status for _ in range(4)] == [200, 200, 503, 503]
    store.unreadable = None
    assert (await client.ask("GET", "/readyz")).status == 200
