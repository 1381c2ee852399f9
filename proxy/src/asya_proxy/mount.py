"""One mount from nothing to serving: store, promises, consistency, files, routes on a socket."""

from __future__ import annotations

import asyncio
import logging
import random

from asya_proxy import credentials, selftest
from asya_proxy.bodies import Budget
from asya_proxy.connection import Listener
from asya_proxy.consistency import Consistency
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Busy, StoreError, Unavailable
from asya_proxy.health import Health, Readiness
from asya_proxy.metrics import Metrics
from asya_proxy.routes import InFlight, Routes
from asya_proxy.service import Service
from asya_proxy.settings import MountSettings
from asya_proxy.sockets import MountSocket
from asya_proxy.stores.base import Store, Traits
from asya_proxy.stores.registry import make_store
from asya_proxy.stores.wrappers import Immediate, bounded
from asya_proxy.tracing import Span, passed_on

log = logging.getLogger("asya_proxy.mount")

CLIENT_TIMEOUT = 30.0
"""Seconds a client may take over its next byte; the shim's own deadline of a call."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
CREDENTIALS_LOOK = 10.0
"""Seconds between two looks at the files of credentials."""


class Refused(Exception):
    """The mount will not work until somebody changes something; the message says what."""


def open_store(mount: MountSettings, deadlines: Deadlines) -> Store:
    """The mount's store, not yet connected, its waits bounded. Raises BadRequest."""
    store = make_store(mount.backend, mount.store_config())
    if isinstance(store, Immediate):
        return store
    return bounded(store, deadlines, mount.env.attempt_timeout, mount.env.commit_timeout)


async def verify(store: Store, mount: MountSettings) -> Traits:
    """The traits that hold, promises tested. Raises BrokenPromise in CAS, and what the store raises."""
    if mount.read_only or not mount.env.self_test:
        return store.traits
    verdict = await selftest.at_start(store)
    if mount.cas and verdict.fatal:
        raise selftest.BrokenPromise(verdict.fatal)
    if verdict.broken:
        log.warning(
            "the backend keeps less than it promises",
            extra={"mount": mount.name, "backend": mount.backend, "cause": "; ".join(verdict.names)},
        )
    return verdict.lower(store.traits)


class Mount:
    """A socket that listens from the start, and what comes to stand behind it."""

    def __init__(
        self,
        settings: MountSettings,
        deadlines: Deadlines,
        metrics: Metrics,
        health: Health,
        budget: Budget,
        in_flight: InFlight,
        span: Span = passed_on,
    ) -> None:
        self.settings = settings
        self._deadlines = deadlines
        self._figures = metrics.mount(settings.name, settings.backend, settings.consistency)
        self._routes = Routes(settings, self._figures, budget, in_flight, health, span)
        self._readiness = Readiness(settings.name, self._figures, deadlines.now)
        health.mounts.append(self._readiness)
        self._store: Store | None = None
        self._credentials: tuple[tuple[str, int, int], ...] = ()
        self.listener = Listener(self._routes, self._routes.refuse, deadlines, CLIENT_TIMEOUT)
        self._socket = MountSocket(settings.socket)
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self.listener, sock=self._socket.socket)

    async def bring_up(self) -> None:
        """Connect and verify, again and again while the backend cannot be reached. Raises Refused."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._connect()
            except (Unavailable, Busy) as failure:
                reason = f"{self.settings.backend} cannot be reached yet: {failure}"
                if reason != self._readiness.reason:
                    log.warning("backend unreachable", extra=self._context() | {"cause": str(failure)})
                self._readiness.waiting(reason)
                self._routes.not_ready = reason
            except StoreError as error:
                self._readiness.waiting(f"refused: {error}")
                raise Refused(f"mount {self.settings.name}: {error}") from error
            else:
                log.info("mount ready", extra=self._context() | {"consistency": self.settings.consistency})
                return
            await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _connect(self) -> None:
        settings = self.settings
        # Taken before the files are read: what changes in between is seen as a change.
        files = credentials.fingerprint(settings.env.credentials_dir) if settings.env.credentials_dir else ()
        store = open_store(settings, self._deadlines)
        try:
            await store.connect()
            traits = await verify(store, settings)
        except BaseException:
            await _close(store)
            raise
        consistency = Consistency(
            store,
            self._figures,
            self._deadlines,
            cas=settings.cas,
            request_timeout=settings.env.request_timeout,
            weak_delete=settings.env.weak_delete,
        )
        consistency.traits = traits
        limits = [size for size in (settings.max_object_size, traits.max_size) if size]
        self._store, self._credentials = store, files
        self._routes.max_size = min(limits, default=0)
        self._routes.service = Service(consistency, read_only=settings.read_only)
        self._readiness.verified(store)

    async def keep_credentials(self) -> None:
        """Connect anew whenever the mounted credentials change; the old connection serves until then."""
        directory = self.settings.env.credentials_dir
        while directory:
            await asyncio.sleep(CREDENTIALS_LOOK)
            before = self._store
            if before is None or credentials.fingerprint(directory) == self._credentials:
                continue
            try:
                await self._connect()
            except Exception as error:
                # Still not the files that `_connect` succeeded with: the next look tries again, after a defect too.
                level = logging.WARNING if isinstance(error, StoreError) else logging.ERROR
                log.log(level, "new credentials do not work yet", extra=self._context() | {"cause": str(error)})
                continue
            log.info("credentials renewed", extra=self._context())
            await asyncio.sleep(self.settings.env.request_timeout)
            await _close(before)

    def stop_accepting(self) -> None:
        if self._server is not None:
            self._server.close()

    async def drain(self, seconds: float) -> bool:
        return await self.listener.drain(seconds)

    async def close(self) -> None:
        self.stop_accepting()
        self._socket.close()
        if self._store is not None:
            await _close(self._store)

    def _context(self) -> dict[str, object]:
        settings = self.settings
        return {"actor": settings.actor, "mount": settings.name, "backend": settings.backend}


async def _close(store: Store) -> None:
    try:
        await store.close()
    except StoreError as error:
        log.warning("store did not close", extra={"cause": str(error)})
