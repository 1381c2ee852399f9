"""Loopback ports for servers of tests, which nothing else of the machine takes in between.

None of those that the kernel gives to connections: a server that is started again finds its own in use by one.
"""

import itertools
import socket
from random import SystemRandom

LOWEST, HIGHEST = 10_000, 29_999
"""Below what Linux gives to connections, and below the node ports of Kubernetes."""

_next = itertools.count(SystemRandom().randrange(HIGHEST - LOWEST))


def free_port(count: int = 1) -> int:
    """The first of `count` neighbouring ports that nobody listens on, and that this process was not given before."""
    for _ in range(1000):
        ports = [LOWEST + next(_next) % (HIGHEST - LOWEST + 1) for _ in range(count)]
        if ports[-1] - ports[0] == count - 1 and all(map(_is_free, ports)):
            return ports[0]
    raise AssertionError(f"no {count} neighbouring free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
