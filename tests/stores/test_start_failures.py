"""Why a proxy does not start: each cause has its own message with the next step, in `/readyz` and on its way out.

Only an unreachable backend is waited for. Redis has no buckets, and of the four only S3 has regions.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from asya_proxy.settings import Settings
from support.fake_s3 import FakeS3, Fault
from support.server_gcs import GcsServer
from support.server_nats import NatsServer
from support.server_s3 import S3Server
from support.servers import RedisServer, Server
from support.serving import loaded, proxy, refused, serving

Environ = Mapping[str, str]

NATS_USERS = """authorization { users = [
  {user: nocreate, password: p, permissions: {publish: {deny: ["$JS.API.STREAM.CREATE.>"]}}}
  {user: readonly, password: p, permissions: {publish: {deny: ["$KV.>"]}}}
  {user: all, password: p}
] }"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="asya-") as path:
        yield Path(path)


@contextmanager
def s3(directory: Path, case: str) -> Iterator[Environ]:
    if case == "wrong region":  # versitygw takes any
        with FakeS3() as fake:
            for _ in range(3):
                fake.fault(Fault("ListObjectsV2", answer=(400, "AuthorizationHeaderMalformed")))
            yield fake.environ
        return
    with S3Server(directory) as server:
        if case == "no permission":
            yield server.add_user("nobody", "nobodysecret")
        elif case == "wrong credentials":
            yield {**server.environ, "AWS_SECRET_ACCESS_KEY": "other"}
        else:
            yield {**server.environ, "STATE_BUCKET": "another"}


@contextmanager
def gcs(directory: Path, case: str) -> Iterator[Environ]:
    with GcsServer(directory) as server:
        if case == "no permission":
            server.fault("^GET /storage/v1/b/asya-state/o", Answer=403, Code="forbidden")
        elif case == "wrong credentials":
            server.fault("^GET /storage/v1/b/asya-state/o", Answer=401, Code="authError")
        yield {**server.environ, "STATE_BUCKET": "another" if case == "no bucket" else server.bucket}


@contextmanager
def redis(directory: Path, case: str) -> Iterator[Environ]:
    with RedisServer(directory, ["requirepass secret", "user other on >p +@all ~{asya-state:others/*"]) as server:
        user = "other:p" if case == "no permission" else ":wrong"
        yield {"REDIS_URL": f"redis://{user}@127.0.0.1:{server.port}/0"}


@contextmanager
def nats(directory: Path, case: str) -> Iterator[Environ]:
    user = {"no bucket": "nocreate:p", "no permission": "readonly:p"}.get(case, "all:wrong")
    with NatsServer(directory, config=NATS_USERS) as server:
        if case == "no permission":  # the bucket is there
            server.credentials = "all:p@"
            asyncio.run(_serve_once(loaded("nats", {"NATS_URL": server.url}, STATE_SELF_TEST="false")))
        server.credentials = f"{user}@"
        yield {"NATS_URL": server.url}


async def _serve_once(found: Settings) -> None:
    async with serving(found):
        pass


CASES: list[tuple[str, Callable[[Path, str], AbstractContextManager[Environ]], str, str]] = [
    ("s3", s3, "no bucket", "bucket 'another' does not exist: create it, or correct `bucket`"),
    ("s3", s3, "no permission", "refused (AccessDenied): the credentials need s3:GetObject"),
    ("s3", s3, "wrong credentials", "the credentials are wrong or expired (SignatureDoesNotMatch): check AWS_"),
    ("s3", s3, "wrong region", "the region is wrong (AuthorizationHeaderMalformed): set `region` (AWS_REGION)"),
    ("gcs", gcs, "no bucket", "bucket 'another' does not exist: create it"),
    ("gcs", gcs, "no permission", "roles/storage.objectUser"),
    ("gcs", gcs, "wrong credentials", "the credentials are missing or wrong"),
    ("redis", redis, "no permission", "the user's ACL lacks a right"),
    ("redis", redis, "wrong credentials", "check user and password in REDIS_URL"),
    ("nats", nats, "no bucket", "nats kv add asya-state"),
    ("nats", nats, "no permission", "$KV.asya-state"),
    ("nats", nats, "wrong credentials", "refuses the credentials"),
]


@pytest.mark.parametrize(
    ("backend", "given", "case", "says"), CASES, ids=[f"{backend}-{case}" for backend, _, case, _ in CASES]
)
def test_what_waiting_does_not_mend(
    backend: str,
    given: Callable[[Path, str], AbstractContextManager[Environ]],
    case: str,
    says: str,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setattr("asya_proxy.server.TERMINATION_LOG", str(message))

    async def start(environ: Environ) -> str:
        async with refused(loaded(backend, environ)) as reason:
            return reason

    with given(directory, case) as environ:
        reason = asyncio.run(start(environ))
    assert says in reason
    assert reason.removeprefix("refused: ") in message.read_text()


def _s3(directory: Path) -> tuple[Server, Environ]:
    server = S3Server(directory)
    return server, server.environ


def _gcs(directory: Path) -> tuple[Server, Environ]:
    server = GcsServer(directory)
    return server, server.environ


def _redis(directory: Path) -> tuple[Server, Environ]:
    server = RedisServer(directory)
    return server, {"REDIS_URL": server.url}


def _nats(directory: Path) -> tuple[Server, Environ]:
    server = NatsServer(directory)
    return server, {"NATS_URL": server.url}


@pytest.mark.parametrize(
    ("backend", "make", "says"),
    [
        ("s3", _s3, "check `endpoint` and the network policy"),
        ("gcs", _gcs, "check STORAGE_EMULATOR_HOST"),
        ("redis", _redis, "REDIS_URL"),
        ("nats", _nats, "NATS_URL"),
    ],
)
async def test_an_unreachable_backend_is_waited_for(
    backend: str, make: Callable[[Path], tuple[Server, Environ]], says: str, directory: Path
) -> None:
    server, environ = make(directory)
    async with proxy(loaded(backend, environ, STATE_ATTEMPT_TIMEOUT="1s")) as (task, health):
        reply = await health.ask("GET", "/readyz")
        assert reply.status == 503
        reason = reply.json["not_ready"]["state"]
        assert "cannot be reached yet" in reason
        assert says in reason
        await asyncio.to_thread(server.start)
        try:
            async with asyncio.timeout(30):
                while (await health.ask("GET", "/readyz")).status != 200:
                    await asyncio.sleep(0.02)
            assert not task.done()
        finally:
            await asyncio.to_thread(server.stop)


async def test_a_region_that_is_not_the_buckets(directory: Path) -> None:
    """versitygw, as MinIO, serves what it is asked in another region's name."""
    with S3Server(directory) as server:
        async with serving(loaded("s3", {**server.environ, "AWS_REGION": "eu-north-1"})) as client:
            assert (await client.put("f", b"x", if_none_match="*")).status == 204
