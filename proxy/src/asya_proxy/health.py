"""Alive, ready, figures: what kubelet and Prometheus ask. Never anything about keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from asya_contract.wire import HEALTHZ, METRICS, READYZ
from asya_proxy.connection import Answer, Request
from asya_proxy.errors import StoreError
from asya_proxy.metrics import Metrics, MountMetrics
from asya_proxy.stores.base import Store

FRESH = 2.0
"""Seconds that an answer to a ping is good for."""
PATIENCE = 0.8
"""Seconds a probe waits for a ping."""
FIRST_PATIENCE = 4.0
"""Seconds a probe waits for the first attempt to connect; kubelet waits five."""
FAILURES = 3
"""Pings in a row that fail before a mount that was ready is not."""

_TEXT = "Content-Type: text/plain; charset=utf-8\r\n"


class Readiness:
    """Whether one mount's backend answers and its promises were verified."""

    def __init__(self, name: str, figures: MountMetrics, clock: Callable[[], float]) -> None:
        self.name = name
        self.reason: str | None = "connecting to the backend"
        self._figures = figures
        self._clock = clock
        self._store: Store | None = None
        self._failures = 0
        self._asked = 0.0
        self._ping: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()

    def waiting(self, reason: str) -> None:
        self.reason = reason
        self._tried.set()

    def verified(self, store: Store) -> None:
        """From now on the backend's answers to pings decide."""
        self._store = store
        self._asked = self._clock()
        self._set(None)
        self._tried.set()

    async def check(self) -> str | None:
        """None where ready, else the reason."""
        if not self._tried.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._tried.wait(), FIRST_PATIENCE)
        store = self._store
        if store is None:
            return self.reason
        if self._clock() - self._asked >= FRESH:
            if self._ping is None:
                self._ping = asyncio.create_task(self._look(store))
            await asyncio.wait([self._ping], timeout=PATIENCE)
        return self.reason

    async def _look(self, store: Store) -> None:
        try:
            await store.ping()
        except StoreError as error:
            self._failures += 1
            if self._failures >= FAILURES:
                self._set(f"the backend does not answer: {error}")
        else:
            self._failures = 0
            self._set(None)
        finally:
            self._asked = self._clock()
            self._ping = None

    def _set(self, reason: str | None) -> None:
        self.reason = reason
        self._figures.ready = int(reason is None)


class Health:
    """The three addresses, for the sockets and for the port of their own."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.mounts: list[Readiness] = []
        self.draining = False

    async def __call__(self, path: str) -> Answer:
        if path == METRICS:
            return Answer(200, "Content-Type: text/plain; version=1.0.0; charset=utf-8\r\n", self._metrics.text())
        if path == READYZ:
            return await self._ready()
        return Answer(200, _TEXT, b"ok\n")

    async def _ready(self) -> Answer:
        reasons = await asyncio.gather(*(mount.check() for mount in self.mounts))
        bad = {mount.name: reason for mount, reason in zip(self.mounts, reasons, strict=True) if reason is not None}
        if self.draining:
            bad["proxy"] = "shutting down"
        if not bad:
            return Answer(200, _TEXT, b"ok\n")
        return Answer(503, "Content-Type: application/json\r\n", json.dumps({"not_ready": bad}).encode() + b"\n")

    async def serve(self, request: Request) -> Answer:
        """The handler of the port of its own."""
        path = request.head.target.partition("?")[0]
        if request.head.method not in ("GET", "HEAD") or path not in (HEALTHZ, READYZ, METRICS):
            return Answer(404, _TEXT, b"known are /healthz, /readyz, /metrics\n")
        return await self(path)


def refuse(error: StoreError) -> Answer:
    return Answer(400, _TEXT, f"{error}\n".encode())
