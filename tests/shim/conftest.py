"""Fixtures: a real state proxy in either mode, the shim active in this process, reports of other interpreters."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.state_proxy import Proxy, Reports, Shim, State

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


@pytest.fixture(scope="module", params=["lww", "cas"])
def proxy(request: pytest.FixtureRequest, proxies: dict[str, Proxy]) -> Proxy:
    return proxies[request.param]


@pytest.fixture(scope="module")
def lww_proxy(proxies: dict[str, Proxy]) -> Proxy:
    return proxies["lww"]


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
def shim(proxies: dict[str, Proxy]) -> Iterator[Shim]:
    shim = Shim(proxies)
    try:
        yield shim
    finally:
        shim.deactivate()


@pytest.fixture(scope="module")
def together() -> bool:
    """Whether both mounts are active at once. Nearly every pod has one, which is found by shorter ways than one of
    several; modules that look at both override this."""
    return False


@pytest.fixture
def state(proxy: Proxy, shim: Shim, together: bool) -> State:
    """A test's own directory below a mount, in both modes."""
    shim.mount(*(("lww", "cas") if together else (proxy.consistency,)))
    return State(proxy, f"t{next(_serial)}")


@pytest.fixture
def cas(proxies: dict[str, Proxy], shim: Shim, together: bool) -> State:
    shim.mount(*(("lww", "cas") if together else ("cas",)))
    return State(proxies["cas"], f"t{next(_serial)}")


@pytest.fixture
def lww(proxies: dict[str, Proxy], shim: Shim, together: bool) -> State:
    shim.mount(*(("lww", "cas") if together else ("lww",)))
    return State(proxies["lww"], f"t{next(_serial)}")


@pytest.fixture(scope="session")
def reports() -> Reports:
    return Reports()
