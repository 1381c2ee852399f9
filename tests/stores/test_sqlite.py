"""The SQLite store: the suite, and what only several processes on one file can show."""

from pathlib import Path

import pytest

from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.sqlite import SqliteStore
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite


class Fixtures:
    @pytest.fixture
    def store_factory(self, tmp_path: Path) -> StoreFactory:
        return lambda prefix: SqliteStore(StoreConfig("bucket", prefix, {"SQLITE_DIR": str(tmp_path)}))


class TestSqliteStore(Fixtures, StoreSuite):
    pass


class TestSqliteConsistency(Fixtures, ConsistencySuite):
    pass
