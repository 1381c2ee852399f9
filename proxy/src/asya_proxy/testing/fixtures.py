"""Fixtures of the suites: a fresh prefix per test, and clients that are closed at its end."""

from __future__ import annotations

import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from asya_proxy.errors import Unsupported
from asya_proxy.stores.base import ANY, Body, Store, match
from asya_proxy.testing.samples import change, write

StoreFactory = Callable[[str], Store]
"""From a key prefix to a new, unconnected store."""
Connect = Callable[[], Awaitable[Store]]
"""Another client of the test's prefix, connected; closed when the test ends."""


class StoreFixtures:
    """What the suites' tests ask for. The subclass supplies `store_factory`."""

    LARGE = 3 * (1 << 20) + 4321
    """Bytes of a value that no store keeps in one piece; less where its `max_size` is less."""
    ROUNDS = 20
    """How often each race is run."""
    RACERS = 16
    CLIENTS = 4
    """Clients that the racers of one race are spread over."""

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        raise NotImplementedError(f"{type(self).__name__} must have a fixture `store_factory`: see asya_proxy.testing")

    @pytest.fixture
    def prefix(self) -> str:
        return f"conformance/{secrets.token_hex(6)}/"

    @pytest_asyncio.fixture
    async def connect(self, store_factory: StoreFactory, prefix: str) -> AsyncIterator[Connect]:
        opened: list[Store] = []

        async def another() -> Store:
            store = store_factory(prefix)
            await store.connect()
            opened.append(store)
            return store

        yield another
        for store in opened:
            await store.close()

    @pytest_asyncio.fixture
    async def store(self, connect: Connect) -> Store:
        return await connect()

    def large(self, store: Store) -> int:
        return min(self.LARGE, store.traits.max_size or self.LARGE)


_Test = Callable[..., Coroutine[Any, Any, None]]


async def _refuse(store: Store, trait: str) -> None:
    """Ask for what the store does not claim."""
    stat = await write(store, b"refused/f", b"content")
    match trait:
        case "append":
            await store.append(b"refused/f", Body(b"x"), change())
        case "rename":
            await store.rename(b"refused/f", b"refused/g", change(), ANY)
        case "rename_tree":
            await store.rename_tree(b"refused/", b"moved/", change())
        case "copy":
            await store.copy(b"refused/f", b"refused/g", change(), ANY)
        case "attributes":
            await store.set_attrs(b"refused/f", {"bg==": "dg=="}, change())
        case "conditional_put":
            await store.put(b"refused/f", Body(b"new"), change(match(stat.version)))
        case "conditional_delete":
            await store.delete(b"refused/f", change(match(stat.version)))
        case _:
            raise AssertionError(f"{trait!r} is no trait that can be refused")


def claims(trait: str) -> Callable[[_Test], _Test]:
    """A test, with `store` among its fixtures, of what `Traits.<trait>` promises. A store that does not claim it
    must refuse it with Unsupported and leave all as it was; where nothing can be refused, the test is skipped."""

    def decorate(test: _Test) -> _Test:
        @functools.wraps(test)
        async def checked(self: Any, store: Store, *args: Any, **kwargs: Any) -> None:
            if getattr(store.traits, trait):
                await test(self, store, *args, **kwargs)
            elif trait in ("tree", "idempotent", "unique_versions"):
                pytest.skip(f"{type(store).__name__} does not claim Traits.{trait}")
            else:
                with pytest.raises(Unsupported):
                    await _refuse(store, trait)
                page = await store.list(b"")
                assert [entry.key for entry in page.entries] == [b"refused/f"]

        return checked

    return decorate
