"""The Redis store: the suite, and what only a real server that dies, fills up or refuses can show."""

import pytest

from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.redis import RedisStore
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from support.servers import RedisServer


class Fixtures:
    @pytest.fixture
    def store_factory(self, redis_server: RedisServer) -> StoreFactory:
        return lambda prefix: RedisStore(StoreConfig("bucket", prefix, {"REDIS_URL": redis_server.unix_url}))


class TestRedisStore(Fixtures, StoreSuite):
    pass


class TestRedisConsistency(Fixtures, ConsistencySuite):
    pass
