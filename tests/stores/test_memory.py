"""The store in memory: the suite. It is one process's, so that two clients of a prefix are the same object."""

import pytest

from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.memory import MemoryStore
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite


class Fixtures:
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        stores: dict[str, MemoryStore] = {}

        def store(prefix: str) -> MemoryStore:
            return stores.setdefault(prefix, MemoryStore(StoreConfig("bucket", prefix, {})))

        return store


class TestMemoryStore(Fixtures, StoreSuite):
    pass


class TestMemoryConsistency(Fixtures, ConsistencySuite):
    pass
