"""`asya-state-proxy check [--races]`: the self-test by hand, its verdict, and an exit status."""

from __future__ import annotations

from contextlib import AsyncExitStack

from asya_proxy import selftest
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import StoreError
from asya_proxy.mount import open_store
from asya_proxy.races import run_races
from asya_proxy.settings import MountSettings, Settings
from asya_proxy.stores.base import Store
from asya_proxy.stores.wrappers import Immediate

CLIENTS = 4
"""Who race: each a client of the backend like another proxy's, with connections and a memory of its own."""


async def check(settings: Settings, *, races: bool) -> int:
    """Test each mount's backend, whatever was recorded. 0 where it does what its consistency needs, else 1."""
    deadlines = Deadlines()
    results = [await _check(mount, deadlines, races=races) for mount in settings.mounts]
    return 0 if all(results) else 1


async def _check(mount: MountSettings, deadlines: Deadlines, *, races: bool) -> bool:
    place = f"{mount.name} ({mount.backend}, {mount.consistency})"
    try:
        async with AsyncExitStack() as stack:
            store = await _client(mount, deadlines, stack)
            await store.ping()
            verdict = await selftest.probe(store)
            if races and not verdict.fatal:
                # What never waits lies in this process, and ends with its client.
                others = 0 if isinstance(store, Immediate) else CLIENTS - 1
                rivals = [await _client(mount, deadlines, stack) for _ in range(others)]
                verdict = selftest.Verdict(verdict.broken + (await run_races(store, *rivals)).broken)
    except StoreError as error:
        print(f"{place}: FAILED: {error}")
        return False
    for name in verdict.names:
        print(f"{place}: broken promise: {name}")
    bad = mount.cas and bool(verdict.fatal)
    tested = "promises and races" if races else "promises"
    print(f"{place}: {'REFUSED for cas' if bad else 'ok'}: {tested} tested")
    return not bad


async def _client(mount: MountSettings, deadlines: Deadlines, stack: AsyncExitStack) -> Store:
    """A connected store that `stack` closes."""
    store = open_store(mount, deadlines)
    stack.push_async_callback(store.close)
    await store.connect()
    return store
