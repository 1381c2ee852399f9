"""The GCS store: the conformance kit and what is peculiar to it, against fake-gcs-server behind our front."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import RefreshError
from google.cloud.storage import Client

from asya_proxy.errors import (
    BadRequest,
    Busy,
    Conflict,
    KeyNotFound,
    NameTooLong,
    PermissionDenied,
    Quota,
    RangeInvalid,
    StoreError,
    Timeout,
    TooLarge,
    Unavailable,
)
from asya_proxy.stores import gcs, gcs_calls, gcs_client, gcs_objects, object_keys
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Past, StoreConfig, match
from asya_proxy.stores.gcs import GcsStore
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from asya_proxy.testing.samples import content
from support.ports import free_port
from support.server_gcs import GcsServer
from support.servers import self_signed
from support.uploads import another_writer_comes_in, cancelled, pieces

MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    with GcsServer(tmp_path_factory.mktemp("gcs")) as server:
        yield server


class TestGcsStore(StoreSuite):
    ROUNDS = 8
    EXAMPLES = 6

    @pytest.fixture
    def store_factory(self, running: GcsServer) -> StoreFactory:
        return lambda prefix: GcsStore(StoreConfig(running.bucket, prefix, running.environ))


class TestGcsConsistency(ConsistencySuite):
    @pytest.fixture
    def store_factory(self, running: GcsServer) -> StoreFactory:
        return lambda prefix: GcsStore(StoreConfig(running.bucket, prefix, running.environ))


# One store, and the bucket beside it

Open = Callable[..., Awaitable[GcsStore]]


@pytest.fixture
def server(running: GcsServer) -> Iterator[GcsServer]:
    """Without faults left over."""
    yield running
    left = running.state()["left"]
    running.release()
    assert left == 0, "a fault did not happen"


@pytest.fixture
def prefix() -> str:
    return f"test/{secrets.token_hex(6)}/"


@pytest.fixture
async def connect(prefix: str) -> AsyncIterator[Open]:
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(server: GcsServer, **more: Any) -> GcsStore:
            environ = more.pop("environ", server.environ)
            store = GcsStore(StoreConfig(more.pop("bucket", server.bucket), prefix, environ, **more))
            stack.push_async_callback(store.close)
            await store.connect()
            return store

        yield open_store


@pytest.fixture
async def store(server: GcsServer, connect: Open) -> GcsStore:
    found = await connect(server)
    server.release()  # nothing seen yet
    return found


def raw(server: GcsServer) -> Any:
    client = Client("none", AnonymousCredentials(), client_options={"api_endpoint": server.endpoint})
    return client.bucket(server.bucket)


def change(when: Any = ANY, past: tuple[Past, ...] = (), write_id: str = "", **more: Any) -> Change:
    return Change(write_id or secrets.token_urlsafe(16), when, past, **more)


async def held(server: GcsServer) -> None:
    """Until a request is held."""
    deadline = time.monotonic() + 10
    while not (await asyncio.to_thread(server.state))["waiting"]:
        assert time.monotonic() < deadline, "nothing is held"
        await asyncio.sleep(0.005)


def requests_of(server: GcsServer) -> list[str]:
    """The methods of the requests since the last `release`."""
    seen = server.state()["seen"]
    print(*seen, sep="\n")  # for the report of a test that fails
    return [request.split(" ")[0] for request in seen]


class TestObjects:
    async def test_state_files_are_plain_objects(self, server: GcsServer, store: GcsStore, prefix: str) -> None:
        await store.put("dir/naïve name.json".encode(), Body(b"{}"), change(write_id="w1"))
        blob = raw(server).blob(prefix + "dir/naïve name.json")
        assert blob.download_as_bytes() == b"{}"
        blob.reload()
        assert blob.metadata == {"asyahistory": "w1:"}

    async def test_what_other_tools_wrote_has_no_history(self, server: GcsServer, store: GcsStore, prefix: str) -> None:
        blob = raw(server).blob(prefix + "f")
        blob.metadata = {"own": "1", "asyaattrs": "no JSON", "asyamtime": "yesterday"}
        blob.upload_from_string(b"x")
        stat = await store.head(b"f")
        assert stat is not None
        assert (stat.version, stat.history, stat.attrs) == (str(blob.generation), (), {})
        await store.put(b"f", Body(b"y"), change(match(stat.version)))

    async def test_history_comes_back(self, store: GcsStore) -> None:
        first = await store.put(b"f", Body(b"1"), change(ABSENT, write_id="w1"))
        assert first.history == (Past("w1", None),)
        second = await store.put(b"f", Body(b"2"), change(match(first.version), first.history, "w2"))
        wanted = (Past("w2", first.version), Past("w1", None))
        third = await store.set_attrs(b"f", {"YQ==": "Yg=="}, change(match(second.version), second.history, "w3"))
        head, reading = await store.head(b"f"), await store.get(b"f")
        assert head is not None
        assert reading is not None
        assert second.history == wanted
        assert third.history == head.history == reading.stat.history == (Past("w3", second.version), *wanted)
        assert head.mtime_ns == second.mtime_ns

    async def test_history_of_an_empty_and_of_a_large_object(self, store: GcsStore) -> None:
        for key, data in ((b"empty", b""), (b"marker/", b""), (b"large", bytes(9 * MIB))):
            stat = await store.put(key, Body(data), change(write_id="w1", attrs={"YQ==": "Yg=="}))
            assert await store.head(key) == stat
            assert (stat.size, stat.history, stat.attrs) == (len(data), (Past("w1", None),), {"YQ==": "Yg=="})

    async def test_content_goes_with_its_checksum(self, store: GcsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """The backend refuses content that is not what was summed, so it was told the sum."""
        summed = gcs_objects._checksum
        monkeypatch.setattr(gcs_objects, "_checksum", lambda data: summed(data + b"?"))
        with pytest.raises(Unavailable, match="doesn't match") as failure:
            await store.put(b"f", Body(b"x"), change())
        assert not failure.value.ambiguous
        assert await store.head(b"f") is None

    async def test_too_long_names(self, store: GcsStore) -> None:
        key = b"/".join([b"d" * 100] * 11)
        for work in (store.head(key), store.get(key), store.put(key, Body(b""), change())):
            with pytest.raises(NameTooLong, match="1024"):
                await work

    async def test_too_many_attributes(self, store: GcsStore) -> None:
        stat = await store.put(b"f", Body(b"x"), change())
        with pytest.raises(TooLarge, match="attributes"):
            await store.set_attrs(b"f", {"YQ==": "A" * 8000}, change())
        assert await store.head(b"f") == stat

    async def test_a_head_and_a_get_are_one_request(self, server: GcsServer, store: GcsStore) -> None:
        await store.put(b"f", Body(b"x"), change())
        await store.head(b"f")
        await store.head(b"nothing")
        await store.get(b"f")
        await store.get(b"nothing")
        assert requests_of(server) == ["POST", *["GET"] * 4]


class TestParts:
    async def test_a_stream_of_many_parts(self, server: GcsServer, store: GcsStore) -> None:
        data = secrets.token_bytes(20 * MIB + 17)
        stat = await store.put(b"f", Body(stream=pieces(data)), change(write_id="w1"))
        assert requests_of(server) == ["POST", "PUT", "PUT", "PUT"]
        assert (stat.size, stat.history) == (len(data), (Past("w1", None),))
        assert await content(await store.get(b"f")) == data
        copied = await store.copy(b"f", b"g", change(ABSENT, write_id="w2"), match(stat.version))
        assert (copied.size, copied.history) == (len(data), (Past("w2", None),))
        assert await content(await store.get(b"g")) == data

    async def test_exactly_whole_parts(self, store: GcsStore) -> None:
        data = secrets.token_bytes(16 * MIB)
        await store.put(b"f", Body(stream=pieces(data)), change())
        assert await content(await store.get(b"f")) == data

    async def test_the_condition_holds_at_the_last_part(self, store: GcsStore) -> None:
        await another_writer_comes_in(store)

    async def test_a_cut_body_ends_the_session(self, server: GcsServer, store: GcsStore) -> None:
        with pytest.raises(BadRequest):
            await store.put(b"f", Body(stream=pieces(bytes(9 * MIB), BadRequest("cut"))), change())
        assert await store.head(b"f") is None
        await store.close()
        # Reads may be repeated on a slow machine; changes never are.
        assert sorted(method for method in requests_of(server) if method != "GET") == ["DELETE", "POST", "PUT"]

    async def test_a_cancelled_upload_ends_the_session(self, server: GcsServer, store: GcsStore) -> None:
        await cancelled(store, 9 * MIB)
        await store.close()
        assert "DELETE" in requests_of(server)

    @pytest.mark.parametrize("how", [{"Drop": True}, {"Answer": 503, "Code": "backendError"}])
    async def test_a_part_is_sent_again(self, server: GcsServer, store: GcsStore, how: dict[str, Any]) -> None:
        server.fault("^PUT /upload", **how)
        data = secrets.token_bytes(9 * MIB)
        await store.put(b"f", Body(data), change())
        assert await content(await store.get(b"f")) == data

    @pytest.mark.parametrize(("request_", "passing"), [("^POST /upload", 0), ("^PUT /upload", 1)])
    async def test_an_upload_that_is_not_known_is_no_missing_file(
        self, server: GcsServer, store: GcsStore, request_: str, passing: int
    ) -> None:
        """404 where it begins, and at the last part: bucket or session is gone, and nothing was written."""
        for _ in range(passing):
            server.fault(request_)
        server.fault(request_, Answer=404, Code="notFound")
        with pytest.raises(Unavailable) as caught:
            await store.put(b"f", Body(secrets.token_bytes(9 * MIB)), change())
        assert not caught.value.ambiguous
        assert await store.head(b"f") is None

    async def test_a_lost_last_part_is_not_sent_again(self, server: GcsServer, store: GcsStore, prefix: str) -> None:
        server.fault("^PUT /upload")  # the first passes
        server.fault("^PUT /upload", Lose=True)
        with pytest.raises(Unavailable) as lost:
            await store.put(b"f", Body(bytes(9 * MIB)), change(ABSENT, write_id="w1"))
        assert lost.value.ambiguous
        await store.close()
        assert requests_of(server) == ["POST", "PUT", "PUT"]
        assert raw(server).get_blob(prefix + "f").metadata == {"asyahistory": "w1:"}


class TestConditions:
    async def test_the_source_of_a_copy_changes_meanwhile(self, server: GcsServer, store: GcsStore) -> None:
        old = await store.put(b"f", Body(b"old"), change())
        for when, error in ((match(old.version), Conflict), (ANY, Unavailable)):
            server.fault("^POST .*/rewriteTo/", Hold=True)
            copy = asyncio.create_task(store.copy(b"f", b"g", change(), when))
            await held(server)
            await store.put(b"f", Body(b"new"), change())
            server.release()
            with pytest.raises(error):
                await copy
        assert await store.head(b"g") is None

    async def test_attributes_never_undo_a_write(self, server: GcsServer, store: GcsStore) -> None:
        for when_of in (lambda stat: match(stat.version), lambda stat: ANY):
            stat = await store.put(b"f", Body(b"old"), change())
            server.fault("^POST .*/rewriteTo/", Hold=True)
            work = asyncio.create_task(store.set_attrs(b"f", {"YQ==": "Yg=="}, change(when_of(stat))))
            await held(server)
            await store.put(b"f", Body(b"new"), change())
            server.release()
            with pytest.raises((Conflict, Unavailable)) as refusal:
                await work
            assert not getattr(refusal.value, "ambiguous", False)
            assert await content(await store.get(b"f")) == b"new"

    async def test_generations_out_of_range_are_conflicts(self, store: GcsStore) -> None:
        await store.put(b"f", Body(b"x"), change())
        for version in ("0", "-1", "x", "", "9" * 30, "²"):
            for work in (
                store.put(b"f", Body(b"y"), change(match(version))),
                store.delete(b"f", change(match(version))),
                store.get(b"f", version=version),
            ):
                with pytest.raises(Conflict):
                    await work


Work = Callable[[GcsStore, str], Awaitable[Any]]


class TestLostAnswers:
    """What a change's failure says about its outcome; the library repeats none of them."""

    KINDS: tuple[tuple[str, Work], ...] = (
        ("^POST /upload", lambda store, version: store.put(b"f", Body(b"new"), change(match(version)))),
        ("^DELETE ", lambda store, version: store.delete(b"f", change(match(version)))),
        ("^POST .*/rewriteTo/", lambda store, version: store.set_attrs(b"f", {"YQ==": "Yg=="}, change(match(version)))),
    )

    @pytest.fixture(params=range(len(KINDS)), ids=["put", "delete", "attributes"])
    def kind(self, request: pytest.FixtureRequest) -> tuple[str, Work]:
        return self.KINDS[request.param]

    @pytest.mark.parametrize(
        ("how", "ambiguous", "acted"),
        [
            ({"Drop": True}, True, False),
            ({"Lose": True}, True, True),
            ({"Answer": 500, "Code": "backendError"}, True, False),
            ({"Answer": 503, "Code": "backendError"}, True, False),
        ],
    )
    async def test_unavailable(
        self, server: GcsServer, store: GcsStore, kind: tuple[str, Work], how: Any, ambiguous: bool, acted: bool
    ) -> None:
        on, work = kind
        stat = await store.put(b"f", Body(b"old"), change())
        server.fault(on, **how)
        with pytest.raises(Unavailable) as failure:
            await work(store, stat.version)
        assert failure.value.ambiguous is ambiguous
        now = await store.head(b"f")
        assert (now is None or now.version != stat.version) is acted

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (412, "conditionNotMet", Conflict),
            (403, "forbidden", PermissionDenied),
            (403, "rateLimitExceeded", Busy),
            (429, "rateLimitExceeded", Busy),
            (507, "full", Quota),
        ],
    )
    async def test_refusals(
        self,
        server: GcsServer,
        store: GcsStore,
        kind: tuple[str, Work],
        status: int,
        code: str,
        error: type[StoreError],
    ) -> None:
        on, work = kind
        stat = await store.put(b"f", Body(b"old"), change())
        server.fault(on, Answer=status, Code=code)
        with pytest.raises(error):
            await work(store, stat.version)
        assert await store.head(b"f") == stat

    async def test_the_rate_limit_says_so(self, server: GcsServer, store: GcsStore) -> None:
        server.fault("^POST /upload", Answer=429, Code="rateLimitExceeded")
        with pytest.raises(Busy, match="one write per second per object"):
            await store.put(b"f", Body(b"x"), change())

    async def test_no_answer_in_time(self, server: GcsServer, connect: Open) -> None:
        store = await connect(server, attempt_timeout=0.3)
        server.fault("^POST /upload", Hold=True)
        with pytest.raises(Timeout) as late:
            await store.put(b"f", Body(b"x"), change())
        assert late.value.ambiguous
        server.release()

    async def test_nobody_there(self, tmp_path_factory: pytest.TempPathFactory, connect: Open) -> None:
        server = GcsServer(tmp_path_factory.mktemp("gone"))
        server.start()
        try:
            store = await connect(server, attempt_timeout=2)
            stat = await store.put(b"f", Body(b"old"), change())
        finally:
            await asyncio.to_thread(server.stop)  # the loop goes on, and sees the kept connections end
        for work in (
            lambda: store.put(b"f", Body(b"new"), change(match(stat.version))),
            lambda: store.put(b"f", Body(bytes(9 * MIB)), change()),
            lambda: store.delete(b"f", change()),
            lambda: store.head(b"f"),
            lambda: store.list(b""),
            lambda: store.ping(),
        ):
            with pytest.raises(Unavailable, match="unreachable") as failure:
                await work()
            assert not failure.value.ambiguous

    @pytest.mark.parametrize("when", [ANY, match("77")])
    async def test_a_bucket_that_went_away_is_not_an_absent_file(
        self, tmp_path_factory: pytest.TempPathFactory, connect: Open, when: Any
    ) -> None:
        with GcsServer(tmp_path_factory.mktemp("other")) as server:
            store = await connect(server)
            raw(server).delete()
            for work in (
                store.delete(b"f", change(when)),
                store.put(b"f", Body(b"x"), change()),
                store.head(b"f"),
                store.get(b"f"),
            ):
                with pytest.raises(Unavailable):
                    await work


class TestReading:
    @pytest.mark.parametrize("answer", [(404, "NoSuchBucket"), (404, ""), (403, "AccessDenied"), (503, "")])
    async def test_what_could_not_be_asked_is_not_absent(
        self, server: GcsServer, store: GcsStore, answer: tuple[int, str]
    ) -> None:
        await store.put(b"f", Body(b"x"), change())
        for work in (store.head, store.get):
            server.fault("^GET /asya-state/", Answer=answer[0], Code=answer[1])
            with pytest.raises((Unavailable, PermissionDenied)):
                await work(b"f")

    async def test_absence_hidden_behind_a_refusal(self, server: GcsServer, store: GcsStore) -> None:
        """GCS answers 403 for an absent object to those who may list only below a prefix."""
        await store.put(b"f", Body(b"x"), change())
        for work in (store.head, store.get):
            server.fault("^GET /asya-state/", Answer=403, Code="AccessDenied")
            assert await work(b"nothing") is None
            server.fault("^GET /asya-state/", Answer=403, Code="AccessDenied")
            with pytest.raises(PermissionDenied):
                await work(b"f")
            server.fault("^GET /asya-state/", Answer=403, Code="AccessDenied")
            server.fault("^GET /storage/v1/b/asya-state/o", Answer=403, Code="forbidden")
            with pytest.raises(PermissionDenied, match=r"gcs (head|get)"):
                await work(b"nothing")

    @pytest.mark.parametrize("size", [1000, 3 * MIB])
    async def test_an_answer_that_breaks_off(self, server: GcsServer, store: GcsStore, size: int) -> None:
        await store.put(b"f", Body(bytes(size)), change())
        server.fault("^GET /asya-state/", Cut=size - 10)
        with pytest.raises(Unavailable):
            await content(await store.get(b"f"))

    async def test_a_reader_that_gives_up_frees_the_connection(self, store: GcsStore) -> None:
        await store.put(b"f", Body(bytes(9 * MIB)), change())
        for _ in range(60):  # more than there are connections
            reading = await store.get(b"f")
            assert reading is not None
            assert reading.stream is not None
            await anext(reading.stream)
            await reading.stream.aclose()  # type: ignore[attr-defined]
        assert len(await content(await store.get(b"f"))) == 9 * MIB

    async def test_what_others_stored_compressed_comes_as_it_is(
        self, server: GcsServer, store: GcsStore, prefix: str
    ) -> None:
        blob = raw(server).blob(prefix + "f")
        blob.content_encoding = "gzip"
        packed = bytes.fromhex("1f8b08000000000000034bcb2f020068c54d6603000000")
        blob.upload_from_string(packed)
        reading = await store.get(b"f")
        assert reading is not None
        assert (await content(reading), reading.stat.size) == (packed, len(packed))

    @pytest.mark.parametrize("size", [100, 3 * MIB])
    async def test_what_was_transcoded_on_its_way_is_not_the_file(
        self, server: GcsServer, store: GcsStore, prefix: str, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        blob = raw(server).blob(prefix + "f")
        blob.content_encoding = "gzip"
        blob.upload_from_string(gzip.compress(bytes(size)))
        leave_out(monkeypatch, "Accept-Encoding")
        with pytest.raises(Unavailable, match="transcoded"):
            await content(await store.get(b"f"))

    async def test_a_server_that_ignores_ranges(self, store: GcsStore, monkeypatch: pytest.MonkeyPatch) -> None:
        leave_out(monkeypatch, "Range")
        stat = await store.put(b"f", Body(b"0123456789"), change())
        assert await store.head(b"f") == stat
        for span, wanted in (((2, 5), b"234"), ((-3, None), b"789"), ((8, 20), b"89"), ((4, None), b"456789")):
            assert await content(await store.get(b"f", start=span[0], end=span[1])) == wanted
        with pytest.raises(RangeInvalid):
            await store.get(b"f", start=10)


def leave_out(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    """Send no request with it."""
    send = HttpLink.send

    async def without(link: HttpLink, method: str, url: str, headers: Mapping[str, str], data: bytes = b"") -> Answer:
        return await send(link, method, url, {k: v for k, v in headers.items() if k != header}, data)

    monkeypatch.setattr(HttpLink, "send", without)


@pytest.mark.parametrize("name", [b"&" * 900, b"f"])
def test_an_absent_object_is_absent_whatever_its_name(name: bytes) -> None:
    named = escape(object_keys.object_name("p/", name))
    error = (
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>NoSuchKey</Code><Message>The specified key does not exist."
        f"</Message><Details>No such object: asya-state/{named}</Details></Error>"
    )
    assert gcs_client.refusal(404, error.encode()).code == "NoSuchKey"


def test_certificates_may_lie_in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    self_signed(tmp_path)
    for bundle in (tmp_path, tmp_path / "cert.pem"):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert gcs_client.route("https://storage.googleapis.com").tls is not None


class Identity(Credentials):
    """Gives a token wherever it is asked for one, but on the event loop."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fetched = 0

    def refresh(self, request: object) -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        self.fetched += 1
        self.token = f"token{self.fetched}"
        self.expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)


class TestConnecting:
    """Each failure has its own message, and the message says what to do."""

    async def test_no_bucket(self, server: GcsServer, connect: Open) -> None:
        with pytest.raises(KeyNotFound, match="does not exist: create it"):
            await connect(server, bucket="another")

    async def test_no_permission(self, server: GcsServer, connect: Open) -> None:
        server.fault("^GET /storage/v1/b/asya-state/o", Answer=403, Code="forbidden")
        with pytest.raises(PermissionDenied, match=r"storage\.objects\.get.*roles/storage\.objectUser"):
            await connect(server)

    async def test_wrong_token(self, server: GcsServer, connect: Open) -> None:
        server.fault("^GET /storage/v1/b/asya-state/o", Answer=401, Code="authError")
        with pytest.raises(PermissionDenied, match="credentials are missing or wrong"):
            await connect(server)

    async def test_unreachable(self, server: GcsServer, connect: Open) -> None:
        with pytest.raises(Unavailable, match=r"unreachable.*check STORAGE_EMULATOR_HOST") as failure:
            await connect(server, environ={"STORAGE_EMULATOR_HOST": f"127.0.0.1:{free_port()}"}, attempt_timeout=1)
        assert not failure.value.ambiguous

    async def test_a_forward_proxy_that_is_none_keeps_its_password(
        self, server: GcsServer, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://u:s3cret@127.0.0.1:99999")
        for name in ("NO_PROXY", "no_proxy", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises((Unavailable, BadRequest), match="99999") as failure:
            await connect(server, environ={**server.environ, "STORAGE_EMULATOR_HOST": "http://storage.invalid"})
        assert "s3cret" not in str(failure.value)

    @pytest.mark.parametrize("given", ["/nowhere/key.json", '{"type": "service_account"}', "{broken"])
    async def test_credentials_that_are_none(self, server: GcsServer, connect: Open, given: str) -> None:
        with pytest.raises((PermissionDenied, BadRequest), match="GOOGLE_APPLICATION_CREDENTIALS"):
            await connect(server, environ={"GOOGLE_APPLICATION_CREDENTIALS": given})

    async def test_a_token_is_fetched_off_the_loop(
        self, server: GcsServer, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Before a request where there is none that is good, and after an answer that says it is none."""
        identity = Identity()
        monkeypatch.setattr(gcs_client, "credentials", lambda environ: identity)
        store = await connect(server)
        for work in (store.put(b"f", Body(b"x"), change()), store.head(b"f"), store.delete(b"f", change())):
            identity.expiry = datetime(2020, 1, 1)  # naive, as the library has it
            before = identity.fetched
            await work
            assert identity.fetched == before + 1
        server.fault("^POST /upload", Answer=401, Code="authError")
        stat = await store.put(b"f", Body(b"x"), change())
        assert identity.fetched == before + 2
        assert await store.head(b"f") == stat

    async def test_requests_that_are_refused_together_fetch_one_token(
        self, server: GcsServer, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Small ones and those of the library, where the token has expired, and where it was revoked."""
        identity = Identity()
        monkeypatch.setattr(gcs_client, "credentials", lambda environ: identity)
        store = await connect(server)

        async def together() -> None:
            writes = (store.put(b"f%d" % number, Body(b"x"), change()) for number in range(20))
            await asyncio.gather(*writes, *(store.list(b"") for _ in range(5)))

        before = identity.fetched
        identity.expiry = datetime(2020, 1, 1)  # naive, as the library has it
        await together()
        assert identity.fetched == before + 1
        for _ in range(25):
            server.fault("", Answer=401, Code="authError", Hold=True)
        refused = asyncio.create_task(together())
        while server.state()["waiting"] < 25:
            await asyncio.sleep(0.005)
        server.release()
        await refused
        assert identity.fetched == before + 2

    async def test_a_token_that_stays_refused_is_asked_for_now_and_then(
        self, server: GcsServer, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        identity = Identity()
        read = Counter[str]()

        def credentials(_environ: object) -> Identity:
            read["credentials"] += 1
            return identity

        monkeypatch.setattr(gcs_client, "credentials", credentials)
        store = await connect(server)
        client = store._calls.link.client
        for _ in range(100):
            server.fault("", Answer=401, Code="authError")
        before, reads = identity.fetched, read["credentials"]
        for _ in range(10):
            with pytest.raises(PermissionDenied, match="wrong or expired"):
                await store.put(b"f", Body(b"x"), change())
            with pytest.raises(PermissionDenied, match="wrong or expired"):
                await store.list(b"")
        assert (identity.fetched, read["credentials"]) == (before + 1, reads + 1)
        monkeypatch.setattr(gcs_calls, "RENEWAL", 0.0)
        with pytest.raises(PermissionDenied):
            await store.list(b"")
        assert (identity.fetched, read["credentials"]) == (before + 2, reads + 2)
        assert store._calls.link.client is client
        server.release()
        assert (await store.list(b"")).entries == []

    async def test_a_key_that_was_deleted_is_not_tried_with_each_request(
        self, server: GcsServer, connect: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        environ = dict(server.environ)
        identity = Identity()
        monkeypatch.setattr(gcs_client, "credentials", lambda environ: identity)
        store = await connect(server, environ=environ)
        tried = Counter[str]()

        def refresh(_self: Identity, _request: object) -> None:
            tried["refresh"] += 1
            raise RefreshError("invalid_grant: Invalid JWT Signature.")  # type: ignore[no-untyped-call]

        with monkeypatch.context() as deleted:
            deleted.setattr(Identity, "refresh", refresh)
            identity.expiry = datetime(2020, 1, 1)  # naive, as the library has it
            for _ in range(5):
                outcomes = await asyncio.gather(
                    store.put(b"f", Body(b"x"), change()), store.list(b""), store.head(b"f"), return_exceptions=True
                )
                for outcome in outcomes:
                    assert isinstance(outcome, PermissionDenied)
                    assert "missing or wrong (invalid_grant" in str(outcome)
        assert tried["refresh"] == 2
        environ["GOOGLE_APPLICATION_CREDENTIALS"] = "another key"
        await store.put(b"f", Body(b"x"), change())

    async def test_refused_credentials_are_read_anew(self, server: GcsServer, connect: Open, tmp_path: Any) -> None:
        environ = dict(server.environ)
        store = await connect(server, environ=environ)
        server.fault("^POST /upload", Answer=401, Code="authError")
        with pytest.raises(PermissionDenied):
            await store.put(b"f", Body(b"x"), change())
        broken = tmp_path / "key.json"
        broken.write_text(json.dumps({"type": "unheard of"}))
        del environ["STORAGE_EMULATOR_HOST"]
        environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(broken)
        for _ in range(2):
            with pytest.raises(BadRequest, match="unheard of"):
                await store.put(b"f", Body(b"x"), change())
        del environ["GOOGLE_APPLICATION_CREDENTIALS"]
        environ.update(server.environ)
        await store.put(b"f", Body(b"x"), change())


async def test_sizes_beyond_the_limit(store: GcsStore) -> None:
    with pytest.raises(TooLarge):
        await store.put(b"f", Body(stream=pieces(b""), size=gcs.MAX_SIZE + 1), change())
