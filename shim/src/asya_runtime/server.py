"""The server's thread: listeners, connections, drain.

It runs on a selector loop of its own, so that a handler that keeps the interpreter busy, or brings an
event loop and policy with it, has no part in answering probes and refusals.
"""

import asyncio
import os
import socket
import stat
import threading
from typing import Callable, List, Optional, Set

from asya_contract.env import RuntimeEnv
from asya_runtime import http1
from asya_runtime.admission import Admission
from asya_runtime.logs import log
from asya_runtime.service import Service
from asya_runtime.workers import Workers

MAX_CONNECTIONS = 1024
_CLOSING = 5.0


class CannotListen(Exception):
    """An address that cannot be listened on; the text names it and the variable."""


class Server:
    """Listens from `start` on; turns are run once `open` has named the workers; `drain` ends it."""

    def __init__(self, env: RuntimeEnv) -> None:
        self._env = env
        self._loop = asyncio.SelectorEventLoop()
        self._listeners = _listen(env)
        self.port = 0 if not self._listeners else self._listeners[0].getsockname()[1]
        self._writers: Set[asyncio.StreamWriter] = set()
        self._tasks: Set[asyncio.Task[None]] = set()
        self._admission: Optional[Admission] = None
        self._workers: Optional[Workers] = None
        self._began = threading.Event()
        self._drain: Optional[asyncio.Event] = None
        self._thread = threading.Thread(target=self._run, name="asya-server", daemon=True)

    def start(self) -> None:
        """Serve, with nothing but probes and refusals for now."""
        self._thread.start()
        self._began.wait()
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def open(self, workers: Workers) -> None:
        """From now on requests become turns. From any thread."""
        self._workers = workers
        self._loop.call_soon_threadsafe(self._open)

    def drain(self) -> None:
        """Answer 503 from now on, let what runs end, then stop the workers. From any thread, also twice."""
        try:
            self._loop.call_soon_threadsafe(self._begin_drain)
        except RuntimeError:
            # It has ended.
            return

    def watch(self, signals: socket.socket, arrived: Callable[[bytes], None]) -> None:
        """Call `arrived(numbers)` with the signal numbers that the interpreter writes to `signals`."""
        self._loop.call_soon_threadsafe(
            self._loop.add_reader,
            signals.fileno(),
            lambda: arrived(_read(signals)),
        )

    def join(self) -> None:
        """Wait until it has ended; the drain has a deadline."""
        self._thread.join()

    def _open(self) -> None:
        assert self._admission is not None
        assert self._workers is not None
        self._admission.open(self._workers)

    def _begin_drain(self) -> None:
        assert self._drain is not None
        self._drain.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._began.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._drain = asyncio.Event()
        self._admission = Admission(self._env.concurrency)
        service = Service(self._admission, self._env.turn_timeout, self._env.max_request_size)
        servers = [
            await asyncio.start_server(
                lambda reader, writer: self._connected(service, reader, writer), sock=sock, limit=http1.MAX_HEAD
            )
            if sock.family != socket.AF_UNIX
            else await asyncio.start_unix_server(
                lambda reader, writer: self._connected(service, reader, writer), sock=sock, limit=http1.MAX_HEAD
            )
            for sock in self._listeners
        ]
        self._began.set()
        await self._drain.wait()
        await self._finish(service)
        for server in servers:
            server.close()
        if self._env.socket:
            _remove(self._env.socket)

    async def _finish(self, service: Service) -> None:
        """Drain: readiness and new requests first, then what waits, then what runs."""
        assert self._admission is not None
        self._admission.drain()
        log("info", "draining", turns=self._admission.unfinished)
        try:
            await asyncio.wait_for(self._admission.idle.wait(), self._env.drain_timeout)
        except asyncio.TimeoutError:
            log("error", "turns did not end in time", turns=self._admission.unfinished, seconds=self._env.drain_timeout)
            os._exit(1)
        deadline = self._loop.time() + _CLOSING
        while service.busy and self._loop.time() < deadline:
            await asyncio.wait(self._tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSING)
        if self._workers is not None:
            self._workers.stop()

    def _connected(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            log("warning", "connection refused", connections=len(self._tasks))
            writer.transport.abort()
            return
        task = self._loop.create_task(self._converse(service, reader, writer))
        self._tasks.add(task)
        self._writers.add(writer)

        def ended(done: "asyncio.Task[None]") -> None:
            self._tasks.discard(done)
            self._writers.discard(writer)

        task.add_done_callback(ended)

    async def _converse(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await service.converse(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except Exception as error:
            log("error", "connection failed", type=type(error).__name__, cause=str(error))
            writer.transport.abort()

    def _leave_to_parent(self) -> None:
        """In a forked child: its copies of our sockets must not keep connections alive that we close.

        Replaced and not closed, since the objects that own the descriptors are still there.
        """
        nothing = os.open(os.devnull, os.O_RDWR)
        sockets = [*self._listeners, *(writer.get_extra_info("socket") for writer in list(self._writers))]
        for sock in sockets:
            if sock is not None and sock.fileno() >= 0:
                os.dup2(nothing, sock.fileno(), inheritable=False)
        os.close(nothing)


def _read(signals: socket.socket) -> bytes:
    try:
        return signals.recv(4096)
    except BlockingIOError:
        return b""


def _listen(env: RuntimeEnv) -> List[socket.socket]:
    listeners = [_listen_tcp(env)]
    if env.socket:
        listeners.append(_listen_unix(env.socket))
    return listeners


def _listen_tcp(env: RuntimeEnv) -> socket.socket:
    family = socket.AF_INET6 if ":" in env.http_host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((env.http_host, env.http_port))
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise CannotListen(
            f"cannot listen on {env.http_host}:{env.http_port} (ASYA_HTTP_HOST, ASYA_HTTP_PORT): {error.strerror}"
        ) from None
    return listener


def _listen_unix(path: str) -> socket.socket:
    """A socket file left behind is replaced, one that answers is not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.exists(path):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise CannotListen(f"ASYA_RUNTIME_SOCKET={path!r} is there and is not a socket")
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(path) == 0:
                    raise CannotListen(f"ASYA_RUNTIME_SOCKET={path!r}: another process listens on it")
            os.unlink(path)
        listener.bind(path)
        listener.listen(256)
    except OSError as error:
        listener.close()
        raise CannotListen(f"ASYA_RUNTIME_SOCKET={path!r}: {error.strerror or error}") from None
    except CannotListen:
        listener.close()
        raise
    return listener


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        # Somebody cleaned up before us.
        return
