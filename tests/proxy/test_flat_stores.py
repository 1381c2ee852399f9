"""File semantics on a store that has none: flat keys, one object at a time, and one that hangs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from asya_proxy.consistency import Consistency, Wish
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Conflict, KeyNotFound, Unavailable
from asya_proxy.metrics import MountMetrics
from asya_proxy.service import Service
from asya_proxy.settlement import is_superseded
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Page, Precondition, Reading, Stat, match
from support.history_store import HistoryStore
from support.wire_client import WireClient


class CopyingStore(HistoryStore):
    """One that copies by itself."""

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        if source not in self.objects:
            raise KeyNotFound("absent")
        self._check(source, when_source)
        return await self.put(target, Body(self.objects[source][0]), change)


@pytest.fixture
def store() -> HistoryStore:
    return HistoryStore()


@pytest.fixture
async def flat(start, store: HistoryStore) -> WireClient:  # type: ignore[no-untyped-def]
    return await (await start(store, STATE_SELF_TEST="false")).client()


async def test_files_and_directories_exclude_each_other_as_far_as_can_be_seen(flat: WireClient) -> None:
    await flat.put("d/f", b"")
    assert (await flat.put("d", b"")).error == "is_directory"
    assert (await flat.put("d/f/below", b"")).error == "not_directory"
    assert (await flat.append("d/f/below", b"")).error == "not_directory"
    assert (await flat.put("d/f/below/")).error == "not_directory"
    assert (await flat.put("d/")).error == "exists"
    assert (await flat.put("d/f/")).error == "exists"
    assert (await flat.rename("d/f", "d")).error == "is_directory"


async def test_a_file_that_is_known_is_written_with_one_request(flat: WireClient, store: HistoryStore) -> None:
    await flat.put("d/f", b"1")
    store.asked.clear()
    await flat.put("d/f", b"2")
    assert store.asked == ["put"]


async def test_a_repeated_mkdir_is_the_first_one(flat: WireClient, store: HistoryStore) -> None:
    once = {"idempotency_key": secrets.token_urlsafe(16)}
    assert (await flat.put("d/", **once)).status == 204
    assert (await flat.put("d/", **once)).status == 204
    assert (await flat.put("d/")).error == "exists"
    store.script.append("after")
    assert (await flat.put("e/")).status == 204


async def test_attributes_are_unsupported(flat: WireClient) -> None:
    await flat.put("f", b"")
    for method, body in (("GET", None), ("PUT", b'{"value": ""}'), ("DELETE", None)):
        reply = await flat.ask(method, "/meta/f?attr=a", body)
        assert (reply.status, reply.error) == (501, "unsupported")


async def test_a_directory_moves_file_by_file(flat: WireClient, store: HistoryStore) -> None:
    for name in ("a", "sub/b", "sub/c"):
        await flat.put(f"old/{name}", name.encode())
    await flat.put("old/empty/")
    await flat.put("full/f")
    assert (await flat.rename("old", "full")).error == "not_empty"
    assert (await flat.rename("old", "old/sub/x")).error == "bad_request"
    assert (await flat.rename("old", "new")).status == 204
    await flat.delete("full/f")
    assert {key: data for key, (data, _) in store.objects.items()} == {
        b"new/a": b"a",
        b"new/empty/": b"",
        b"new/sub/b": b"sub/b",
        b"new/sub/c": b"sub/c",
    }


@pytest.mark.parametrize("steps", range(1, 8))
async def test_an_interrupted_move_goes_on_where_it_stopped(store: HistoryStore, steps: int) -> None:
    """A record, two changes for each file, the record again: it breaks off after each but the last."""

    def service() -> Service:
        deadlines = Deadlines(tick=0.005)
        return Service(Consistency(store, MountMetrics("m"), deadlines, cas=False, request_timeout=0.05))

    for name in (b"old/a", b"old/b", b"old/c"):
        await store.put(name, Body(name), Change(secrets.token_urlsafe(16)))
    wish = Wish(secrets.token_urlsafe(16))
    store.script.extend([None] * steps + [Unavailable("down", ambiguous=False)] * 200)
    with pytest.raises(Unavailable):
        await service().rename(b"old/", b"new/", wish, ANY)
    store.script.clear()
    await service().rename(b"old/", b"new/", wish, ANY)
    assert {key: data for key, (data, _) in store.objects.items()} == {
        b"new/a": b"old/a",
        b"new/b": b"old/b",
        b"new/c": b"old/c",
    }


class BusyStore(HistoryStore):
    """Between a listing of `old/` and what follows, others write one file of it and remove another."""

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        page = await super().list(prefix, delimiter=delimiter, after=after, limit=limit)
        if prefix == b"old/" and len(page.entries) == 3:
            await self.put(b"old/a", Body(b"newer"), Change(secrets.token_urlsafe(16)))
            del self.objects[b"old/b"]
        return page


@pytest.mark.parametrize("cas", [False, True])
async def test_a_directory_moves_beside_writers_of_its_files(cas: bool) -> None:
    store = BusyStore()
    for name in (b"old/a", b"old/b", b"old/c"):
        await store.put(name, Body(name), Change(secrets.token_urlsafe(16)))
    service = Service(Consistency(store, MountMetrics("m"), Deadlines(), cas=cas))
    await service.rename(b"old/", b"new/", Wish(secrets.token_urlsafe(16)), ANY)
    assert {key: data for key, (data, _) in store.objects.items()} == {b"new/a": b"newer", b"new/c": b"old/c"}


def write() -> Change:
    return Change(secrets.token_urlsafe(16))


def cas_service(store: HistoryStore) -> Service:
    return Service(Consistency(store, MountMetrics("m"), Deadlines(tick=0.005), cas=True, request_timeout=0.05))


async def filled(store: HistoryStore, *names: bytes) -> dict[bytes, str | None]:
    """The versions of files below `old/`, as somebody knows them who has read them."""
    return {name: (await store.put(b"old/" + name, Body(name), write())).version for name in names}


@pytest.mark.parametrize("traits", [{}, {"copy": True}])
async def test_a_moved_directory_tells_which_files_went_as_they_were_known(traits: dict[str, bool]) -> None:
    store = CopyingStore(**traits)
    known = await filled(store, b"a", b"sub/b", b"c", b"any")
    known |= {b"any": None, b"no": None, b"gone": "v0"}
    await store.put(b"old/c", Body(b"newer"), write())
    versions = await cas_service(store).rename(b"old/", b"new/", Wish(secrets.token_urlsafe(16)), ANY, known)
    assert versions == {name: store.objects[b"new/" + name][1].version for name in (b"a", b"sub/b", b"any")}
    assert store.objects[b"new/c"][0] == b"newer"


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_move_that_was_interrupted_still_tells_them(copy: bool, steps: int) -> None:
    store = CopyingStore(copy=copy)
    known = await filled(store, b"a", b"b", b"c")
    wish = Wish(secrets.token_urlsafe(16))
    store.script.extend([None] * steps + [Unavailable("down", ambiguous=False)] * 200)
    with pytest.raises(Unavailable):
        await cas_service(store).rename(b"old/", b"new/", wish, ANY, known)
    store.script.clear()
    landed = store.objects.get(b"new/a")
    if landed is not None:
        # Whoever writes the new name in between has written what the mover does not know.
        await store.put(b"new/a", Body(b"newer"), Change("another", match(landed[1].version), landed[1].history))
    versions = await cas_service(store).rename(b"old/", b"new/", wish, ANY, known)
    assert not isinstance(versions, Stat)
    assert is_superseded(versions[b"a"]) == (landed is not None)
    assert {name: versions[name] for name in (b"b", b"c")} == {
        name: store.objects[b"new/" + name][1].version for name in (b"b", b"c")
    }
    assert not [key for key in store.objects if key.startswith(b"old/")]
    assert store.objects[b"new/a"][0] == (b"a" if landed is None else b"newer")


class TakenStore(HistoryStore):
    """Between a listing of `old/` and what follows, somebody creates a file of the new directory."""

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        page = await super().list(prefix, delimiter=delimiter, after=after, limit=limit)
        if prefix == b"old/" and len(page.entries) == 3:
            await self.put(b"new/b", Body(b"another's"), write())
        return page


async def test_a_move_writes_over_nothing_that_others_have_created_meanwhile() -> None:
    store = TakenStore()
    known = await filled(store, b"a", b"b", b"c")
    with pytest.raises(Conflict, match=r"1 of its files stay where they were.*'b'"):
        await cas_service(store).rename(b"old/", b"new/", Wish(secrets.token_urlsafe(16)), ANY, known)
    assert {key: data for key, (data, _) in store.objects.items()} == {
        b"new/a": b"a",
        b"new/b": b"another's",
        b"new/c": b"c",
        b"old/b": b"b",
    }


async def test_a_rename_repeated_after_its_source_was_written_anew_is_done(store: HistoryStore) -> None:
    """The copy had landed and the proxy died; what was written since under the old name is another file."""
    known = await filled(store, b"a")
    wish = Wish(secrets.token_urlsafe(16), ABSENT)
    source = match(str(known[b"a"]))
    store.script.extend([None] + [Unavailable("down", ambiguous=False)] * 200)
    with pytest.raises(Unavailable):
        await cas_service(store).rename(b"old/a", b"new", wish, source)
    store.script.clear()
    await store.put(b"old/a", Body(b"newer"), write())
    stat = await cas_service(store).rename(b"old/a", b"new", wish, source)
    assert stat == store.objects[b"new"][1]
    assert {key: data for key, (data, _) in store.objects.items()} == {b"new": b"a", b"old/a": b"newer"}


class HangingStore(HistoryStore):
    """Answers nothing about keys that start with `hang`; streams stop after their first piece."""

    async def head(self, key: bytes) -> Stat | None:
        if key.startswith(b"hang"):
            await asyncio.Event().wait()
        return await super().head(key)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        reading = await super().get(key, start=start, end=end, version=version)
        return reading if reading is None else Reading(reading.stat, None, self._stream(reading.data or b""))

    async def _stream(self, data: bytes) -> AsyncIterator[bytes]:
        yield data[:1]
        await asyncio.Event().wait()

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        stat = await super().put(key, body, change)
        if key.startswith(b"hang"):
            await asyncio.Event().wait()
        return stat


async def test_a_store_that_hangs_is_given_up(start) -> None:  # type: ignore[no-untyped-def]
    proxy = await start(
        HangingStore(), STATE_SELF_TEST="false", STATE_ATTEMPT_TIMEOUT="50ms", STATE_REQUEST_TIMEOUT="200ms"
    )
    client = await proxy.client()
    late = await client.head("hang")
    assert (late.status, late.headers["x-asya-error"]) == (504, "timeout")
    unknown = await client.put("hang/f", b"x")
    assert (unknown.status, unknown.error) in ((503, "unknown_outcome"), (504, "timeout"))
    await client.put("f", b"xyz")
    cut = await proxy.client()
    await cut.send(b"GET /keys/f HTTP/1.1\r\nHost: t\r\n\r\n")
    answer = await cut.rest()
    assert b"Content-Length: 3\r\n" in answer
    assert answer.endswith(b"\r\n\r\nx")
