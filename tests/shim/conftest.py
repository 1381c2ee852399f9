"""Fixtures: a real state proxy in either mode, the shim active in this process, reports of other interpreters."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import asya_shim
from support.state_proxy import Proxy, Reports, State

_serial = itertools.count()


@pytest.fixture(scope="session")
def proxies() -> Iterator[dict[str, Proxy]]:
    """One proxy of each consistency for all tests; each test has names of its own."""
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        found = {consistency: Proxy(Path(directory), consistency) for consistency in ("lww", "cas")}
        try:
            for proxy in found.values():
                proxy.start()
            yield found
        finally:
            for proxy in found.values():
                proxy.stop()


@pytest.fixture(params=["lww", "cas"])
def proxy(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    return proxies[request.param]


@pytest.fixture
def own_proxy() -> Iterator[Proxy]:
    """A proxy that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        proxy = Proxy(Path(directory), "cas", "sqlite")
        proxy.start()
        try:
            yield proxy
        finally:
            proxy.stop()


@pytest.fixture(scope="module")
def active(proxies: dict[str, Proxy]) -> Iterator[None]:
    """The shim, active in this process with a mount of each consistency."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in proxies["lww"].environ().items():
            patch.setenv(name, value)
        patch.setenv("ASYA_STATE_PROXY_MOUNTS", ";".join(str(proxy.mount) for proxy in proxies.values()))
        assert asya_shim.activate_from_environment()
        try:
            yield
        finally:
            asya_shim.deactivate()


@pytest.fixture
def state(proxy: Proxy, active: None) -> State:
    """A test's own directory below a mount, in both modes."""
    return State(proxy, f"t{next(_serial)}")


@pytest.fixture
def cas(proxies: dict[str, Proxy], active: None) -> State:
    return State(proxies["cas"], f"t{next(_serial)}")


@pytest.fixture
def lww(proxies: dict[str, Proxy], active: None) -> State:
    return State(proxies["lww"], f"t{next(_serial)}")


@pytest.fixture(scope="session")
def reports() -> Reports:
    return Reports()
