"""Promises: kept, broken and named, at start and by hand."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from asya_contract.wire import PROTOCOL
from asya_proxy import check, selftest
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Busy, Conflict, PermissionDenied, StoreError, Unavailable, Unsupported
from asya_proxy.mount import open_store
from asya_proxy.races import COMPLETION_RACE, COMPLETION_ROUNDS, CREATE_RACE, MATCH_RACE, RACERS, run_races
from asya_proxy.stores.base import ANY, Body, Change, Precondition, Stat, Store
from asya_proxy.stores.capabilities import InParts, Operations
from asya_proxy.stores.sqlite import SqliteStore
from asya_proxy.stores.wrappers import bounded
from support.history_store import HistoryStore
from support.serving import loaded


class LyingStore(HistoryStore):
    """Ignores the conditions named: create, match, delete; or refuses a current one, or any."""

    def __init__(self, *lies: str) -> None:
        super().__init__()
        self.lies = lies

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        when = change.when
        if "refuses current" in self.lies and when.version is not None:
            raise Conflict("no")
        if ("no match" in self.lies and when.version is not None) or ("no create" in self.lies and when.absent):
            raise Unsupported("501")
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
        (("create",), ("put ignores If-None-Match",), True),
        (("match",), ("put ignores If-Match",), True),
        (("refuses current",), ("put refuses a current If-Match",), True),
        (("no match",), ("put takes no If-Match",), True),
        (("no create",), ("put takes no If-None-Match",), True),
        (("delete",), ("delete ignores If-Match",), False),
        (("no delete",), ("delete takes no If-Match",), False),
    ],
)
async def test_each_broken_promise_has_its_name(lies: tuple[str, ...], broken: tuple[str, ...], fatal: bool) -> None:
    store = LyingStore(*lies)
    verdict = await selftest.at_start(store)
    assert (verdict.names, bool(verdict.fatal)) == (broken, fatal)
    assert len(store.asked) <= 8
    traits = verdict.lower(store.traits)
    assert traits.conditional_put is not fatal
    assert traits.conditional_delete is (not broken or fatal)
    assert [key for key in store.objects if b"selftest" in key] == []


class LyingInParts(LyingStore):
    """Writes large content by another operation, which has lies of its own: complete create, complete match."""

    operations = Operations(complete="CompleteMultipartUpload")

    async def prepare(self, key: bytes, data: bytes) -> PreparedUpload:
        return PreparedUpload(self, key, data)

    async def keeps_promises(self, key: bytes, passed: bytes, stale: str | None) -> bool:
        self.asked.append("keeps_promises")
        return False


class PreparedUpload:
    def __init__(self, store: LyingInParts, key: bytes, data: bytes) -> None:
        self._store, self._key, self._data = store, key, data

    async def complete(self, when: Precondition) -> str:
        lies = self._store.lies
        if "no complete" in lies and not when.any:
            raise Unsupported("501")
        if ("complete create" in lies and when.absent) or ("complete match" in lies and when.version is not None):
            when = ANY
        return (await HistoryStore.put(self._store, self._key, Body(self._data), Change("c", when))).version

    async def abort(self) -> None:
        self._store.asked.append("abort")


@pytest.mark.parametrize(
    ("lies", "broken"),
    [
        ((), ()),
        (("complete create",), ("CompleteMultipartUpload ignores If-None-Match",)),
        (("complete match",), ("CompleteMultipartUpload ignores If-Match",)),
        (("no complete",), ("CompleteMultipartUpload takes no conditions",)),
        (("create", "complete create"), ("put ignores If-None-Match",)),
        (
            ("complete match", "delete"),
            ("CompleteMultipartUpload ignores If-Match", "delete ignores If-Match"),
        ),
    ],
)
async def test_completions_are_asked_on_their_own(lies: tuple[str, ...], broken: tuple[str, ...]) -> None:
    """Through the wrapper that the proxy puts around each store."""
    inner = LyingInParts(*lies)
    store = bounded(inner, Deadlines(), 5.0, 5.0)
    verdict = await selftest.at_start(store)
    assert verdict.names == broken
    assert verdict.lower(store.traits).conditional_put is not bool(broken)
    assert [key for key in inner.objects if b"selftest" in key] == []
    assert (b".asya/promises" in inner.objects) is not bool(verdict.fatal)


async def test_a_wrapper_claims_no_more_than_what_it_wraps() -> None:
    assert not isinstance(bounded(HistoryStore(), Deadlines(), 5.0, 5.0), InParts)
    assert isinstance(bounded(LyingInParts(), Deadlines(), 5.0, 5.0), InParts)


async def test_what_the_quick_probes_find_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    class Quick(LyingInParts):
        async def keeps_promises(self, key: bytes, passed: bytes, stale: str | None) -> bool:
            await self.put(key, Body(passed), Change("q", ANY))
            self.stale = stale
            return True

    store = Quick()
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert await selftest.at_start(store) == selftest.Verdict()
    assert (store.asked, store.stale) == (["get", "put"], None)
    version = store.objects[b".asya/promises"][1].version
    assert await selftest.at_start(store) == selftest.Verdict()
    assert store.asked == ["get", "put", "get"]
    monkeypatch.setattr("time.time", lambda: selftest.DAY + 1000.0)
    await selftest.at_start(store)
    assert store.stale == version


async def test_a_day_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HistoryStore()

    async def asked() -> list[str]:
        """Beyond the look at the record."""
        store.asked.clear()
        await selftest.at_start(store)
        return store.asked[1:]

    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert await asked() != []
    assert await asked() == []
    monkeypatch.setattr("time.time", lambda: selftest.DAY + 1000.0)
    assert await asked() != []
    data, stat = store.objects[b".asya/promises"]
    monkeypatch.setattr("time.time", lambda: 1000.0)
    for other in (data[:-1], b"[]", b"1", b'{"broken": [1]}', b"", b"\xff", b"[" * 100_000):
        store.objects[b".asya/promises"] = (other, stat)
        assert await asked() != []


FLAW = {"operation": "delete", "fault": "ignores If-Match", "trait": "conditional_delete"}


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "0"},
        {"probes": selftest.PROBES + 1},
        {"probes": str(selftest.PROBES)},
        {"probes": None},
        {"broken": [{**FLAW, "trait": "conditional_put"}]},
        {"broken": [{**FLAW, "trait": "conditional_copy"}]},
        {"broken": [{**FLAW, "trait": "max_size"}]},
        {"broken": [{**FLAW, "trait": ["conditional_delete"]}]},
        {"broken": [{**FLAW, "fault": 1}]},
        {"broken": [{**FLAW, "since": "2"}]},
        {"broken": [{"operation": "delete", "trait": "conditional_delete"}]},
        {"broken": ["conditional_delete"]},
        {"broken": {}},
        {"broken": None},
    ],
    ids=str,
)
async def test_a_record_of_another_release_or_of_somebody_else_is_none(change: Mapping[str, object]) -> None:
    store = HistoryStore()
    record = {"protocol": PROTOCOL, "probes": selftest.PROBES, "broken": [FLAW]}
    for data, remembered in ((record, True), ({**record, **change}, False)):
        store.objects[b".asya/promises"] = (json.dumps(data).encode(), Stat("v", 1, time.time_ns()))
        store.asked.clear()
        verdict = await selftest.at_start(store)
        assert (len(store.asked) == 1, verdict.names) == (remembered, ("delete ignores If-Match",) * remembered)
        assert verdict.lower(store.traits).conditional_delete is not remembered
    assert json.loads(store.objects[b".asya/promises"][0])["probes"] == selftest.PROBES


async def test_what_cas_can_do_without_is_remembered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000.0)
    store = LyingStore("delete")
    verdict = await selftest.at_start(store)
    store.asked.clear()
    assert await selftest.at_start(store) == verdict
    assert (store.asked, verdict.names) == (["get"], ("delete ignores If-Match",))


async def test_writes_of_one_key_may_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "PAUSE", 0.0)
    store = HistoryStore()
    store.script.extend([Busy("one a second"), None, None, Busy("one a second"), Busy("one a second")])
    assert (await selftest.probe(store)).names == ()
    store.script.extend([Busy("never")] * 10)
    with pytest.raises(Busy):
        await selftest.probe(store)


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
    assert (await run_races(RacyStore())).names == (f"put {CREATE_RACE}", f"put {MATCH_RACE}")
    honest = HistoryStore()
    assert (await run_races(honest)).broken == ()
    assert honest.objects == {}


class Orderly(RacyStore):
    """One client of a racy backend, which sends one request after another."""

    def __init__(self, backend: RacyStore) -> None:
        super().__init__()
        self.objects, self._versions = backend.objects, backend._versions
        self._lock = asyncio.Lock()

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        async with self._lock:
            return await super().put(key, body, change)


async def test_a_client_in_order_does_not_hide_a_race_from_the_others() -> None:
    backend = RacyStore()
    assert (await run_races(Orderly(backend))).broken == ()
    assert (await run_races(Orderly(backend), Orderly(backend))).names == (f"put {CREATE_RACE}", f"put {MATCH_RACE}")


async def test_a_check_of_races_is_made_by_several_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[Store] = []
    closed: list[Store] = []

    async def counted(store: SqliteStore) -> None:
        closed.append(store)
        await close(store)

    def recorded(*arguments: Any) -> Store:
        opened.append(open_store(*arguments))
        return opened[-1]

    close = SqliteStore.close
    monkeypatch.setattr(SqliteStore, "close", counted)
    monkeypatch.setattr(check, "open_store", recorded)
    found = loaded("sqlite", {"SQLITE_DIR": str(tmp_path)}, STATE_CONSISTENCY="cas")
    assert await check.check(found, races=True) == 0
    assert len(opened) == len(closed) == check.CLIENTS
    opened.clear()
    assert await check.check(found, races=False) == 0
    assert len(opened) == 1


class RacyInParts(LyingInParts):
    """Puts are atomic; a completion looks first and writes later."""

    async def prepare(self, key: bytes, data: bytes) -> PreparedUpload:
        return RacyUpload(self, key, data)


class RacyUpload(PreparedUpload):
    async def complete(self, when: Precondition) -> str:
        try:
            self._store._check(self._key, when)
        finally:
            await asyncio.sleep(0)
        return await super().complete(ANY)


async def test_completions_race_against_puts() -> None:
    assert (await selftest.probe(RacyInParts())).broken == ()
    assert (await run_races(RacyInParts())).names == (f"CompleteMultipartUpload {COMPLETION_RACE}",)
    honest = LyingInParts()
    assert (await run_races(honest)).broken == ()
    assert honest.asked.count("abort") >= (RACERS // 2 - 1) * COMPLETION_ROUNDS
    assert honest.objects == {}


async def test_a_race_of_which_nobody_wins() -> None:
    """Refused because of each other (409 of S3): that is allowed. All refused for another reason is not."""

    class Shy(HistoryStore):
        refusal: StoreError = Unavailable("another one is under way", ambiguous=False)

        async def put(self, key: bytes, body: Body, change: Change) -> Stat:
            if not change.when.any:
                raise self.refusal
            return await super().put(key, body, change)

    store = Shy()
    assert (await run_races(store)).broken == ()
    store.refusal = Conflict("no")
    assert len((await run_races(store)).broken) == 2
    store.refusal = Unavailable("no answer")
    with pytest.raises(Unavailable):
        await run_races(store)


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
