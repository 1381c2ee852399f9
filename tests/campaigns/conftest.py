"""The backends that campaigns run on; tests name them by `support.campaign.on`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.campaign import Backend, Nursery
from support.faults import FaultProxy
from support.server_gcs import GcsServer
from support.server_nats import NatsServer
from support.server_s3 import S3Server
from support.servers import RedisServer


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def _server(name: str, directory: Path) -> RedisServer | NatsServer | S3Server | GcsServer:
    match name:
        case "redis":
            # With everysec, Redis holds acknowledged writes back while an fsync is at work.
            return RedisServer(directory, ["appendfsync always"])
        case "nats":
            return NatsServer(directory)
        case "s3":
            return S3Server(directory)
        case "gcs":
            return GcsServer(directory)
    raise ValueError(f"{name!r} is no backend with a server")


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """A backend by name; `redis+faults` has a bad network in front of it, quiet until told otherwise."""
    name, _, faults = request.param.partition("+")
    environ = {"STATE_BACKEND": name, "STATE_BUCKET": "asya-state"}
    if name == "sqlite":
        yield Backend(name, {**environ, "SQLITE_DIR": str(tmp_path / "sqlite")})
        return
    server = _server(name, tmp_path / name)
    with server, FaultProxy(server.port, dialect=name) as front:
        port = front.port if faults else server.port
        if isinstance(server, S3Server | GcsServer):
            theirs = {k: v.replace(f":{server.port}", f":{port}") for k, v in server.environ.items()}
        else:
            theirs = {f"{name.upper()}_URL": f"{name}://127.0.0.1:{port}"}
        yield Backend(name, {**environ, **theirs}, server, front if faults else None)


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """`cas` or `lww`."""
    return str(request.param)
