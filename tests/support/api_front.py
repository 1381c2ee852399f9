"""A front before a real API server, with its certificate: it answers in the server's place, stays silent, cuts
connections, or lets a watch go deaf, as overloaded servers and bad networks do.

Lives in a thread of its own; tests ask the API server itself for what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from support.loops import deafen, hang_up

# What is done to a request: None passes it on, a status answers it, "hang" never does, "cut" ends the connection.
Rule = Callable[[web.Request], "int | str | None"]
_HOP = {"connection", "transfer-encoding", "content-length", "content-encoding", "host", "keep-alive"}


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") == "true"


class Front:
    """`rule` may be changed while it runs, and so may `deaf`: then nothing of a watch reaches the client that
    began while `deaf` was set or goes on after it was."""

    def __init__(self, target: str, ca_file: Path) -> None:
        self.rule: Rule = lambda _: None
        self.deaf = False
        self.retry_after = 0
        self.seen: Counter[str] = Counter()
        self.url = ""
        # A line to say on every open watch before it ends.
        self._last_words: dict[str, Any] | None = None
        self._target = target
        self._ca_file = ca_file
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._hang_up = asyncio.Event()

    def end_watches(self, last_words: dict[str, Any] | None = None) -> None:
        """End every open watch, after one more event, in the server's way."""
        self._last_words = last_words
        self._loop.call_soon_threadsafe(self._end_watches)

    def _end_watches(self) -> None:
        self._hang_up.set()
        self._hang_up = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        what = self.rule(request)
        if what == "cut":
            self.seen["refused"] += 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if what == "hang":
            self.seen["refused"] += 1
            await asyncio.Event().wait()
        if isinstance(what, int):
            self.seen["refused"] += 1
            body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": what, "message": "by the front"}
            headers = {"Retry-After": str(self.retry_after)} if what == 429 else {}
            return web.json_response(body, status=what, headers=headers)
        self.seen["watches" if is_watch(request) else "calls"] += 1
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        data = await request.read()
        url = self._target + str(request.rel_url)
        async with self._session.request(request.method, url, headers=headers, data=data or None) as answer:
            back = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=back)
            await response.prepare(request)
            await (self._stream if is_watch(request) else self._copy)(answer, response)
            await response.write_eof()
            return response

    async def _copy(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        await response.write(await answer.read())

    async def _stream(self, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        """Piece by piece until the server, the client or the test ends it; once deaf, it stays so."""
        deaf, hang_up = self.deaf, asyncio.create_task(self._hang_up.wait())
        piece: asyncio.Task[bytes] | None = None
        try:
            while True:
                piece = asyncio.create_task(answer.content.readany())
                await asyncio.wait([piece, hang_up], return_when=asyncio.FIRST_COMPLETED)
                if hang_up.done():
                    if self._last_words is not None:
                        await response.write(json.dumps(self._last_words).encode() + b"\n")
                    return
                if not (await piece):
                    return
                deaf = deaf or self.deaf
                if not deaf:
                    await response.write(await piece)
        finally:
            rest = [task for task in (hang_up, piece) if task is not None]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    @contextlib.contextmanager
    def serve(self) -> Iterator[Front]:
        """Listen on a free port of loopback, with the API server's own certificate."""
        ready = threading.Event()
        thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve(ready)], daemon=True)
        thread.start()
        assert ready.wait(10), "the front did not start"
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)
            self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._ca_file.with_name("server.crt"), self._ca_file.with_name("server.key"))
        trust = ssl.create_default_context(cafile=str(self._ca_file))
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=trust, limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as self._session:
            await runner.setup()
            listening = socket.create_server(("127.0.0.1", 0))
            await web.SockSite(runner, listening, ssl_context=context).start()
            self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await self._stop.wait()
            await deafen(listening)
            await runner.cleanup()
        await hang_up()
