"""Which class is which backend. Only the configured one is imported, and so only its SDK."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from asya_proxy.errors import BadRequest
from asya_proxy.stores.base import Store, StoreConfig

GROUP = "asya_proxy.stores"

_OWN = {
    "memory": "MemoryStore",
    "sqlite": "SqliteStore",
    "redis": "RedisStore",
    "s3": "S3Store",
    "gcs": "GcsStore",
    "nats": "NatsStore",
}


def make_store(backend: str, config: StoreConfig) -> Store:
    """The store of `backend`, not yet connected.

    Raises:
        BadRequest: no such backend, or its SDK is not installed.
    """
    try:
        if backend in _OWN:
            module = import_module(f"asya_proxy.stores.{backend}")
            made: Store = getattr(module, _OWN[backend])(config)
            return made
        for point in entry_points(group=GROUP, name=backend):
            found: Store = point.load()(config)
            return found
    except ImportError as error:
        raise BadRequest(
            f"backend {backend!r} cannot be loaded: {error}; install asya-proxy[{backend}] in the proxy's image"
        ) from error
    foreign = {point.name for point in entry_points(group=GROUP)}
    raise BadRequest(f"backend {backend!r} is unknown; known are {', '.join(sorted(foreign | set(_OWN)))}")
