"""The backends that campaigns run on; tests name them by `support.campaign.on`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.campaign import Backend, Nursery
from support.faults import FaultProxy
from support.server_nats import NatsServer
from support.servers import RedisServer


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """`sqlite`, `redis`, `nats`; `redis+faults` has a bad network in front of it, quiet until told otherwise."""
    name, _, faults = request.param.partition("+")
    environ = {"STATE_BACKEND": name, "STATE_BUCKET": "campaign"}
    if name == "sqlite":
        yield Backend(name, {**environ, "SQLITE_DIR": str(tmp_path / "sqlite")})
        return
    server = RedisServer(tmp_path / name) if name == "redis" else NatsServer(tmp_path / name)
    with server, FaultProxy(server.port, dialect=name) as front:
        url = f"{name}://127.0.0.1:{front.port if faults else server.port}"
        yield Backend(name, {**environ, f"{name.upper()}_URL": url}, server, front if faults else None)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """`cas` or `lww`."""
    return str(request.param)
