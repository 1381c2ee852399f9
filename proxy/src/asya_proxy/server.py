"""The process: sockets first, then backends; signals; the orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket

from asya_proxy.bodies import Budget
from asya_proxy.connection import Listener
from asya_proxy.deadlines import Deadlines
from asya_proxy.health import Health, refuse
from asya_proxy.metrics import Metrics
from asya_proxy.mount import CLIENT_TIMEOUT, Mount, Refused
from asya_proxy.routes import InFlight
from asya_proxy.settings import Settings
from asya_proxy.sockets import SocketTaken
from asya_proxy.tracing import Spans

log = logging.getLogger("asya_proxy.server")

TERMINATION_LOG = "/dev/termination-log"
IDLE = 900.0
"""Seconds after which a connection without a request is closed."""
SWEEP = 60.0
LINGER = 1.5
"""Seconds between a refusal and the exit: kubelet asks each second, and its events then say why."""


async def serve(settings: Settings, port: socket.socket | None) -> int:
    """Serve until SIGTERM or SIGINT, health and metrics on `port`, which listens already.

    The exit status: 0 after a drain, 1 where a mount is refused.
    """
    # What is loaded by now stays; the collector need not walk it again while a request waits.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await Server(settings, port).run(stop)


class Server:
    """All mounts of a process, and its port for health and metrics."""

    def __init__(self, settings: Settings, port: socket.socket | None = None) -> None:
        self._settings = settings
        self._socket = port
        self._deadlines = Deadlines()
        self._metrics = Metrics()
        self._health = Health(self._metrics)
        self._spans = Spans(os.environ)
        self._mounts: list[Mount] = []
        self._port: asyncio.Server | None = None
        self._port_listener = Listener(self._health.serve, refuse, self._deadlines, CLIENT_TIMEOUT)
        self.address: tuple[str, int] | None = None
        """Where health and metrics are, once `run` has begun to listen."""

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until `stop` is set; the exit status."""
        try:
            await self._listen()
            return await self._until(stop)
        except (Refused, SocketTaken, OSError) as error:
            say_why(str(error))
            if isinstance(error, Refused) and self._port is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), LINGER)
            return 1
        finally:
            await self._close()

    async def _listen(self) -> None:
        env = self._settings.env
        self._metrics.max_in_flight, self._metrics.max_buffered = env.max_in_flight, env.max_buffered
        budget, in_flight = Budget(env.max_buffered), InFlight(env.max_in_flight)
        for mount in self._settings.mounts:
            self._mounts.append(
                Mount(mount, self._deadlines, self._metrics, self._health, budget, in_flight, self._spans.span)
            )
        if self._socket is not None:
            self._port = await asyncio.get_running_loop().create_server(self._port_listener, sock=self._socket)
            self.address = self._socket.getsockname()[:2]
        for mounted in self._mounts:
            await mounted.listen()
        log.info(
            "listening",
            extra={
                "sockets": [mount.socket for mount in self._settings.mounts],
                "http": None if self.address is None else f"{self.address[0]}:{self.address[1]}",
            },
        )

    async def _until(self, stop: asyncio.Event) -> int:
        starting: set[asyncio.Task[object]] = {asyncio.create_task(mount.bring_up()) for mount in self._mounts}
        stopping: asyncio.Task[object] = asyncio.create_task(stop.wait())
        watching = [
            asyncio.create_task(work) for work in (self._sweep(), *(m.keep_credentials() for m in self._mounts))
        ]
        try:
            waiting = starting | {stopping}
            while not stopping.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in (*starting, stopping, *watching):
                task.cancel()
        await self._drain()
        return 0

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            for listener in (self._port_listener, *(mount.listener for mount in self._mounts)):
                try:
                    listener.close_idle(IDLE)
                except Exception:
                    log.exception("idle connections were not closed")

    async def _drain(self) -> None:
        seconds = self._settings.env.drain_timeout
        self._health.draining = self._metrics.draining = True
        for mount in self._mounts:
            mount.stop_accepting()
        drained = await asyncio.gather(*(mount.drain(seconds) for mount in self._mounts))
        if all(drained):
            log.info("drained")
        else:
            log.warning("requests were cut at the end of STATE_DRAIN_TIMEOUT", extra={"seconds": seconds})

    async def _close(self) -> None:
        for mount in self._mounts:
            await mount.close()
        if self._port is not None:
            self._port.close()
            await self._port_listener.drain(0)
        await asyncio.to_thread(self._spans.close)


def say_why(reason: str) -> None:
    """The reason of a refusal: a log line, and Kubernetes' termination message where there is one."""
    log.error("refused to serve", extra={"cause": reason})
    if os.access(TERMINATION_LOG, os.W_OK):
        try:
            with open(TERMINATION_LOG, "w", encoding="utf-8") as out:
                out.write(reason[:4000])
        except OSError as error:
            log.warning("termination message not written", extra={"cause": str(error)})
