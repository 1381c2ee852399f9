"""The S3 store: the conformance kit and what is peculiar to it, against versitygw and against the strict fake."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiohttp import web

from asya_proxy import races, selftest
from asya_proxy.errors import (
    BadRequest,
    Busy,
    Conflict,
    Exists,
    IsDirectory,
    KeyNotFound,
    NameTooLong,
    NotDirectory,
    PermissionDenied,
    Quota,
    RangeInvalid,
    StoreError,
    Timeout,
    TooLarge,
    Unavailable,
    Unsupported,
)
from asya_proxy.stores import history, s3, s3_multipart
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Past, StoreConfig, match
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.stores.s3 import S3Store
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from asya_proxy.testing.conditions import ConditionCases
from asya_proxy.testing.optional import CopyCases
from asya_proxy.testing.samples import content
from support.fake_s3 import ACCESS_KEY, FakeS3, Fault
from support.ports import free_port
from support.server_s3 import S3Server
from support.servers import self_signed
from support.uploads import another_writer_comes_in, cancelled, pieces
from support.waivers import waive

MIB = 1 << 20
Server = S3Server | FakeS3


@pytest.fixture(scope="module")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("versitygw")) as running:
        yield running


@pytest.fixture(scope="module")
def lasting_fake() -> Iterator[FakeS3]:
    with FakeS3(min_part=0) as running:
        yield running


class TestS3Store(StoreSuite):
    ROUNDS = 8
    EXAMPLES = 6

    @pytest.fixture(autouse=True)
    def waived(self, request: pytest.FixtureRequest) -> None:
        waive(request, S3Server.name)

    @pytest.fixture
    def store_factory(self, versitygw: S3Server) -> StoreFactory:
        return lambda prefix: S3Store(StoreConfig(versitygw.bucket, prefix, versitygw.environ))


class TestS3Consistency(ConsistencySuite):
    @pytest.fixture
    def store_factory(self, versitygw: S3Server) -> StoreFactory:
        return lambda prefix: S3Store(StoreConfig(versitygw.bucket, prefix, versitygw.environ))


class TestS3StoreInParts(ConditionCases, CopyCases):
    """On the strict fake, with parts so small that all large content goes up in several."""

    ROUNDS = 8

    @pytest.fixture
    def store_factory(self, lasting_fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> StoreFactory:
        monkeypatch.setattr(s3, "PART", MIB)
        monkeypatch.setattr(s3_multipart, "PART", MIB)
        return lambda prefix: S3Store(StoreConfig(lasting_fake.bucket, prefix, lasting_fake.environ))


# One store, and the bucket beside it


@dataclass
class Place:
    """A server, a prefix of its own, and the bucket as other tools see it."""

    server: Server
    prefix: str

    def raw(self) -> Any:
        environ = self.server.environ
        return boto3.client(
            "s3",
            endpoint_url=environ["AWS_ENDPOINT_URL"],
            aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
            region_name=environ["AWS_REGION"],
        )


Open = Callable[..., Awaitable[S3Store]]


@pytest.fixture(params=["versitygw", "fake"])
def place(request: pytest.FixtureRequest, versitygw: S3Server) -> Iterator[Place]:
    prefix = f"test/{secrets.token_hex(6)}/"
    if request.param == "versitygw":
        yield Place(versitygw, prefix)
    else:
        with FakeS3() as fake:
            yield Place(fake, prefix)


@pytest.fixture
def fake() -> Iterator[FakeS3]:
    with FakeS3() as running:
        yield running


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(server: Server, prefix: str = "p/", **more: Any) -> S3Store:
            environ = more.pop("environ", server.environ)
            store = S3Store(StoreConfig(more.pop("bucket", server.bucket), prefix, environ, **more))
            stack.push_async_callback(store.close)
            await store.connect()
            return store

        yield open_store


def change(when: Any = ANY, past: tuple[Past, ...] = (), write_id: str = "") -> Change:
    return Change(write_id or secrets.token_urlsafe(16), when, past)


def ignore_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    send = HttpLink.send

    async def whole(link: HttpLink, method: str, url: str, headers: Mapping[str, str], data: bytes = b"") -> Answer:
        return await send(link, method, url, {k: v for k, v in headers.items() if k != "Range"}, data)

    monkeypatch.setattr(HttpLink, "send", whole)


class TestObjects:
    async def test_state_files_are_plain_objects(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        await store.put("dir/naïve name.json".encode(), Body(b"{}"), change(write_id="w1"))
        answer = place.raw().get_object(Bucket=place.server.bucket, Key=place.prefix + "dir/naïve name.json")
        assert answer["Body"].read() == b"{}"
        assert answer["Metadata"] == {"asyahistory": "w1:"}

    async def test_what_other_tools_wrote_has_no_history(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        place.raw().put_object(Bucket=place.server.bucket, Key=place.prefix + "f", Body=b"x", Metadata={"own": "1"})
        stat = await store.head(b"f")
        assert stat is not None
        assert stat.history == ()
        await store.put(b"f", Body(b"y"), change(match(stat.version)))

    async def test_names_of_other_making_are_not_listed(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        place.raw().put_object(Bucket=place.server.bucket, Key=place.prefix + "a!41", Body=b"x")
        await store.put(b"a!41", Body(b"y"), change())
        assert [entry.key for entry in (await store.list(b"")).entries] == [b"a!41"]

    async def test_history_comes_back(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        first = await store.put(b"f", Body(b"1"), change(ABSENT, write_id="w1"))
        assert first.history == (Past("w1", None),)
        second = await store.put(b"f", Body(b"2"), change(match(first.version), first.history, "w2"))
        wanted = (Past("w2", first.version), Past("w1", None))
        assert second.history == wanted
        head, reading = await store.head(b"f"), await store.get(b"f")
        assert head is not None
        assert reading is not None
        assert head.history == reading.stat.history == wanted

    async def test_history_of_an_empty_and_of_a_large_object(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        for key, data in ((b"empty", b""), (b"marker/", b""), (b"large", bytes(9 * MIB))):
            await store.put(key, Body(data), change(write_id="w1"))
            stat = await store.head(key)
            assert stat is not None
            assert (stat.size, stat.history) == (len(data), (Past("w1", None),))

    async def test_a_long_history_forgets_its_oldest(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        past = tuple(Past(secrets.token_urlsafe(16), secrets.token_hex(16)) for _ in range(100))
        await store.put(b"f", Body(b""), change(past=past, write_id="new"))
        stat = await store.head(b"f")
        assert stat is not None
        assert stat.history == (Past("new", None), *past[: len(stat.history) - 1])
        assert len(stat.history) >= 17

    async def test_too_long_names(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        key = b"/".join([b"d" * 100] * 11)
        for work in (store.head(key), store.get(key), store.put(key, Body(b""), change())):
            with pytest.raises(NameTooLong, match="1024"):
                await work

    async def test_a_backend_that_is_a_file_system(self, versitygw: S3Server, connect: Open) -> None:
        store = await connect(versitygw, f"test/{secrets.token_hex(6)}/")
        await store.put(b"d/f", Body(b""), change())
        with pytest.raises(NotDirectory):
            await store.put(b"d/f/g", Body(b""), change())
        with pytest.raises(IsDirectory):
            await store.put(b"d", Body(b""), change())
        for work in (store.put(b"n" * 256, Body(b""), change()), store.get(b"n" * 256), store.head(b"n" * 256)):
            with pytest.raises(NameTooLong):
                await work
        assert await store.get(b"d/f/g") is None
        assert await store.head(b"d") is None


class TestParts:
    async def test_a_stream_of_many_parts(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        data = secrets.token_bytes(20 * MIB + 17)
        stat = await store.put(b"f", Body(stream=pieces(data)), change(write_id="w1"))
        assert (stat.size, stat.history) == (len(data), (Past("w1", None),))
        assert stat.version.endswith("-3")
        assert await content(await store.get(b"f")) == data
        assert (
            await content(await store.get(b"f", start=8 * MIB - 5, end=8 * MIB + 5, version=stat.version))
            == (data[8 * MIB - 5 : 8 * MIB + 5])
        )
        copied = await store.copy(b"f", b"g", change(ABSENT, write_id="w2"), match(stat.version))
        assert (copied.size, copied.history) == (len(data), (Past("w2", None),))
        assert await content(await store.get(b"g")) == data

    async def test_the_condition_holds_at_completion(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        await another_writer_comes_in(store)
        await self._nothing_left(place, store)

    async def test_a_cut_body_is_aborted(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        with pytest.raises(BadRequest):
            await store.put(b"f", Body(stream=pieces(bytes(20 * MIB), BadRequest("cut"))), change())
        assert await store.head(b"f") is None
        await self._nothing_left(place, store)

    async def test_a_cancelled_upload_is_aborted(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        await cancelled(store, 20 * MIB)
        await self._nothing_left(place, store)

    async def _nothing_left(self, place: Place, store: S3Store) -> None:
        await store.close()  # which waits for aborts
        answer = (
            place.raw().list_multipart_uploads(Bucket=place.server.bucket)
            if isinstance(place.server, S3Server)
            else {"Uploads": list(place.server.uploads)}
        )
        assert not answer.get("Uploads")

    async def test_a_failing_part_fails_the_upload(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        fault = fake.fault(Fault("UploadPart", answer=(403, "AccessDenied")))
        with pytest.raises(PermissionDenied):
            await store.put(b"f", Body(stream=pieces(bytes(20 * MIB))), change())
        await store.close()
        assert fault not in fake.faults
        assert (fake.objects, fake.uploads) == ({}, {})

    async def test_a_part_is_sent_again(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        fake.fault(Fault("UploadPart", drop=True))
        fake.fault(Fault("UploadPart", answer=(503, "SlowDown")))
        await store.put(b"f", Body(bytes(9 * MIB)), change())
        assert fake.requests.count("UploadPart") == 4

    async def test_a_lost_completion_keeps_the_parts(self, fake: FakeS3, connect: Open) -> None:
        """Neither repeated nor aborted: it may have happened, and here it has."""
        store = await connect(fake)
        fake.fault(Fault("CompleteMultipartUpload", lose=True))
        with pytest.raises(Unavailable) as lost:
            await store.put(b"f", Body(bytes(9 * MIB)), change(ABSENT, write_id="w1"))
        assert lost.value.ambiguous
        await store.close()
        assert fake.requests.count("CompleteMultipartUpload") == 1
        assert "AbortMultipartUpload" not in fake.requests
        assert fake.objects["p/f"].metadata == {"asyahistory": "w1:"}

    async def test_an_error_inside_a_completion_that_began_well(self, fake: FakeS3, connect: Open) -> None:
        """S3 may answer 200 and then an error (API reference, CompleteMultipartUpload)."""
        store = await connect(fake)
        fake.fault(Fault("CompleteMultipartUpload", answer=(200, "InternalError")))
        with pytest.raises(Unavailable) as lost:
            await store.put(b"f", Body(bytes(9 * MIB)), change())
        assert lost.value.ambiguous
        fake.fault(Fault("CompleteMultipartUpload", answer=(200, "PreconditionFailed")))
        with pytest.raises(Exists):
            await store.put(b"f", Body(bytes(9 * MIB)), change(ABSENT))

    async def test_the_source_of_a_copy_changes_meanwhile(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        old = await store.put(b"f", Body(bytes(2 * MIB)), change())
        for when, error in ((match(old.version), Conflict), (ANY, Unavailable)):
            fault = fake.fault(Fault("UploadPartCopy", hold=True))
            copy = asyncio.create_task(store.copy(b"f", b"g", change(), when))
            await asyncio.to_thread(fault.reached.wait, 10)
            await store.put(b"f", Body(secrets.token_bytes(2 * MIB)), change())
            fault.release.set()
            with pytest.raises(error):
                await copy
            await store.put(b"f", Body(bytes(2 * MIB)), change())
        assert await store.head(b"g") is None

    async def test_sizes_beyond_ten_thousand_parts(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        with pytest.raises(TooLarge):
            await store.put(b"f", Body(stream=pieces(b""), size=s3.MAX_SIZE + 1), change())


class TestLostAnswers:
    """What a change's failure says about its outcome; the SDK repeats none of them."""

    CHANGES: Mapping[str, tuple[str, Callable[[S3Store, str], Awaitable[Any]]]] = {
        "put": ("PutObject", lambda store, version: store.put(b"f", Body(b"new"), change(match(version)))),
        "delete": ("DeleteObject", lambda store, version: store.delete(b"f", change(match(version)))),
    }

    @pytest.fixture(params=list(CHANGES))
    def kind(self, request: pytest.FixtureRequest) -> tuple[str, Callable[[S3Store, str], Awaitable[Any]]]:
        return self.CHANGES[request.param]

    @pytest.mark.parametrize(
        ("fault", "ambiguous", "acted"),
        [
            (partial(Fault, drop=True), True, False),
            (partial(Fault, lose=True), True, True),
            (partial(Fault, answer=(500, "InternalError")), True, False),
            (partial(Fault, answer=(503, "SlowDown")), True, False),
            (partial(Fault, answer=(409, "ConditionalRequestConflict")), False, False),
            (partial(Fault, answer=(409, "ConcurrentModification")), False, False),
            (partial(Fault, answer=(404, "NoSuchBucket")), False, False),
            (partial(Fault, answer=(404, "")), False, False),
        ],
    )
    async def test_unavailable(
        self, fake: FakeS3, connect: Open, kind: Any, fault: Any, ambiguous: bool, acted: bool
    ) -> None:
        operation, work = kind
        store = await connect(fake)
        stat = await store.put(b"f", Body(b"old"), change())
        fake.fault(fault(operation))
        fake.requests.clear()
        with pytest.raises(Unavailable) as failure:
            await work(store, stat.version)
        assert failure.value.ambiguous is ambiguous
        assert fake.requests.count(operation) == 1
        left = fake.objects.get("p/f")
        assert (left is None or left.data == b"new") is acted

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (412, "PreconditionFailed", Conflict),
            (403, "AccessDenied", PermissionDenied),
            (403, "QuotaExceeded", Quota),
            (507, "XMinioStorageFull", Quota),
            (501, "NotImplemented", Unsupported),
            (429, "TooManyRequests", Busy),
        ],
    )
    async def test_refusals(
        self, fake: FakeS3, connect: Open, kind: Any, status: int, code: str, error: type[StoreError]
    ) -> None:
        operation, work = kind
        store = await connect(fake)
        stat = await store.put(b"f", Body(b"old"), change())
        fake.fault(Fault(operation, answer=(status, code)))
        with pytest.raises(error):
            await work(store, stat.version)
        assert fake.objects["p/f"].data == b"old"

    async def test_no_answer_in_time(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake, attempt_timeout=0.3)
        fault = fake.fault(Fault("PutObject", hold=True))
        with pytest.raises(Timeout) as late:
            await store.put(b"f", Body(b"x"), change())
        assert late.value.ambiguous
        fault.release.set()

    async def test_nobody_there(self, versitygw: S3Server, connect: Open) -> None:
        store = await connect(versitygw, f"test/{secrets.token_hex(6)}/", attempt_timeout=2)
        stat = await store.put(b"f", Body(b"old"), change())
        await asyncio.to_thread(versitygw.stop)  # the loop goes on, and sees the kept connections end
        try:
            for work in (store.put(b"f", Body(b"new"), change(match(stat.version))), store.head(b"f"), store.ping()):
                with pytest.raises(Unavailable, match="unreachable") as failure:
                    await work
                assert not failure.value.ambiguous
        finally:
            versitygw.start()
        assert await content(await store.get(b"f")) == b"old"

    async def test_a_delete_loses_against_a_write_that_came_first(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        stat = await store.put(b"f", Body(b"old"), change())
        fault = fake.fault(Fault("DeleteObject", hold=True))
        delete = asyncio.create_task(store.delete(b"f", change(match(stat.version))))
        await asyncio.to_thread(fault.reached.wait, 10)
        await store.put(b"f", Body(b"new"), change(match(stat.version)))
        fault.release.set()
        with pytest.raises(Conflict):
            await delete
        assert fake.objects["p/f"].data == b"new"

    async def test_a_delete_loses_against_a_delete_that_came_first(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        stat = await store.put(b"f", Body(b"old"), change())
        fault = fake.fault(Fault("DeleteObject", hold=True))
        delete = asyncio.create_task(store.delete(b"f", change(match(stat.version))))
        await asyncio.to_thread(fault.reached.wait, 10)
        await store.delete(b"f", change(match(stat.version)))
        fault.release.set()
        with pytest.raises(Conflict):
            await delete


class TestPromises:
    """The self-test must see through this store what a server does not keep."""

    async def test_a_server_that_keeps_all(self, place: Place, connect: Open) -> None:
        store = await connect(place.server, place.prefix)
        for test in (selftest.at_start, selftest.probe, selftest.at_start):
            assert (await test(store)).broken == ()
            assert [entry.key for entry in (await store.list(b"")).entries] == [b".asya/promises"]
        await store.close()
        assert _uploads(place) == []

    async def test_a_first_start_takes_a_look_and_ten_requests(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        fake.requests.clear()
        assert (await selftest.at_start(store)).broken == ()
        look, *probes = fake.requests
        assert look == "GetObject"
        assert probes == [
            "PutObject",
            "CreateMultipartUpload",
            "UploadPart",
            *["CompleteMultipartUpload"] * 3,
            *["PutObject"] * 2,
            "DeleteObject",
            "PutObject",
        ]
        fake.requests.clear()
        assert (await selftest.at_start(store)).broken == ()
        assert fake.requests == ["GetObject"]

    async def test_a_day_later(self, fake: FakeS3, connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        store = await connect(fake)
        await selftest.at_start(store)
        before = fake.objects["p/.asya/promises"].etag
        now = time.time() + selftest.DAY + 5
        monkeypatch.setattr(selftest.time, "time", lambda: now)
        fake.requests.clear()
        assert (await selftest.at_start(store)).broken == ()
        assert len(fake.requests) == 11
        assert fake.objects["p/.asya/promises"].etag != before

    async def test_many_start_at_once(self, place: Place, connect: Open) -> None:
        """They come in each other's way on the one name; whoever does asks again on a name of its own."""
        stores = [await connect(place.server, place.prefix) for _ in range(6)]
        verdicts = await asyncio.gather(*(selftest.at_start(store) for store in stores))
        assert verdicts == [selftest.Verdict()] * 6
        assert (await selftest.at_start(stores[0])).broken == ()
        assert [entry.key for entry in (await stores[0].list(b"")).entries] == [b".asya/promises"]

    @pytest.mark.parametrize(
        ("ignores", "broken"),
        [
            (["PutObject"], ["PutObject ignores If-None-Match"]),
            (["CompleteMultipartUpload"], ["CompleteMultipartUpload ignores If-None-Match"]),
            (["DeleteObject"], ["DeleteObject ignores If-Match"]),
            (
                ["CompleteMultipartUpload", "DeleteObject"],
                ["CompleteMultipartUpload ignores If-None-Match", "DeleteObject ignores If-Match"],
            ),
            *(
                ([f"{operation} {condition}"], [f"{operation} ignores {condition}"])
                for operation in ("PutObject", "CompleteMultipartUpload")
                for condition in ("If-None-Match", "If-Match")
            ),
            (["DeleteObject If-Match"], ["DeleteObject ignores If-Match"]),
        ],
    )
    async def test_a_server_that_ignores_conditions(self, connect: Open, ignores: list[str], broken: list[str]) -> None:
        with FakeS3(ignores=frozenset(ignores)) as server:
            store = await connect(server)
            for _ in range(2):
                assert list((await selftest.at_start(store)).names) == broken
            await store.close()
            assert [name for name in server.objects if "selftest" in name] == []
            assert server.uploads == {}

    @pytest.mark.parametrize(
        ("operation", "broken"),
        [
            ("CompleteMultipartUpload", "CompleteMultipartUpload takes no conditions"),
            ("DeleteObject", "DeleteObject takes no If-Match"),
        ],
    )
    async def test_a_server_that_takes_no_conditions(
        self, fake: FakeS3, connect: Open, operation: str, broken: str
    ) -> None:
        store = await connect(fake)
        for _ in range(2):  # of the quick probes, of the careful ones
            fake.fault(Fault(operation, answer=(501, "NotImplemented")))
        assert (await selftest.at_start(store)).names == (broken,)
        assert fake.uploads == {}

    @pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload", "UploadPart", "DeleteObject"])
    async def test_what_may_not_be_done_is_said(self, fake: FakeS3, connect: Open, operation: str) -> None:
        store = await connect(fake)
        for _ in range(4):
            fake.fault(Fault(operation, answer=(403, "AccessDenied")))
        with pytest.raises(PermissionDenied, match="need s3:"):
            await selftest.at_start(store)
        assert fake.uploads == {}

    async def test_races(self, place: Place, connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("CREATE_ROUNDS", "MATCH_ROUNDS", "COMPLETION_ROUNDS"):
            monkeypatch.setattr(races, name, 5)
        store = await connect(place.server, place.prefix)
        assert (await races.run_races(store)).broken == ()
        assert (await store.list(b"")).entries == []
        await store.close()
        assert _uploads(place) == []


def _uploads(place: Place) -> list[Any]:
    if isinstance(place.server, FakeS3):
        return list(place.server.uploads)
    found = place.raw().list_multipart_uploads(Bucket=place.server.bucket, Prefix=place.prefix)
    return list(found.get("Uploads", ()))


class TestReading:
    @pytest.mark.parametrize("fault", [partial(Fault, drop=True), partial(Fault, answer=(503, "SlowDown"))])
    async def test_reads_are_repeated(self, fake: FakeS3, connect: Open, fault: Any) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(b"x"), change())
        fake.fault(fault("GetObject"))
        assert await content(await store.get(b"f")) == b"x"

    @pytest.mark.parametrize("answer", [(404, "NoSuchBucket"), (404, "XAdminUserNotFound"), (404, ""), (403, "")])
    async def test_what_could_not_be_asked_is_not_absent(
        self, fake: FakeS3, connect: Open, answer: tuple[int, str]
    ) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(b"x"), change())
        for work in (store.head, store.get):
            fake.fault(Fault("GetObject", answer=answer))
            with pytest.raises((Unavailable, PermissionDenied)):
                await work(b"f")

    async def test_absence_hidden_behind_a_refusal(self, fake: FakeS3, connect: Open) -> None:
        """S3 answers 403 for an absent object to those who may list only below a prefix."""
        store = await connect(fake)
        await store.put(b"f", Body(b"x"), change())
        for work in (store.head, store.get):
            fake.fault(Fault("GetObject", answer=(403, "AccessDenied")))
            assert await work(b"nothing") is None
            fake.fault(Fault("GetObject", answer=(403, "AccessDenied")))
            with pytest.raises(PermissionDenied):
                await work(b"f")
            fake.fault(Fault("GetObject", answer=(403, "AccessDenied")))
            fake.fault(Fault("ListObjectsV2", answer=(403, "AccessDenied")))
            with pytest.raises(PermissionDenied, match=r"s3 (head|get)"):
                await work(b"nothing")

    async def test_a_head_is_one_request(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(b"x"), change())
        fake.requests.clear()
        assert await store.head(b"f") is not None
        assert await store.head(b"nothing") is None
        assert fake.requests == ["GetObject"] * 2

    async def test_a_server_that_ignores_ranges(
        self, fake: FakeS3, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ignore_ranges(monkeypatch)
        store = await connect(fake)
        stat = await store.put(b"f", Body(b"0123456789"), change())
        assert await store.head(b"f") == stat
        for span, wanted in (((2, 5), b"234"), ((-3, None), b"789"), ((8, 20), b"89"), ((4, None), b"456789")):
            assert await content(await store.get(b"f", start=span[0], end=span[1])) == wanted
        with pytest.raises(RangeInvalid):
            await store.get(b"f", start=10)
        await store.put(b"g", Body(bytes(2 * MIB)), change())
        with pytest.raises(Unavailable, match="no parts"):
            await store.get(b"g", start=5)

    @pytest.mark.parametrize("size", [1000, 3 * MIB])
    async def test_an_answer_that_breaks_off(self, fake: FakeS3, connect: Open, size: int) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(bytes(size)), change())
        for _ in range(3):  # a small one is asked for again
            fake.fault(Fault("GetObject", cut=size - 10))
        with pytest.raises(Unavailable):
            await content(await store.get(b"f"))

    @pytest.mark.parametrize("size", [1000, 3 * MIB])
    async def test_content_is_compared_with_its_checksum(self, fake: FakeS3, connect: Open, size: int) -> None:
        asked = {
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_supported",
        }
        store = await connect(fake, environ={**fake.environ, **asked})
        await store.put(b"f", Body(bytes(size)), change())
        assert fake.objects["p/f"].checksum
        assert await content(await store.get(b"f")) == bytes(size)
        fake.fault(Fault("GetObject", damage=True))
        with pytest.raises(Unavailable, match="checksum"):
            await content(await store.get(b"f"))

    async def test_custom_endpoints_are_asked_for_no_checksum(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(b"x"), change())
        assert not fake.objects["p/f"].checksum
        assert await content(await store.get(b"f")) == b"x"

    async def test_a_reader_that_gives_up_frees_the_connection(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake)
        await store.put(b"f", Body(bytes(9 * MIB)), change())
        for _ in range(60):  # more than there are connections
            reading = await store.get(b"f")
            assert reading is not None
            assert reading.stream is not None
            await anext(reading.stream)
            await reading.stream.aclose()  # type: ignore[attr-defined]
        assert len(await content(await store.get(b"f"))) == 9 * MIB

    async def test_beyond_the_bound_it_is_busy(self, fake: FakeS3, connect: Open, monkeypatch: Any) -> None:
        monkeypatch.setattr("asya_proxy.stores.s3_calls.PARALLEL", 1)
        monkeypatch.setattr("asya_proxy.stores.s3_calls.WAITING", 1)
        store = await connect(fake)
        fault = fake.fault(Fault("GetObject", hold=True))
        waiting = [asyncio.create_task(store.head(b"f")) for _ in range(2)]
        await asyncio.to_thread(fault.reached.wait, 10)
        with pytest.raises(Busy):
            await store.head(b"f")
        fault.release.set()
        assert await asyncio.gather(*waiting) == [None, None]
        assert await store.head(b"f") is None


class TestConnecting:
    """Each failure has its own message, and the message says what to do."""

    async def test_no_bucket(self, place: Place, connect: Open) -> None:
        with pytest.raises(KeyNotFound, match="does not exist: create it"):
            await connect(place.server, bucket="another")

    async def test_wrong_key(self, place: Place, connect: Open) -> None:
        with pytest.raises(PermissionDenied, match="credentials are wrong"):
            await connect(place.server, environ={**place.server.environ, "AWS_ACCESS_KEY_ID": "other"})

    async def test_wrong_secret(self, versitygw: S3Server, connect: Open) -> None:
        with pytest.raises(PermissionDenied, match="credentials are wrong"):
            await connect(versitygw, environ={**versitygw.environ, "AWS_SECRET_ACCESS_KEY": "other"})

    async def test_no_permission(self, fake: FakeS3, connect: Open) -> None:
        fake.fault(Fault("ListObjectsV2", answer=(403, "AccessDenied")))
        with pytest.raises(PermissionDenied, match="need s3:GetObject"):
            await connect(fake)

    async def test_wrong_region(self, fake: FakeS3, connect: Open) -> None:
        fake.fault(Fault("ListObjectsV2", answer=(400, "AuthorizationHeaderMalformed")))
        with pytest.raises(BadRequest, match=r"region is wrong.*AWS_REGION"):
            await connect(fake)

    async def test_a_region_that_the_answer_corrects(self, fake: FakeS3, connect: Open) -> None:
        store = await connect(fake, environ={**fake.environ, "AWS_REGION": "eu-north-1"})
        await store.put(b"f", Body(b"x"), change())

    async def test_clock(self, fake: FakeS3, connect: Open) -> None:
        fake.fault(Fault("ListObjectsV2", answer=(403, "RequestTimeTooSkewed")))
        with pytest.raises(PermissionDenied, match="clock"):
            await connect(fake)

    async def test_unreachable(self, fake: FakeS3, connect: Open) -> None:
        nowhere = {**fake.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
        with pytest.raises(Unavailable, match=r"unreachable.*check `endpoint`") as failure:
            await connect(fake, environ=nowhere)
        assert not failure.value.ambiguous

    async def test_no_such_host(self, fake: FakeS3, connect: Open) -> None:
        with pytest.raises(Unavailable, match="unreachable"):
            await connect(fake, environ={**fake.environ, "AWS_ENDPOINT_URL": "http://nowhere.invalid"})

    async def test_an_endpoint_in_capitals(self, versitygw: S3Server, connect: Open) -> None:
        shouted = versitygw.environ["AWS_ENDPOINT_URL"].replace("127.0.0.1", "LocalHost")
        environ = {**versitygw.environ, "AWS_ENDPOINT_URL": shouted}
        store = await connect(versitygw, f"test/{secrets.token_hex(6)}/", environ=environ)
        await store.put(b"f", Body(b"x"), change())
        assert await content(await store.get(b"f")) == b"x"

    async def test_a_forward_proxy_that_is_none_keeps_its_password(
        self, fake: FakeS3, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://u:s3cret@127.0.0.1:99999")
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises((Unavailable, BadRequest), match="99999") as failure:
            await connect(fake, environ={**fake.environ, "AWS_ENDPOINT_URL": "http://storage.invalid"})
        assert "s3cret" not in str(failure.value)

    async def test_an_endpoint_that_is_none(self, fake: FakeS3, connect: Open) -> None:
        with pytest.raises(BadRequest, match="not-a-url"):
            await connect(fake, environ={**fake.environ, "AWS_ENDPOINT_URL": "not-a-url"})

    @pytest.mark.parametrize("scheme", ["http://", ""])
    async def test_through_a_forward_proxy(
        self, fake: FakeS3, connect: Open, monkeypatch: pytest.MonkeyPatch, scheme: str
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", scheme + fake.endpoint.removeprefix("http://"))
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        store = await connect(fake, environ={**fake.environ, "AWS_ENDPOINT_URL": "http://s3.invalid"})
        stat = await store.put(b"f", Body(b"x"), change())
        assert await content(await store.get(b"f")) == b"x"
        await store.delete(b"f", change(match(stat.version)))
        assert not fake.objects

    async def test_over_tls(self, connect: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with FakeS3(tls=self_signed(tmp_path)) as fake:
            with pytest.raises(Unavailable, match="TLS failed"):
                await connect(fake)
            monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "cert.pem"))
            store = await connect(fake)
            await store.put(b"f", Body(b"x"), change())
            assert await content(await store.get(b"f")) == b"x"

    async def test_a_cloud_identity_is_renewed_off_the_loop(
        self, fake: FakeS3, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server of the identity lives on the loop: a signature that waited there for new keys would never end."""
        given = 0

        async def give(_: web.BaseRequest) -> web.Response:
            nonlocal given
            given += 1
            soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()  # so soon that every signature renews it
            keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": "s", "Token": "t", "Expiration": soon}
            return web.json_response(keys)

        runner = web.ServerRunner(web.Server(give, access_log=None))
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        port = listening.getsockname()[1]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/")
        environ = {name: value for name, value in fake.environ.items() if "KEY" not in name}
        try:
            store = await connect(fake, environ=environ)
            before = given
            async with asyncio.timeout(10):
                await store.put(b"f", Body(b"x"), change())
                assert await content(await store.get(b"f")) == b"x"
            assert given >= before + 2
        finally:
            await runner.cleanup()

    async def test_keys_are_read_anew(self, versitygw: S3Server, connect: Open) -> None:
        environ = dict(versitygw.environ)
        store = await connect(versitygw, f"test/{secrets.token_hex(6)}/", environ=environ)
        environ["AWS_SECRET_ACCESS_KEY"] = "rotated"
        with pytest.raises(PermissionDenied):
            await store.put(b"f", Body(b"x"), change())
        environ["AWS_SECRET_ACCESS_KEY"] = versitygw.secret_key
        await store.put(b"f", Body(b"x"), change())


def test_history_fits_beside_other_metadata() -> None:
    line = history.encode([Past(secrets.token_urlsafe(16), secrets.token_hex(16)) for _ in range(100)])
    assert len(history.FIELD) + len(line) <= 1024
