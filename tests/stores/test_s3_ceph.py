"""Ceph's gateway as a second opinion on the S3 store: both modes, and the races of `check`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asya_proxy.check import check
from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.s3 import S3Store
from asya_proxy.testing import ConsistencySuite, StoreFactory, StoreSuite
from support.server_ceph import CephServer
from support.serving import loaded
from support.waivers import waive

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephServer]:
    with CephServer(tmp_path_factory.mktemp("ceph")) as running:
        yield running


class Fixtures:
    @pytest.fixture(autouse=True)
    def waived(self, request: pytest.FixtureRequest) -> None:
        waive(request, CephServer.name)

    @pytest.fixture
    def store_factory(self, ceph: CephServer) -> StoreFactory:
        return lambda prefix: S3Store(StoreConfig(ceph.bucket, prefix, ceph.environ))


class TestCephStore(Fixtures, StoreSuite):
    pass


class TestCephConsistency(Fixtures, ConsistencySuite):
    pass


async def test_its_races(ceph: CephServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(loaded("s3", ceph.environ, STATE_CONSISTENCY="cas"), races=True) == 0
    said = capsys.readouterr().out
    print(said)
    assert "broken promise" not in said
