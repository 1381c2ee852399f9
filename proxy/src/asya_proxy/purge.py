"""`asya-state-proxy purge`: forget an actor. Everything below the prefix of each mount is deleted, our own records too.

Mounts that are read-only (another actor's state) are left alone.
"""

from __future__ import annotations

from asya_proxy.consistency import Consistency, Wish
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import KeyNotFound, StoreError
from asya_proxy.metrics import Metrics
from asya_proxy.mount import open_store
from asya_proxy.settings import MountSettings, Settings

PAGE = 500


async def purge(settings: Settings) -> int:
    """Delete it all. The exit status: 1 where a mount's state is not wholly gone; running it again goes on."""
    metrics, deadlines = Metrics(), Deadlines()
    results = [await _purge(mount, deadlines, metrics) for mount in settings.mounts]
    return 0 if all(results) else 1


async def _purge(mount: MountSettings, deadlines: Deadlines, metrics: Metrics) -> bool:
    place = f"{mount.name} ({mount.backend}, prefix {mount.env.prefix!r})"
    if mount.read_only:
        print(f"{place}: read-only, left alone")
        return True
    if not mount.env.prefix:
        print(f"{place}: FAILED: STATE_PREFIX is empty, and a whole bucket is never purged; name the actor's prefix")
        return False
    store = None
    gone = 0
    try:
        store = open_store(mount, deadlines)
        await store.connect()
        layer = Consistency(
            store, metrics.mount(mount.name), deadlines, cas=False, request_timeout=mount.env.request_timeout
        )
        while True:
            page = await layer.list(b"", limit=PAGE)
            if not page.entries:
                break
            # Deepest last name first: a directory's marker goes after what lies in it.
            for entry in reversed(page.entries):
                try:
                    await layer.delete(entry.key, Wish.unnamed())
                    gone += 1
                except KeyNotFound:
                    continue
    except StoreError as error:
        print(f"{place}: FAILED after {gone} files: {error}; run it again")
        return False
    finally:
        if store is not None:
            await store.close()
    print(f"{place}: {gone} files deleted")
    return True
