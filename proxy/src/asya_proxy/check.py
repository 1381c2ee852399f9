"""`asya-state-proxy check [--races]`: the self-test by hand, its verdict, and an exit status."""

from __future__ import annotations

from asya_proxy import selftest
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import StoreError
from asya_proxy.mount import open_store
from asya_proxy.races import run_races
from asya_proxy.settings import MountSettings, Settings


async def check(settings: Settings, *, races: bool) -> int:
    """Test each mount's backend, whatever was recorded. 0 where it does what its consistency needs, else 1."""
    deadlines = Deadlines()
    results = [await _check(mount, deadlines, races=races) for mount in settings.mounts]
    return 0 if all(results) else 1


async def _check(mount: MountSettings, deadlines: Deadlines, *, races: bool) -> bool:
    place = f"{mount.name} ({mount.backend}, {mount.consistency})"
    store = None
    try:
        store = open_store(mount, deadlines)
        await store.connect()
        await store.ping()
        verdict = await selftest.probe(store)
        if races and not verdict.fatal:
            verdict = selftest.Verdict(verdict.broken + (await run_races(store)).broken)
    except StoreError as error:
        print(f"{place}: FAILED: {error}")
        return False
    finally:
        if store is not None:
            await store.close()
    for name in verdict.names:
        print(f"{place}: broken promise: {name}")
    bad = mount.cas and bool(verdict.fatal)
    tested = "promises and races" if races else "promises"
    print(f"{place}: {'REFUSED for cas' if bad else 'ok'}: {tested} tested")
    return not bad
