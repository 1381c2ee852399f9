"""One supervised connection to NATS: requests in, answers or our errors out.

nats-py's own reconnecting is switched off: a client that lost its connection is thrown away with all that
it had buffered, so that no write leaves after its caller gave up, and another one is built until `close`.
Answers that were on their way when the connection broke fail at once, as ambiguous. Knows nothing of keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from asya_proxy.errors import BadRequest, PermissionDenied, StoreError, Timeout, Unavailable
from asya_proxy.stores.nats_credentials import Credentials

log = logging.getLogger(__name__)

RETRY_FIRST = 0.05
RETRY_MOST = 1.0
PING_EVERY = 5
"""Seconds; a connection that answers two of these not is given up."""
LOST = "the connection was lost"

_DENIED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]*)\"", re.IGNORECASE)
_WRONG_CREDENTIALS = ("authorization violation", "authentication", "user credentials", "nkey", "jwt")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect and as whom. `urls` may hold user and password; it is never logged or shown whole."""

    urls: tuple[str, ...]
    inbox: str
    """The subject that answers come below: one per bucket, so that a policy can keep neighbours' apart."""
    creds_file: str | None = None
    login: Mapping[str, str] = field(default_factory=dict)
    """`user` and `password`, or `token`, as nats-py takes them: it would not decode what a URL must encode."""
    name: str = "asya-state-proxy"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], bucket: str) -> Address:
        """From NATS_URL (one or more, by comma) and NATS_CREDS_FILE. Raises BadRequest."""
        urls = tuple(filter(None, (url.strip() for url in environ.get("NATS_URL", "").split(","))))
        if not urls:
            raise BadRequest("NATS_URL is not set: give it as nats://host:4222 (several are joined by commas)")
        for url in urls:
            parts = urlsplit(url if "://" in url else f"nats://{url}")
            if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname:
                raise BadRequest(
                    f"NATS_URL: {_bare(url)!r} is not a NATS address: use nats://, tls://, ws:// or wss:// and a host"
                )
        return cls(urls, f"_INBOX.{bucket}", environ.get("NATS_CREDS_FILE") or None, _login(urls))

    def __str__(self) -> str:
        return ", ".join(map(_bare, self.urls))


def _login(urls: tuple[str, ...]) -> dict[str, str]:
    for url in urls:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        if parts.username is not None and parts.password is not None:
            return {"user": unquote(parts.username), "password": unquote(parts.password)}
        if parts.username is not None:
            return {"token": unquote(parts.username)}
    return {}


def _bare(url: str) -> str:
    """A URL without user and password."""
    return url.rpartition("@")[2].rpartition("/")[2] or url.rpartition("@")[2]


@dataclass(slots=True)
class _Waiter:
    answer: asyncio.Future[Msg]
    subject: str


class _Inbox:
    """Stands where nats-py takes a future for one answer, and is handed each as it is read. A callback would cost
    every answer a queue and a task of nats-py's, and two turns of the loop."""

    def __init__(self, deliver: Callable[[Msg], None]) -> None:
        self.set_result = deliver

    def cancelled(self) -> bool:
        return False


@dataclass(slots=True)
class _Generation:
    """One client of nats-py and everything that dies with it."""

    client: Client
    inbox: str
    waiters: dict[str, _Waiter] = field(default_factory=dict)
    mailboxes: list[asyncio.Queue[Msg | None]] = field(default_factory=list)
    ready: bool = False
    lost: bool = False
    refusal: str = ""
    """Why nothing can arrive here, if so."""


class Link:
    """`start`, then `request` and `collect` from any task, then `close`."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._current: _Generation | None = None
        self._up = asyncio.Event()
        self._closing = False
        self._rebuild: asyncio.Task[None] | None = None
        self._doomed: set[asyncio.Task[None]] = set()
        self._tokens = itertools.count()
        self._last_error = ""
        self._suspect = False
        self._server_info: Mapping[str, Any] = {}
        """What the server said of itself when we connected last."""

    async def start(self) -> None:
        """The first connection. Raises Unavailable, PermissionDenied, BadRequest."""
        self._take(await self._connect())

    async def close(self) -> None:
        self._closing = True
        if self._rebuild is not None:
            self._rebuild.cancel()
            await asyncio.gather(self._rebuild, return_exceptions=True)
        generation, self._current = self._current, None
        if generation is not None:
            generation.lost = True
            self._fail(generation, "the connection was closed")
            await self._discard(generation.client)
        if self._doomed:
            await asyncio.wait(self._doomed, timeout=self._timeout)

    @property
    def max_payload(self) -> int:
        """Bytes of headers and data together that the server takes."""
        return int(self._server_info.get("max_payload", 0))

    @property
    def clustered(self) -> bool:
        return bool(self._server_info.get("cluster"))

    @property
    def may_have_jetstream(self) -> bool:
        """Whether an unanswered request can only mean "not now": this server has JetStream, or has peers that may."""
        return self.clustered or bool(self._server_info.get("jetstream"))

    @property
    def version(self) -> tuple[int, ...]:
        """Of the server at the other end: (major, minor)."""
        return tuple(int(part) for part in re.findall(r"\d+", str(self._server_info.get("version", "")))[:2])

    async def request(
        self,
        subject: str,
        data: bytes | bytearray = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Msg:
        """One message out, one answer in.

        Raises Unavailable (ambiguous once the message may have left), Timeout, PermissionDenied. An answer
        "no responders" is Unavailable and not ambiguous: nobody took the message.
        """
        timeout = self._timeout if timeout is None else timeout
        generation = await self._connected(timeout)
        token = str(next(self._tokens))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        generation.waiters[token] = _Waiter(answer, subject)
        try:
            async with asyncio.timeout(timeout) as deadline:
                await self._publish(generation, subject, data, f"{generation.inbox}.{token}", headers)
                if deadline.expired():
                    raise TimeoutError
                message = await answer
        except TimeoutError:
            self._check_alive(generation)
            raise Timeout(f"NATS at {self._address} did not answer within {timeout:g} s") from None
        finally:
            del generation.waiters[token]
            if not answer.cancel() and not answer.cancelled():
                answer.exception()
        if message.headers and message.headers.get("Status") == "503":
            raise Unavailable(f"nobody answers {subject} on NATS at {self._address}", ambiguous=False)
        return message

    @contextlib.asynccontextmanager
    async def mailbox(self) -> AsyncIterator[tuple[str, asyncio.Queue[Msg | None]]]:
        """A subject and the queue of what arrives there, for requests with many answers; None: the link broke.

        The queue is bounded by what the caller asks for at once.
        """
        generation = await self._connected(self._timeout)
        address = f"{generation.inbox}-{next(self._tokens)}"
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()

        async def arrived(message: Msg) -> None:
            queue.put_nowait(message)

        generation.mailboxes.append(queue)
        try:
            subscription = await generation.client.subscribe(address, cb=arrived)
            try:
                yield address, queue
            finally:
                await subscription.unsubscribe()
        except nats.errors.Error as error:
            raise Unavailable(f"NATS at {self._address}: {error}", ambiguous=False) from error
        finally:
            generation.mailboxes.remove(queue)

    async def send(self, subject: str, data: bytes, reply: str) -> None:
        """One message out, answers to `reply`."""
        await self._publish(await self._connected(self._timeout), subject, data, reply, None)

    async def _publish(
        self,
        generation: _Generation,
        subject: str,
        data: bytes | bytearray,
        reply: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        try:
            given: Any = data  # any buffer will do
            await generation.client.publish(subject, given, reply, dict(headers) if headers is not None else None)
        except nats.errors.ConnectionClosedError as error:
            self._lose(generation, LOST)
            raise Unavailable(f"NATS at {self._address}: {error}", ambiguous=False) from error
        except nats.errors.Error as error:
            raise Unavailable(f"NATS at {self._address}: {error}", ambiguous=False) from error
        except OSError as error:
            self._lose(generation, LOST)
            raise Unavailable(f"NATS at {self._address}: {error}") from error
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError  # nats-py swallows it while it flushes

    async def _connected(self, timeout: float) -> _Generation:
        if self._current is None and not self._closing:
            try:
                async with asyncio.timeout(timeout):
                    await self._up.wait()
            except TimeoutError:
                pass
        if self._current is None:
            raise Unavailable(self._last_error or f"cannot reach NATS at {self._address}", ambiguous=False)
        return self._current

    # Connecting

    async def _connect(self) -> _Generation:
        client = Client()
        generation = _Generation(client, f"{self._address.inbox}.{secrets.token_hex(12)}")
        credentials: dict[str, Any] = dict(self._address.login)
        if self._address.creds_file is not None:
            found = await asyncio.to_thread(Credentials.read, self._address.creds_file)
            credentials = {"user_jwt_cb": found.jwt.encode, "signature_cb": found.sign}

        async def on_error(error: Exception) -> None:
            self._note(generation, error)

        async def on_closed() -> None:
            self._lose(generation, LOST)

        def on_end(task: asyncio.Task[None]) -> None:
            # A client whose closing fails half way says nothing at all: its tasks' end is the only sign.
            _observe(task)
            self._lose(generation, LOST)

        try:
            async with asyncio.timeout(self._timeout):
                await client.connect(
                    list(self._address.urls),
                    error_cb=on_error,
                    closed_cb=on_closed,
                    name=self._address.name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0.05,  # type: ignore[arg-type]
                    connect_timeout=self._timeout,  # type: ignore[arg-type]
                    ping_interval=PING_EVERY,
                    **credentials,
                )
                inbox: Any = _Inbox(partial(self._deliver, generation))
                await client.subscribe(f"{generation.inbox}.*", future=inbox)
                for _ in range(2):  # its first ping may overtake the subscription
                    await client.flush(timeout=self._timeout)  # type: ignore[arg-type]
                if generation.refusal:
                    raise PermissionDenied(generation.refusal)
            generation.ready = True
            for task in (client._reading_task, client._flusher_task, client._ping_interval_task):
                if task is not None:
                    task.add_done_callback(on_end)
        except BaseException as error:
            await self._discard(client)
            if isinstance(error, Exception) and not isinstance(error, StoreError):
                raise self._explain(error) from error
            raise
        return generation

    def _explain(self, error: Exception) -> StoreError:
        """The error of a failed connection, with the next step."""
        text = str(error) or type(error).__name__
        if isinstance(error, nats.errors.NoServersError | TimeoutError) and self._last_error:
            text = self._last_error
        if any(word in text.lower() for word in _WRONG_CREDENTIALS):
            return PermissionDenied(
                f"NATS at {self._address} refuses the credentials ({text.strip()}): "
                "check user and password in NATS_URL, or the file of NATS_CREDS_FILE"
            )
        return Unavailable(
            f"cannot reach NATS at {self._address} ({text.strip()}): is it running, and does NATS_URL name it?",
            ambiguous=False,
        )

    def _take(self, generation: _Generation) -> None:
        if generation.lost:
            self._start_rebuild()
            return
        self._current = generation
        self._server_info = generation.client._server_info
        self._up.set()

    def _lose(self, generation: _Generation, why: str) -> None:
        """Called once per generation, whoever notices first."""
        if generation.lost:
            return
        generation.lost = True
        self._fail(generation, why)
        self._finish(self._discard(generation.client))
        if self._current is generation:
            self._current = None
            self._up.clear()
            if not self._closing:
                log.warning("connection lost", extra=self._context(self._last_error or why))
                self._start_rebuild()

    def _start_rebuild(self) -> None:
        if not self._closing and (self._rebuild is None or self._rebuild.done()):
            self._rebuild = asyncio.get_running_loop().create_task(self._connect_again())

    async def _connect_again(self) -> None:
        delay = RETRY_FIRST
        while not self._closing and self._current is None:
            try:
                generation = await self._connect()
            except Exception as error:
                # Whatever it is: nobody else would ever try again.
                self._last_error = str(error) or repr(error)
                level = logging.WARNING if isinstance(error, StoreError) else logging.ERROR
                log.log(level, "connection failed", extra=self._context(error) | {"seconds": round(delay, 2)})
                await asyncio.sleep(delay)
                delay = min(delay * 2, RETRY_MOST)
                continue
            if generation.lost:
                continue
            log.info("connection restored", extra={"server": str(self._address)})
            self._take(generation)

    async def _discard(self, client: Client) -> None:
        """Close a client that may hang on a dead peer, within the deadline."""
        try:
            async with asyncio.timeout(self._timeout):
                await client.close()
        except (TimeoutError, nats.errors.Error, OSError, AttributeError, AssertionError) as error:
            log.debug("the client did not close", extra=self._context(repr(error)))
        _bury(client)

    def _context(self, cause: object) -> dict[str, object]:
        return {"server": str(self._address), "cause": str(cause)}

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._doomed.add(task)
        task.add_done_callback(self._doomed.discard)

    def _check_alive(self, generation: _Generation) -> None:
        """After a request timed out: if a ping is not answered either, give the connection up."""
        if self._suspect or generation.lost:
            return
        self._suspect = True

        async def check() -> None:
            try:
                await generation.client.flush(timeout=max(self._timeout / 2, 0.1))  # type: ignore[arg-type]
            except Exception as error:
                self._last_error = f"no answer to a ping: {error}"
                self._lose(generation, "the connection does not answer")
            finally:
                self._suspect = False

        self._finish(check())

    # Receiving

    def _deliver(self, generation: _Generation, message: Msg) -> None:
        waiter = generation.waiters.get(message.subject.rpartition(".")[2])
        if waiter is not None and not waiter.answer.done():
            waiter.answer.set_result(message)

    def _note(self, generation: _Generation, error: Exception) -> None:
        """What nats-py reports out of band; a refusal of a subject answers whoever waits for it."""
        self._last_error = str(error).strip() or type(error).__name__
        denied = _DENIED.search(self._last_error)
        if generation.ready and isinstance(
            error, OSError | nats.errors.StaleConnectionError | nats.errors.ProtocolError
        ):
            # Without reconnecting this is the end of the client, and it may fail to say so by `on_closed`.
            self._lose(generation, LOST)
        if denied is None:
            log.debug("the server reports", extra=self._context(self._last_error))
            return
        kind, subject = denied.groups()  # lower-cased by nats-py
        log.warning("the server refuses", extra=self._context(f"{kind} {subject}"))
        if kind.lower() == "subscription":
            generation.refusal = self._refusal(kind, f"{self._address.inbox}.>")
        for waiter in generation.waiters.values():
            if waiter.subject.lower() == subject.lower() and not waiter.answer.done():
                waiter.answer.set_exception(PermissionDenied(self._refusal(kind, waiter.subject)))

    def _refusal(self, kind: str, subject: str) -> str:
        act = "subscribe" if kind.lower() == "subscription" else "publish"
        return f"NATS at {self._address} does not let this user {act} to {subject}: allow it in the user's permissions"

    def _fail(self, generation: _Generation, why: str) -> None:
        for waiter in generation.waiters.values():
            if not waiter.answer.done():
                waiter.answer.set_exception(Unavailable(f"NATS at {self._address}: {why}"))
        for queue in generation.mailboxes:
            queue.put_nowait(None)


def _observe(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.debug("a task of the client failed", extra={"cause": repr(task.exception())})


def _bury(client: Client) -> None:
    """End what nats-py leaves where it fails within its own closing: tasks of subscriptions, and the transport."""
    for subscription in client._subs.values():
        subscription._stop_processing()
    client._subs.clear()
    if client._transport is not None:
        client._transport.close()  # type: ignore[no-untyped-call]
