"""One redis-server for all tests of this directory that want one."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    # pytest's own directories are too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="asya-") as directory, RedisServer(Path(directory)) as server:
        yield server
