"""MinIO as a second opinion on the S3 store: all of LWW, and CAS but for deletes, which it does not compare."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.s3 import S3Store
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from support.server_s3 import MinioServer
from support.waivers import waive

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as running:
        yield running


class Fixtures:
    @pytest.fixture(autouse=True)
    def waived(self, request: pytest.FixtureRequest) -> None:
        waive(request, MinioServer.name)

    @pytest.fixture
    def store_factory(self, minio: MinioServer) -> StoreFactory:
        return lambda prefix: S3Store(StoreConfig(minio.bucket, prefix, minio.environ))


class TestMinioStore(Fixtures, StoreSuite):
    pass


class TestMinioConsistency(Fixtures, ConsistencySuite):
    pass
