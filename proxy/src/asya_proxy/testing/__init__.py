"""The conformance kit: what every store must do, as pytest classes to derive from.

    from asya_proxy.testing import ConsistencySuite, StoreSuite

    class Fixtures:
        @pytest.fixture
        def store_factory(self, my_server):
            return lambda prefix: MyStore(StoreConfig("bucket", prefix, {"MY_URL": my_server.url}))

    class TestMyStore(Fixtures, StoreSuite): ...
    class TestMyConsistency(Fixtures, ConsistencySuite): ...

`store_factory` is all a store's author supplies: a synchronous callable from a key prefix to a new,
unconnected store. Calling it twice with one prefix gives two clients of the same data, as two proxies
would be; every test works under a fresh prefix, so that one server serves them all. Tests run with
pytest-asyncio; nothing in them depends on timing. The long forms carry the marker `soak`.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "conditions",
            "contents",
            "listings",
            "machine",
            "optional",
            "repeats",
            "fixtures",
            "consistency",
        )
    )
)

from asya_proxy.testing.consistency import ConsistencySuite  # noqa: E402
from asya_proxy.testing.fixtures import Connect, StoreFactory  # noqa: E402
from asya_proxy.testing.lossy import Fault, LossyStore, Scripted  # noqa: E402
from asya_proxy.testing.suite import StoreSuite  # noqa: E402

__all__ = ["Connect", "ConsistencySuite", "Fault", "LossyStore", "Scripted", "StoreFactory", "StoreSuite"]
