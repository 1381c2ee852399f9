"""The NATS store against a real nats-server: what is peculiar to it, then the conformance kit."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_proxy.errors import (
    BadRequest,
    Conflict,
    Exists,
    KeyNotFound,
    NameTooLong,
    PermissionDenied,
    Quota,
    StoreError,
    Timeout,
    TooLarge,
    Unavailable,
)
from asya_proxy.stores import nats as module
from asya_proxy.stores import nats_streams
from asya_proxy.stores.base import ABSENT, Body, Change, StoreConfig, match
from asya_proxy.stores.nats import NatsStore
from asya_proxy.stores.nats_credentials import Credentials
from asya_proxy.stores.nats_house import ORPHAN_AGE
from asya_proxy.stores.nats_jetstream import WrongSequence
from asya_proxy.stores.nats_link import Link
from asya_proxy.stores.nats_record import MAX_PAST, Head, Run, decode_key, encode_key, pieces, subject_filter
from asya_proxy.stores.nats_spilled import Spilled
from asya_proxy.stores.nats_streams import ATOMIC_REPLICAS
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from asya_proxy.testing.samples import content
from support.nats_accounts import ACCOUNT, Identity, Trust
from support.server_nats import NatsServer, nats_cluster

BIG = bytes(range(256)) * 6000  # 1.5 MB: three chunks
Open = Callable[..., Awaitable[NatsStore]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(
            server: NatsServer, bucket: str = "state", prefix: str = "ns/actor/", **more: Any
        ) -> NatsStore:
            store = NatsStore(StoreConfig(bucket, prefix, {"NATS_URL": server.url}, **more))
            stack.push_async_callback(store.close)
            await store.connect()
            return store

        yield open_store


@pytest.fixture
async def store(server: NatsServer, connect: Open) -> NatsStore:
    """A bucket of its own."""
    return await connect(server, secrets.token_hex(6))


def change(when: Any = None, write_id: str = "") -> Change:
    return Change(write_id or secrets.token_urlsafe(16), *([when] if when is not None else []))


async def info(store: NatsStore, stream: str) -> dict[str, Any]:
    return await store._jetstream.call(f"STREAM.INFO.{stream}")


# Names


@given(st.lists(st.binary(max_size=12).filter(lambda segment: b"/" not in segment), min_size=1, max_size=5))
def test_every_name_comes_back(segments: list[bytes]) -> None:
    key = b"/".join(segments)
    text = encode_key(key)
    assert decode_key(text) == key
    assert all(text.split(".")), "no empty token"
    assert text.isascii()
    assert not set(text) & set(" *>$\r\n\t")


@pytest.mark.parametrize("foreign", ["a.=2e", "=41", "a..b", "", "a b", "a.=", "=", "é"])
def test_only_our_own_spelling_is_a_name(foreign: str) -> None:
    key = decode_key(foreign)
    assert key is None or encode_key(key) == foreign


def test_a_name_beyond_the_protocol_line_is_refused() -> None:
    with pytest.raises(NameTooLong, match="3500"):
        encode_key(b"." * 1200)


def test_the_filter_is_the_last_whole_segment() -> None:
    assert subject_filter(b"") == ">"
    assert subject_filter(b"ns/actor/") == "ns.actor.>"
    assert subject_filter(b"ns/act") == "ns.>"


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), max_size=4), st.integers(0, 60), st.integers(0, 60))
def test_ranges_name_exactly_the_chunks_they_need(shape: list[tuple[int, int]], start: int, stop: int) -> None:
    runs = [Run(f"u{number}", count, each, max(1, each - 2)) for number, (count, each) in enumerate(shape)]
    data = {}
    for run in runs:
        for index in range(run.count):
            size = run.last if index == run.count - 1 else run.each
            data[run.upload, index] = secrets.token_bytes(size)
    whole = b"".join(data.values())
    found = b"".join(data[p.upload, p.index][p.start : p.stop] for p in pieces(runs, start, min(stop, len(whole))))
    assert found == whole[start:stop]


# Values


async def test_small_files_are_plain_values_of_the_bucket(server: NatsServer, store: NatsStore) -> None:
    await store.put(b"dir/history.json", Body(b'["hello"]'), change())
    client = await nats.connect(server.url)
    bucket = await client.jetstream().key_value(store._config.bucket)
    entry = await bucket.get("ns.actor.dir.history=2Ejson")
    assert entry.value == b'["hello"]'
    await client.close()


async def test_what_others_write_is_a_file(server: NatsServer, store: NatsStore) -> None:
    client = await nats.connect(server.url)
    bucket = await client.jetstream().key_value(store._config.bucket)
    await bucket.put("ns.actor.notes", b"by hand")
    stat = await store.head(b"notes")
    assert stat is not None
    assert (stat.size, await content(await store.get(b"notes"))) == (7, b"by hand")
    assert [entry.size for entry in (await store.list(b"")).entries] == [7]
    await store.append(b"notes", Body(b" and by us"), change())
    assert (await bucket.get("ns.actor.notes")).value == b"by hand and by us"
    await bucket.delete("ns.actor.notes")
    assert await store.head(b"notes") is None
    assert (await store.list(b"")).entries == []
    await store.put(b"notes", Body(b"again"), change(ABSENT))
    await bucket.purge("ns.actor.notes")
    assert await store.head(b"notes") is None
    await client.close()


async def test_ranges_read_needed_chunks_only(store: NatsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put(b"big", Body(BIG), change())
    asked = []
    link = store._jetstream.link
    original = link.request

    async def request(subject: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(subject)
        return await original(subject, *args, **kwargs)

    monkeypatch.setattr(link, "request", request)
    start = module.CHUNK_SIZE + 10
    assert await content(await store.get(b"big", start=start, end=start + 20)) == BIG[start : start + 20]
    assert [subject.rpartition(".")[2] for subject in asked if "DIRECT.GET" in subject] == ["1"]


async def test_appends_to_a_chunked_file_grow_its_tail_and_then_a_chunk(store: NatsStore) -> None:
    expected = BIG
    await store.put(b"log", Body(BIG), change())
    for number in range(6):
        line = bytes([number]) * 100_000
        expected += line
        await store.append(b"log", Body(line), change())
    assert await content(await store.get(b"log")) == expected
    huge = BIG[::-1]
    appended = await store.append(b"log", Body(huge), change())
    assert appended.stat.size == len(expected) + len(huge)
    assert await content(await store.get(b"log")) == expected + huge


async def test_a_file_of_many_appends_is_written_anew(store: NatsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RUNS", 5)
    expected = b""
    for number in range(12):
        line = bytes([number]) * (module.INLINE // 2 + 1)
        expected += line
        await store.append(b"log", Body(line), change())
    stored = await store._read(b"log")
    assert len(stored.head.runs) <= 5
    assert await content(await store.get(b"log")) == expected


async def test_attributes_keep_content_and_mtime(store: NatsStore) -> None:
    first = await store.put(b"f", Body(BIG), change())
    second = await store.set_attrs(b"f", {"YQ==": "Yg=="}, change(match(first.version)))
    assert (second.mtime_ns, second.size, dict(second.attrs)) == (first.mtime_ns, len(BIG), {"YQ==": "Yg=="})
    assert second.version != first.version
    assert await content(await store.get(b"f")) == BIG
    with pytest.raises(TooLarge, match="16384"):
        await store.set_attrs(b"f", {"a": "x" * 20_000}, change())
    with pytest.raises(KeyNotFound):
        await store.set_attrs(b"missing", {}, change())


async def test_the_client_survives_what_the_server_would_not(store: NatsStore) -> None:
    """The longest name with the largest inline value, and one byte more of each."""
    name = b"." * 1100
    await store.put(name, Body(b"x" * module.INLINE), change())
    with pytest.raises(NameTooLong):
        await store.put(b"." * 1200, Body(b"x"), change())
    await store.put(name, Body(b"x" * (module.INLINE + 1)), change())
    assert len(await content(await store.get(name))) == module.INLINE + 1


async def test_a_server_with_a_small_payload(tmp_path: Path, connect: Open) -> None:
    with NatsServer(tmp_path / "small", max_payload=128 << 10) as server:
        store = await connect(server)
        await store.put(b"f", Body(BIG), change())
        assert await content(await store.get(b"f")) == BIG
        await store.append(b"f", Body(b"z" * 60_000), change())
        await store.append(b"f", Body(b"z" * 60_000), change())
        assert await content(await store.get(b"f")) == BIG + b"z" * 120_000
    with NatsServer(tmp_path / "tiny", max_payload=64 << 10) as server:
        with pytest.raises(BadRequest, match="max_payload"):
            await connect(server)


# Changes repeated with their id


async def test_repeats_are_found_through_a_delete(store: NatsStore) -> None:
    created = await store.put(b"f", Body(b"1"), change(ABSENT, "create"))
    await store.delete(b"f", change(match(created.version), "delete"))
    await store.delete(b"f", change(match(created.version), "delete"))
    again = await store.put(b"f", Body(b"1"), change(ABSENT, "create"))
    assert again.version == created.version
    assert await store.head(b"f") is None


async def test_repeats_are_found_where_too_many_followed(store: NatsStore) -> None:
    first = await store.append(b"log", Body(b"first;"), change(write_id="first"))
    for number in range(3 * MAX_PAST):
        await store.append(b"log", Body(b"%d;" % number), change())
    before = await content(await store.get(b"log"))
    again = await store.append(b"log", Body(b"first;"), change(write_id="first"))
    assert (again.stat.version, again.base) == (first.stat.version, None)
    assert await content(await store.get(b"log")) == before
    assert before.count(b"first;") == 1


async def test_repeats_are_found_by_a_proxy_that_did_not_see_their_ids_go(
    server: NatsServer, store: NatsStore, connect: Open
) -> None:
    first = await store.put(b"f", Body(b"first"), change(write_id="first"))
    for _ in range(2 * MAX_PAST):
        await store.put(b"f", Body(b"x"), change())
    other = await connect(server, store._config.bucket)
    assert (await other.put(b"f", Body(b"first"), change(write_id="first"))).version == first.version
    second = await other.put(b"f", Body(b"second"), change(write_id="second"))
    for _ in range(2 * MAX_PAST):
        await other.put(b"f", Body(b"x"), change())
    assert (await store.put(b"f", Body(b"second"), change(write_id="second"))).version == second.version
    assert await content(await store.get(b"f")) == b"x"


async def test_a_busy_file_is_not_asked_for_ids_that_nobody_used(
    store: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    last = store._jetstream.last

    async def counting(stream: str, subject: str) -> Any:
        asked.append(stream)
        return await last(stream, subject)

    monkeypatch.setattr(store._jetstream, "last", counting)
    for number in range(3 * MAX_PAST):
        await store.put(b"f", Body(b"%d" % number), change(write_id=f"w{number}"))
    assert asked == [store._streams.files]
    await store.put(b"f", Body(b"0"), change(write_id="w0"))
    assert asked == [store._streams.files, store._streams.ids]


class TestSpilled:
    """What is known of the stream of ids without asking for it."""

    @pytest.fixture
    def now(self) -> list[float]:
        return [0.0]

    @pytest.fixture
    def spilled(self, now: list[float]) -> Spilled:
        return Spilled(120.0, 2, clock=lambda: now[0])

    def test_nothing_is_known_of_a_file_with_ids_from_before(self, spilled: Spilled) -> None:
        head = Head(7, spilled_ns=1000)
        spilled.read(b"f", head, 500)
        assert not spilled.lacks(b"f", head, "a")
        spilled.read(b"f", head, 1500)  # by now they count no more
        assert spilled.lacks(b"f", head, "a")

    def test_what_went_there_is_not_lacking_for_a_window_at_least(self, spilled: Spilled, now: list[float]) -> None:
        spilled.read(b"f", Head(1), 5)
        now[0] = 119.0
        spilled.wrote(b"f", Head(1), Head(2, spilled_ns=9), ["a"])
        assert not spilled.lacks(b"f", Head(2), "a")
        assert spilled.lacks(b"f", Head(2), "b")
        assert spilled.lacks(b"f", Head(1), "a") is False  # another version than the one that is known
        now[0] = 239.0
        assert not spilled.lacks(b"f", Head(2), "a")
        now[0] = 999.0
        assert spilled.lacks(b"f", Head(2), "a")

    def test_another_writer_ends_what_is_known(self, spilled: Spilled) -> None:
        spilled.read(b"f", Head(1), 5)
        spilled.read(b"f", Head(5, spilled_ns=9), 5)
        spilled.wrote(b"f", Head(5, spilled_ns=9), Head(6, spilled_ns=9), [])
        assert not spilled.lacks(b"f", Head(6), "a")

    def test_files_that_are_known_are_few(self, spilled: Spilled) -> None:
        for key in (b"1", b"2", b"3"):
            spilled.read(key, Head(1), 5)
        assert [spilled.lacks(key, Head(1), "a") for key in (b"1", b"2", b"3")] == [False, True, True]


async def test_a_repeat_by_another_proxy_is_no_conflict(server: NatsServer, store: NatsStore, connect: Open) -> None:
    other = await connect(server, store._config.bucket)
    base = await store.put(b"f", Body(b"base"), change())
    one = await store.put(b"f", Body(b"mine"), change(match(base.version), "mine"))
    two = await other.put(b"f", Body(b"mine"), change(match(base.version), "mine"))
    assert one.version == two.version
    await other.put(b"f", Body(b"theirs"), change(match(one.version)))
    assert (await store.put(b"f", Body(b"mine"), change(match(base.version), "mine"))).version == one.version
    with pytest.raises(Conflict):
        await store.put(b"f", Body(b"late"), change(match(base.version)))


async def test_one_id_may_name_several_operations(store: NatsStore) -> None:
    await store.put(b"f", Body(b"1"), change(write_id="same"))
    await store.append(b"f", Body(b"2"), change(write_id="same"))
    await store.delete(b"f", change(write_id="same"))
    assert await store.head(b"f") is None


async def test_stale_changes_lose(server: NatsServer, store: NatsStore, connect: Open) -> None:
    """Also where this client believes an older state than the server has."""
    other = await connect(server, store._config.bucket)
    first = await store.put(b"f", Body(b"1"), change())
    second = await other.put(b"f", Body(b"2"), change(match(first.version)))
    with pytest.raises(Conflict):
        await store.delete(b"f", change(match(first.version)))
    with pytest.raises(Conflict):
        await store.put(b"f", Body(b"3"), change(match(first.version)))
    with pytest.raises(Exists):
        await store.put(b"f", Body(b"3"), change(ABSENT))
    await store.delete(b"f", change(match(second.version)))
    with pytest.raises(KeyNotFound):
        await other.delete(b"f", change())
    third = await other.put(b"f", Body(b"1"), change(ABSENT))
    assert third.version not in (first.version, second.version)


# Housekeeping


async def test_replaced_chunks_go_after_a_grace(store: NatsStore) -> None:
    chunks = f"ASYA_{store._config.bucket}_CHUNKS"
    await store.put(b"big", Body(BIG), change())
    assert (await info(store, chunks))["state"]["messages"] == 3
    await store.put(b"big", Body(b"small"), change())
    assert await store._house.purge_due(store._jetstream) == 0
    assert (await info(store, chunks))["state"]["messages"] == 3
    assert await store._house.purge_due(store._jetstream, time.monotonic() + module.GRACE + 1) == 1
    assert (await info(store, chunks))["state"]["messages"] == 0


async def test_a_refused_upload_leaves_nothing(store: NatsStore) -> None:
    chunks = f"ASYA_{store._config.bucket}_CHUNKS"
    await store.put(b"f", Body(b"there"), change())

    async def late() -> AsyncIterator[bytes]:
        yield BIG
        await store.put(b"f", Body(b"came first"), change())

    first = await store.head(b"f")
    assert first is not None
    with pytest.raises(Conflict):
        await store.put(b"f", Body(stream=late()), change(match(first.version)))
    assert (await info(store, chunks))["state"]["messages"] == 3
    await store._house.purge_due(store._jetstream)
    assert (await info(store, chunks))["state"]["messages"] == 0


async def test_the_sweep_takes_what_dead_writers_left_and_nothing_else(store: NatsStore) -> None:
    await store.put(b"kept", Body(BIG), change())
    orphan = await store._upload(b"kept", module._once(b"x" * 10))
    assert orphan.count == 1
    await store.put(b"gone", Body(b"x"), change())
    await store.delete(b"gone", change())
    assert await store._house.sweep(store._jetstream) == (0, 0)
    later = time.time_ns() + int((ORPHAN_AGE + 1) * 1e9)
    assert await store._house.sweep(store._jetstream, later) == (1, 1)
    assert (await info(store, f"KV_{store._config.bucket}"))["state"]["messages"] == 1
    assert await content(await store.get(b"kept")) == BIG
    await store.put(b"gone", Body(b"again"), change(ABSENT))


async def test_purging_a_marker_spares_what_was_written_since(store: NatsStore) -> None:
    await store.put(b"f", Body(b"1"), change())
    await store.delete(b"f", change())
    await store.put(b"f", Body(b"2"), change(ABSENT))
    assert await store._house.purge_due(store._jetstream, time.monotonic() + 10_000) == 1
    assert await content(await store.get(b"f")) == b"2"


# Listing


async def test_listings_follow_other_writers(server: NatsServer, store: NatsStore, connect: Open) -> None:
    other = await connect(server, store._config.bucket)
    for number in range(5):
        await other.put(b"d/%d" % number, Body(b"x"), change())
        await store.delete(b"d/%d" % (number - 1), change()) if number else None
        assert [entry.key for entry in (await store.list(b"d/")).entries] == [b"d/%d" % number]
        assert [entry.key for entry in (await other.list(b"d/")).entries] == [b"d/%d" % number]
    assert (await store.list(b"", delimiter=True)).prefixes == [b"d/"]


async def test_many_names_come_in_pages(store: NatsStore) -> None:
    names = sorted(b"d%d/f%d" % (number % 7, number) for number in range(1200))
    await asyncio.gather(*(store.put(name, Body(b""), change()) for name in names))
    seen: list[bytes] = []
    more = True
    while more:
        page = await store.list(b"", after=seen[-1] if seen else b"", limit=97)
        seen += [entry.key for entry in page.entries]
        more = page.more
    assert seen == names


@pytest.fixture
async def consumers(server: NatsServer, store: NatsStore) -> AsyncIterator[list[str]]:
    """Those that the server has made for listings of the bucket so far, by its own account."""
    made: list[str] = []

    async def on_advisory(message: nats.aio.msg.Msg) -> None:
        made.append(message.subject)

    client = await nats.connect(server.url)
    await client.subscribe(f"$JS.EVENT.ADVISORY.CONSUMER.CREATED.{store._streams.files}.>", cb=on_advisory)
    await client.flush()
    yield made
    await client.close()


async def until_made(store: NatsStore, consumers: list[str], count: int) -> None:
    """A listing that needs one is told of, and then whatever came before."""
    await store.list(b"", limit=1000)
    deadline = time.monotonic() + 5
    while len(consumers) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert len(consumers) == count


async def test_looking_for_a_directory_that_is_not_there_makes_no_consumer(
    server: NatsServer, store: NatsStore, connect: Open, consumers: list[str]
) -> None:
    other = await connect(server, store._config.bucket)
    for number in range(10):
        for writer in (store, other):
            key = b"w%d/%d" % (id(writer), number)
            assert not (await writer.list(key + b"/", limit=1)).entries
            await writer.put(key, Body(b"x"), change(ABSENT))
    await until_made(store, consumers, 1)
    assert len((await store.list(b"", limit=1000)).entries) == 20


async def test_what_this_process_alone_writes_is_listed_without_a_consumer(
    store: NatsStore, consumers: list[str]
) -> None:
    await store.put(b"0", Body(b"x"), change())
    assert len((await store.list(b"", limit=1000)).entries) == 1
    for number in range(1, 5):
        await store.put(b"%d" % number, Body(b"x"), change())
        assert len((await store.list(b"", limit=1000)).entries) == number + 1
    await store.delete(b"0", change())
    assert len((await store.list(b"", limit=1)).entries) == 1
    assert len((await store.list(b"", limit=1000)).entries) == 4
    await until_made(store, consumers, 1)


async def test_a_write_while_it_is_asked_how_far_the_stream_is_costs_no_listing_anew(
    server: NatsServer, store: NatsStore, connect: Open, consumers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await connect(server, store._config.bucket)
    await store.put(b"f", Body(b"x"), change())
    await until_made(store, consumers, 1)
    ask = store._jetstream.last_sequence

    async def overtaken(stream: str) -> int:
        last = await ask(stream)
        await store.put(b"g", Body(b"x"), change())
        return last

    monkeypatch.setattr(store._jetstream, "last_sequence", overtaken)
    assert [entry.key for entry in (await store.list(b"", limit=1000)).entries] == [b"f", b"g"]
    monkeypatch.undo()
    await other.put(b"h", Body(b"x"), change())
    await until_made(store, consumers, 2)


async def test_a_directory_is_found_wherever_its_files_lie(tmp_path: Path, connect: Open) -> None:
    """Also by a server that came up anew, and where only one of many is left."""
    with NatsServer(tmp_path) as server:
        store = await connect(server)
        for number in range(300):
            await store.put(b"d%d/f" % number, Body(b"x" * 50_000), change())
        for number in range(0, 300, 3):
            await store._jetstream.purge(store._streams.files, store._streams.file(f"ns.actor.d{number}.f"))
        for _ in range(2):
            server.kill()
            server.start()
            fresh = await connect(server)
            for number in range(300):
                found = [entry.key for entry in (await fresh.list(b"d%d/" % number, limit=1)).entries]
                assert found == ([] if number % 3 == 0 else [b"d%d/f" % number])
            await fresh.put(b"e/f", Body(b"x"), change())
            assert (await fresh.list(b"e/", limit=1)).entries


# What can be wrong at start


async def refusal(server: NatsServer | None, connect: Open, credentials: str = "", **environ: str) -> StoreError:
    url = server.url.replace("//", f"//{credentials}") if server is not None else "nats://127.0.0.1:1"
    store = NatsStore(StoreConfig("state", "ns/a/", {"NATS_URL": url} | environ, attempt_timeout=2.0))
    with pytest.raises(StoreError) as caught:
        await store.connect()
    await store.close()
    return caught.value


async def test_an_unreachable_server(connect: Open) -> None:
    error = await refusal(None, connect)
    assert isinstance(error, Unavailable)
    assert not error.ambiguous
    assert "127.0.0.1:1" in str(error)
    assert "NATS_URL" in str(error)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"NATS_URL": ""}, "NATS_URL is not set"),
        ({"NATS_URL": "http://user:secret@nats"}, "nats://"),
        ({"NATS_CREDS_FILE": "/nonexistent"}, "NATS_CREDS_FILE='/nonexistent' cannot be read"),
    ],
)
async def test_bad_settings(connect: Open, environ: dict[str, str], says: str) -> None:
    error = await refusal(None, connect, **environ)
    assert isinstance(error, BadRequest)
    assert says in str(error)
    assert "secret" not in str(error)


class _Rival:
    """A JetStream where another proxy makes the stream between our look and our attempt, seen `after` more looks."""

    class link:  # noqa: N801
        clustered = False
        version = (2, 10)
        may_have_jetstream = True

    def __init__(self, after: int, refusal: dict[str, Any]) -> None:
        self.looks, self.after, self.refusal = 0, after, refusal

    async def call(self, subject: str, body: Any = None) -> dict[str, Any]:
        if subject.startswith("STREAM.CREATE."):
            return {"error": self.refusal}
        self.looks += 1
        if self.looks <= 1 + self.after:
            return {"error": {"err_code": 10059, "description": "stream not found"}}
        return {"config": {"name": subject.rpartition(".")[2], "num_replicas": 1}}


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("refusal", ["subjects overlap with an existing stream", "stream name already in use"])
async def test_a_stream_made_by_another_meanwhile_is_taken(
    after: int, refusal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_streams, "LOOK_AGAIN", 0.001)
    rival = _Rival(after, {"err_code": 10065, "description": refusal})
    found = await nats_streams._find(rival, {"name": "KV_b"}, "nats kv add b")  # type: ignore[arg-type]
    assert found["name"] == "KV_b"


async def test_a_stream_whose_subjects_are_anothers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_streams, "LOOK_AGAIN", 0.001)
    rival = _Rival(1000, {"err_code": 10065, "description": "subjects overlap with an existing stream"})
    with pytest.raises(KeyNotFound, match=r"cannot be made .subjects overlap.*nats kv add b"):
        await nats_streams._find(rival, {"name": "KV_b"}, "nats kv add b")  # type: ignore[arg-type]
    assert rival.looks <= 1 + nats_streams.LOOKS


@pytest.mark.parametrize(("come", "replicas"), [(3, 3), (1000, 1)])
async def test_servers_of_a_cluster_that_starts_are_waited_for(
    come: int, replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its first stream would have no replicas, for ever."""
    monkeypatch.setattr(nats_streams, "LOOK_AGAIN", 0.001)
    asked: list[int] = []

    class Starting(_Rival):
        class link(_Rival.link):  # noqa: N801
            clustered = True

        async def call(self, subject: str, body: Any = None) -> dict[str, Any]:
            if not subject.startswith("STREAM.CREATE."):
                return {"error": {"err_code": 10059, "description": "stream not found"}}
            asked.append(body["num_replicas"])
            if body["num_replicas"] > 1 and len(asked) < come:
                return {"error": {"err_code": 10005, "description": "no suitable peers for placement"}}
            return {"config": body}

    found = await nats_streams._find(Starting(0, {}), {"name": "KV_b"}, "nats kv add b")  # type: ignore[arg-type]
    assert found["num_replicas"] == replicas
    assert len(asked) == min(come, nats_streams.PEERS + 1)


async def test_a_bad_bucket_name(server: NatsServer, connect: Open) -> None:
    with pytest.raises(BadRequest, match="STATE_BUCKET"):
        await connect(server, "my.bucket")


async def test_no_jetstream(tmp_path: Path, connect: Open) -> None:
    with NatsServer(tmp_path, jetstream=False) as server:
        error = await refusal(server, connect)
    assert isinstance(error, BadRequest)
    assert "nats-server -js" in str(error)


USERS = """authorization { users = [
  {user: all, password: p}
  {user: nocreate, password: p, permissions: {publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}}
  {user: noapi, password: p, permissions: {publish: {deny: ["$JS.>"]}}}
  {user: noinbox, password: p, permissions: {subscribe: {deny: ["_INBOX.>"]}}}
  {user: readonly, password: p, permissions: {publish: {deny: ["$KV.>"]}}}
] }"""


@pytest.mark.parametrize(
    ("credentials", "kind", "says"),
    [
        ("", PermissionDenied, "refuses the credentials"),
        ("all:wrong@", PermissionDenied, "refuses the credentials"),
        ("nocreate:p@", KeyNotFound, "nats kv add state"),
        ("noapi:p@", PermissionDenied, "$JS.API.STREAM.INFO.KV_state"),
        ("noinbox:p@", PermissionDenied, "_INBOX.state.>"),
    ],
)
async def test_credentials(tmp_path: Path, connect: Open, credentials: str, kind: type[StoreError], says: str) -> None:
    with NatsServer(tmp_path, config=USERS) as server:
        error = await refusal(server, connect, credentials)
    assert isinstance(error, kind)
    assert says in str(error)
    assert ":p@" not in str(error)
    assert "wrong" not in str(error)


async def test_a_user_that_may_not_write(tmp_path: Path, connect: Open) -> None:
    with NatsServer(tmp_path, config=USERS) as server:
        server.credentials = "all:p@"
        await connect(server)
        server.credentials = "readonly:p@"
        store = await connect(server)
        with pytest.raises(PermissionDenied, match=r"publish to \$KV.state.ns.actor.f"):
            await store.put(b"f", Body(b"x"), change())
        assert await store.head(b"f") is None


POLICY = Path(__file__).parents[2] / "docs" / "policies" / "nats-namespace.conf"


async def test_the_policy_of_least_privilege(tmp_path: Path, connect: Open) -> None:
    """Enough for everything the store does in its own bucket; in a neighbour's the server refuses even to look."""
    policy = POLICY.read_text()
    users = [
        policy.replace("BUCKET", bucket).replace("NAMESPACE", bucket).replace("PASSWORD", "p")
        for bucket in ("one", "two")
    ]
    config = "authorization { users = [ {user: admin, password: p}\n" + "\n".join(users) + "] }"
    with NatsServer(tmp_path, config=config) as server:
        server.credentials = "admin:p@"
        for bucket in ("one", "two"):
            await connect(server, bucket)
        server.credentials = "one:p@"
        store = await connect(server, "one")
        await store.put(b"big", Body(BIG), change())
        assert await content(await store.get(b"big")) == BIG
        for number in range(MAX_PAST + 5):
            await store.append(b"log", Body(b"x"), change(write_id=f"a{number}"))
        await store.append(b"log", Body(b"x"), change(write_id="a0"))
        assert [entry.size for entry in (await store.list(b"")).entries] == [len(BIG), MAX_PAST + 5]
        await store.delete(b"big", change())
        assert await store._house.purge_due(store._jetstream, time.monotonic() + 10_000) == 2
        assert await store._house.sweep(store._jetstream) == (0, 0)
        with pytest.raises(PermissionDenied, match=r"_INBOX\.two"):
            await connect(server, "two")
        theirs = store._jetstream
        for request in ("STREAM.MSG.GET.KV_two", "STREAM.INFO.KV_two", "CONSUMER.CREATE.KV_two", "STREAM.CREATE.KV_x"):
            with pytest.raises(PermissionDenied, match=request.replace(".", r"\.")):
                await theirs.call(request, {"last_by_subj": "$KV.two.ns.actor.f"})
        with pytest.raises(PermissionDenied, match=r"\$KV\.two"):
            await theirs.publish("KV_two", "$KV.two.ns.actor.f", b"")


async def test_a_credentials_file(tmp_path: Path) -> None:
    trust = Trust()
    creds = tmp_path / "user.creds"
    with NatsServer(tmp_path / "server", config=trust.config) as server:
        environ = {"NATS_URL": server.url, "NATS_CREDS_FILE": str(creds)}
        creds.write_text(trust.credentials())
        store = NatsStore(StoreConfig("state", "ns/a/", environ))
        await store.connect()
        await store.put(b"f", Body(b"x"), change())
        creds.write_text(trust.credentials())  # rotated: read at the next connection
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert await content(await store.get(b"f")) == b"x"
        await store.close()
        creds.write_text(Trust().credentials())
        with pytest.raises(PermissionDenied, match="NATS_CREDS_FILE"):
            await store.connect()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda text: "nonsense", "is no credentials file"),
        (lambda text: text.replace("\nSU", "\nSA"), "checksum"),
        (lambda text: text.replace("\nSU", "\n1U"), "base32"),
        (lambda text: re.sub(r"\nSU\S+", "\n" + Identity(ACCOUNT).seed, text), "is not a user's"),
    ],
)
def test_a_spoilt_credentials_file(tmp_path: Path, spoil: Callable[[str], str], says: str) -> None:
    path = tmp_path / "user.creds"
    text = Trust().credentials()
    path.write_text(spoil(text))
    with pytest.raises(BadRequest, match=says) as caught:
        Credentials.read(str(path))
    assert text.splitlines()[1] not in str(caught.value)
    assert text.splitlines()[5] not in str(caught.value)


async def test_a_password_that_a_url_must_encode(tmp_path: Path, connect: Open) -> None:
    with NatsServer(tmp_path, config='authorization { user: "a@b", password: "p/w:d%" }') as server:
        server.credentials = "a%40b:p%2Fw%3Ad%25@"
        await (await connect(server)).ping()


async def test_a_bucket_that_would_forget_is_refused(server: NatsServer, connect: Open) -> None:
    client = await nats.connect(server.url)
    bucket = secrets.token_hex(4)
    await client.jetstream().add_stream(
        name=f"KV_{bucket}", subjects=[f"$KV.{bucket}.>"], discard="old", max_bytes=1 << 20, max_msgs_per_subject=1
    )
    with pytest.raises(BadRequest, match="--discard=new"):
        await connect(server, bucket)
    await client.close()


async def test_a_full_bucket(store: NatsStore) -> None:
    name = f"KV_{store._config.bucket}"
    config = (await info(store, name))["config"]
    await store._jetstream.call(f"STREAM.UPDATE.{name}", {**config, "max_bytes": 1_000_000})
    for number in range(4):
        await store.put(b"f%d" % number, Body(b"x" * 200_000), change())
    with pytest.raises(Quota, match="full"):
        await store.put(b"f4", Body(b"x" * 200_000), change())
    await store.put(b"f0", Body(b"smaller"), change())
    await store.delete(b"f1", change())
    await store.put(b"new", Body(b"x" * 100_000), change())


# Loss of the server


async def test_the_store_outlives_its_server(tmp_path: Path, connect: Open) -> None:
    """Killed in the midst of writes: what was acknowledged is there, and the same store goes on."""
    server = NatsServer(tmp_path).start()
    try:
        store = await connect(server, attempt_timeout=2.0)
        acknowledged: dict[bytes, str] = {}
        lost: list[Unavailable] = []
        stopped = asyncio.Event()

        async def write(name: int) -> None:
            number = 0
            while not stopped.is_set():
                key, number = b"w%d/%d" % (name, number), number + 1
                try:
                    acknowledged[key] = (await store.put(key, Body(key), change(ABSENT))).version
                except Unavailable as error:
                    lost.append(error)
                    await asyncio.sleep(0.02)

        writers = [asyncio.create_task(write(name)) for name in range(8)]
        for _ in range(2):
            enough = len(acknowledged) + 50
            async with asyncio.timeout(20):
                while len(acknowledged) < enough:
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        enough = len(acknowledged) + 50
        async with asyncio.timeout(20):
            while len(acknowledged) < enough:
                await asyncio.sleep(0.01)
        stopped.set()
        await asyncio.gather(*writers)
        assert any("the connection was lost" in str(error) for error in lost), "nothing was under way"
        assert not any(isinstance(error, Timeout) for error in lost), "what was under way is told so, and not timed out"
        for key, version in acknowledged.items():
            stat = await store.head(key)
            assert stat is not None, key
            assert stat.version == version
    finally:
        server.stop()


async def test_a_client_that_does_not_say_it_closed(tmp_path: Path, connect: Open) -> None:
    """nats-py forgets to, where the connection breaks while it writes."""
    with NatsServer(tmp_path) as server:
        store = await connect(server)
        link = store._jetstream.link
        assert link._current is not None
        client = link._current.client
        client._closed_cb = None
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            while link._current is None or link._current.client is client:
                await asyncio.sleep(0.01)
        await store.ping()


async def test_a_client_that_dies_in_its_own_closing(tmp_path: Path, connect: Open) -> None:
    """nats-py calls nobody, where a reset meets it with bytes not yet sent: what is under way must not wait."""
    with NatsServer(tmp_path) as server:
        store = await connect(server, attempt_timeout=30.0)
        link = store._jetstream.link
        assert link._current is not None
        client = link._current.client

        async def breaks(status: int, do_cbs: bool = True) -> None:
            raise ConnectionResetError

        async def silent(_: object) -> None:
            pass

        await client.subscribe("quiet", cb=silent)
        client._close, client._error_cb = breaks, silent  # type: ignore[method-assign]
        async with asyncio.timeout(10):
            waiting = asyncio.create_task(link.request("quiet"))
            await client.flush()
            await asyncio.to_thread(server.kill)
            with pytest.raises(Unavailable, match="the connection was lost"):
                await waiting
            await asyncio.to_thread(server.start)
            await store.ping()


async def test_a_failure_of_any_kind_while_connecting_anew_is_not_the_last_attempt(
    tmp_path: Path, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NatsServer(tmp_path) as server:
        store = await connect(server)
        real = Link._connect
        failures: list[Exception] = [RuntimeError("a defect of the client"), Unavailable("away")]

        async def failing(self: Link) -> Any:
            if failures:
                raise failures.pop(0)
            return await real(self)

        monkeypatch.setattr(Link, "_connect", failing)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            while True:
                try:
                    await store.ping()
                    break
                except Unavailable:
                    await asyncio.sleep(0.02)
        assert failures == []


async def test_a_client_that_cannot_close_leaves_no_task(tmp_path: Path, connect: Open) -> None:
    """nats-py's own closing fails half way, where the connection breaks while it writes."""
    with NatsServer(tmp_path) as server:
        store = await connect(server)
        link = store._jetstream.link
        assert link._current is not None
        client = link._current.client
        assert all(subscription._wait_for_msgs_task is None for subscription in client._subs.values())
        tasks = [client._reading_task, client._flusher_task, client._ping_interval_task]

        async def breaks() -> None:
            raise ConnectionResetError

        client._transport.drain = breaks
        client._pending, client._pending_data_size = [b"PING\r\n"], 6
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(10):
            while link._current is None or link._current.client is client or link._doomed:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert all(task is not None and task.done() for task in tasks)
        assert client._transport._io_writer.is_closing()
        await store.ping()


async def test_a_server_that_is_away_is_unavailable_and_nothing_was_done(tmp_path: Path, connect: Open) -> None:
    server = NatsServer(tmp_path).start()
    store = await connect(server, attempt_timeout=0.3)
    server.stop()
    with pytest.raises(Unavailable):
        await store.put(b"f", Body(b"x"), change())  # may still have met the old connection
    for attempt in (
        lambda: store.put(b"f", Body(b"x"), change()),
        lambda: store.append(b"f", Body(b"x"), change()),
        lambda: store.append(b"f", Body(BIG), change()),
        lambda: store.put(b"f", Body(stream=arriving(BIG)), change()),
        lambda: store.delete(b"f", change()),
    ):
        with pytest.raises(Unavailable) as caught:
            await attempt()
        assert not caught.value.ambiguous
    with pytest.raises(Unavailable):
        await store.list(b"")


async def test_what_a_server_said_of_itself_is_known_while_it_is_away(tmp_path: Path, connect: Open) -> None:
    """Whether it is one of a cluster decides what a listing may rely on, and its limits how content is cut."""
    server = NatsServer(tmp_path).start()
    store = await connect(server, attempt_timeout=0.3)
    link = store._jetstream.link
    said = link.max_payload, link.version, link.may_have_jetstream
    assert said[0]
    server.stop()
    async with asyncio.timeout(10):
        while link._current is not None:
            await asyncio.sleep(0.01)
    assert (link.max_payload, link.version, link.may_have_jetstream) == said


@pytest.mark.parametrize("lost", ["chunk", "MSG.GET", "id"])
async def test_what_is_lost_before_the_change_itself_leaves_nothing_open(
    store: NatsStore, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """No chunk, look or record of earlier ids changes the file: nobody is told that it may have been changed."""
    for number in range(MAX_PAST + 1):
        await store.put(b"f", Body(b"%d" % number), change())
    request = Link.request

    async def losing(self: Link, subject: str, *args: Any, **kwargs: Any) -> Any:
        if f".{lost}." in subject:
            raise Timeout("no answer")
        return await request(self, subject, *args, **kwargs)

    monkeypatch.setattr(Link, "request", losing)
    with pytest.raises(Timeout) as caught:
        await store.put(b"f", Body(BIG), change())
    assert not caught.value.ambiguous
    monkeypatch.undo()
    assert await content(await store.get(b"f")) == b"%d" % MAX_PAST


async def test_house_keeping_goes_on_whatever_happens(
    store: NatsStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[Exception] = [ValueError("a header of somebody's"), Unavailable("away"), WrongSequence("other")]
    went_on = asyncio.Event()

    async def purge_due(*_: object) -> int:
        if failures:
            raise failures.pop(0)
        went_on.set()
        return 0

    monkeypatch.setattr(store._house, "purge_due", purge_due)
    monkeypatch.setattr("random.uniform", lambda *_: 0.001)
    keeper = asyncio.create_task(store._house.keep(store._jetstream))
    async with asyncio.timeout(5):
        await went_on.wait()
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    assert [record.levelname for record in caplog.records if record.message == "house-keeping failed"] == [
        "ERROR",
        "WARNING",
        "ERROR",
    ]


async def arriving(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_what_a_message_remembers_is_bounded(store: NatsStore) -> None:
    for number in range(4 * MAX_PAST):
        await store.put(b"f", Body(b"%d" % number), change())
    head = (await store._read(b"f")).head
    assert len(head.past) <= MAX_PAST
    assert sum(len(name) + len(value) for name, value in head.headers().items()) < 8192


# Clusters


@asynccontextmanager
async def cluster_store(url: str) -> AsyncIterator[NatsStore]:
    store = NatsStore(StoreConfig("cluster", "ns/actor/", {"NATS_URL": url}))
    async with asyncio.timeout(60):
        while True:
            try:
                await store.connect()
                break
            except Unavailable:  # no leader yet
                await asyncio.sleep(0.1)
    try:
        yield store
    finally:
        await store.close()


async def test_a_cluster_keeps_its_promises(tmp_path: Path) -> None:
    """Replicas where the servers compare atomically with them; else one, and a stream that has more is refused."""
    with nats_cluster(tmp_path) as url:
        async with cluster_store(url) as one, cluster_store(url) as two:
            atomic = one._jetstream.link.version >= ATOMIC_REPLICAS
            config = (await info(one, "KV_cluster"))["config"]
            assert config["num_replicas"] == (3 if atomic else 1)

            async def increment(store: NatsStore) -> None:
                done = 0
                while done < 25:
                    reading = await store.get(b"counter")
                    value = int(await content(reading)) if reading is not None else 0
                    when = match(reading.stat.version) if reading is not None else ABSENT
                    with contextlib.suppress(Conflict, Exists):
                        await store.put(b"counter", Body(b"%d" % (value + 1)), change(when))
                        done += 1

            await asyncio.gather(*(increment(store) for store in (one, two, one, two)))
            assert await content(await one.get(b"counter")) == b"100"
            assert [entry.key for entry in (await two.list(b"")).entries] == [b"counter"]
            if not atomic:
                await one._jetstream.call("STREAM.UPDATE.KV_cluster", {**config, "num_replicas": 3})
        if not atomic:
            with pytest.raises(BadRequest, match=r"before 2\.10 loses writes"):
                async with cluster_store(url):
                    pass


# Conformance


class Fixtures:
    @pytest.fixture
    def store_factory(self, server: NatsServer) -> StoreFactory:
        return lambda prefix: NatsStore(StoreConfig("conformance", prefix, {"NATS_URL": server.url}))


class TestNatsStore(Fixtures, StoreSuite):
    pass


class TestNatsConsistency(Fixtures, ConsistencySuite):
    pass
