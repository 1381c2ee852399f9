"""The Redis store: the suite, and what only a real server that dies, fills up or refuses can show."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.redis import RedisStore
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from support.servers import RedisServer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    # pytest's own directories are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        with RedisServer(Path(directory)) as server:
            yield server


class Fixtures:
    @pytest.fixture
    def store_factory(self, redis_server: RedisServer) -> StoreFactory:
        return lambda prefix: RedisStore(StoreConfig("bucket", prefix, {"REDIS_URL": redis_server.unix_url}))


class TestRedisStore(Fixtures, StoreSuite):
    pass


class TestRedisConsistency(Fixtures, ConsistencySuite):
    pass
