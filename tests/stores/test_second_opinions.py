"""The conformance suites of the Redis, NATS and S3 stores on other servers than those of every run.

Newer ones, Valkey, MinIO (all of LWW, and CAS but for deletes, which it does not compare) and Ceph's gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from asya_proxy.check import check
from asya_proxy.errors import Conflict, Exists, Unavailable
from asya_proxy.races import run_races
from asya_proxy.stores.base import ABSENT, Body, Change, StoreConfig, match
from asya_proxy.stores.nats import NatsStore
from asya_proxy.stores.redis import RedisStore
from asya_proxy.stores.s3 import S3Store
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from support.binaries import built
from support.server_ceph import CephServer
from support.server_nats import NatsServer, nats_cluster
from support.server_s3 import MinioServer
from support.servers import RedisServer
from support.serving import loaded
from support.suites import started_by
from support.waivers import waive

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

REDIS_LIKE = ("trixie/redis-server", "experimental/redis-server", "trixie/valkey-server", "sid/valkey-server")
NATS = ("nats-server-2.10", "nats-server-2.11", "nats-server-2.12", "nats-server-2.15")


class SuiteServer(RedisServer):
    """One of another Debian suite: `suite/binary`."""

    def __init__(self, directory: Path, which: str) -> None:
        super().__init__(directory)
        self._which = which

    def command(self) -> Sequence[str]:
        return [*started_by(self._which), *super().command()[1:]]


@pytest.fixture(scope="module", params=REDIS_LIKE, ids=lambda which: which.replace("/", "-"))
def redis_like(request: pytest.FixtureRequest) -> Iterator[SuiteServer]:
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        with SuiteServer(Path(directory), request.param) as server:
            print(request.param, _version(server))
            yield server


def _version(server: RedisServer) -> str:
    lines = server.ask("INFO", "server").decode().splitlines()
    return " ".join(line for line in lines if line.startswith(("redis_version:", "valkey_version:")))


class OnRedisLike:
    @pytest.fixture
    def store_factory(self, request: pytest.FixtureRequest, redis_like: SuiteServer) -> StoreFactory:
        waive(request, redis_like._which)
        return lambda prefix: RedisStore(StoreConfig("bucket", prefix, {"REDIS_URL": redis_like.unix_url}))


class TestRedisLikeStore(OnRedisLike, StoreSuite):
    pass


class TestRedisLikeConsistency(OnRedisLike, ConsistencySuite):
    pass


@pytest.fixture(scope="module", params=NATS)
def nats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer(tmp_path_factory.mktemp("nats"), binary=built(request.param), name=request.param) as server:
        yield server


class OnNats:
    @pytest.fixture
    def store_factory(self, request: pytest.FixtureRequest, nats: NatsServer) -> StoreFactory:
        waive(request, request.node.callspec.params["nats"])
        return lambda prefix: NatsStore(StoreConfig("bucket", prefix, {"NATS_URL": nats.url}))


class TestNatsStore(OnNats, StoreSuite):
    pass


class TestNatsConsistency(OnNats, ConsistencySuite):
    pass


@pytest.fixture(scope="module", params=[MinioServer, CephServer], ids=["minio", "ceph"])
def s3_like(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinioServer | CephServer]:
    with request.param(tmp_path_factory.mktemp("s3")) as server:
        yield server


class OnS3Like:
    @pytest.fixture
    def store_factory(self, request: pytest.FixtureRequest, s3_like: MinioServer | CephServer) -> StoreFactory:
        waive(request, s3_like.name)
        return lambda prefix: S3Store(StoreConfig(s3_like.bucket, prefix, s3_like.environ))


class TestS3LikeStore(OnS3Like, StoreSuite):
    pass


class TestS3LikeConsistency(OnS3Like, ConsistencySuite):
    pass


@pytest.mark.parametrize("s3_like", [CephServer], indirect=True, ids=["ceph"])
async def test_the_races_of_check(s3_like: CephServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(loaded("s3", s3_like.environ, STATE_CONSISTENCY="cas"), races=True) == 0
    said = capsys.readouterr().out
    print(said)
    assert "broken promise" not in said


@pytest.mark.parametrize("binary", NATS)
async def test_a_cluster_of_nats_compares_atomically(binary: str, tmp_path: Path) -> None:
    """Each writer is a client of its own, at a server of its own; three replicas."""
    with nats_cluster(tmp_path, built(binary)) as url:
        async with contextlib.AsyncExitStack() as stack:
            stores = []
            for one in url.split(",") * 2:
                store = NatsStore(StoreConfig("cluster", "ns/actor/", {"NATS_URL": one}))
                stack.push_async_callback(store.close)
                await _once_there_is_a_leader(store)
                stores.append(store)
            config = (await stores[0]._jetstream.call("STREAM.INFO.KV_cluster"))["config"]
            assert config["num_replicas"] == 3
            outcomes: Counter[str] = Counter()
            await asyncio.gather(*(_increment(store, 50, outcomes) for store in stores))
            reading = await stores[0].get(b"counter")
            assert reading is not None
            print(binary, "acknowledged", outcomes["done"], "of them there", reading.data, dict(outcomes))
            assert int(reading.data or b"") == outcomes["done"] == 50 * len(stores)
            assert (await run_races(*stores)).names == ()


async def _once_there_is_a_leader(store: NatsStore) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await store.connect()
            await asyncio.sleep(0.1)


async def _increment(store: NatsStore, count: int, outcomes: Counter[str]) -> None:
    mine = 0
    while mine < count:
        reading = await store.get(b"counter")
        value = int(reading.data or b"") if reading is not None else 0
        when = ABSENT if reading is None else match(reading.stat.version)
        try:
            await store.put(b"counter", Body(b"%d" % (value + 1)), Change(f"{id(store)}-{outcomes.total()}", when))
        except (Conflict, Exists):
            outcomes["lost"] += 1
        else:
            mine += 1
            outcomes["done"] += 1
