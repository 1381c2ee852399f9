"""What the tests of the command line share."""

import socket

import pytest


@pytest.fixture
def free_port():
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
