"""What the tests of the command line share."""

import pytest

from support import ports


@pytest.fixture
def free_port():
    """A loopback port that nothing listens on now."""
    return ports.free_port()
