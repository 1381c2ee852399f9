"""The wire protocol: which request is which call of the service, and what goes back.

Requests come raw (`connection.Request`), answers leave as bytes. File semantics live in `service`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, NoReturn

from asya_contract.tracing import HEADER, checked, trace_id
from asya_contract.wire import (
    H_BACKEND,
    H_BASE_ETAG,
    H_CONSISTENCY,
    H_ERROR,
    H_IS_FILE,
    H_MTIME,
    H_PROTOCOL,
    H_SOURCE_IF_MATCH,
    HEALTHZ,
    KEYS,
    META,
    METRICS,
    PROTOCOL,
    READYZ,
    decode_key,
    encode_key,
    quote_etag,
)
from asya_proxy.bodies import Budget, Incoming
from asya_proxy.connection import Answer, Request, close_stream
from asya_proxy.consistency import Wish
from asya_proxy.errors import (
    BadRequest,
    Busy,
    IsDirectory,
    KeyNotFound,
    RangeInvalid,
    StoreError,
    TooLarge,
    Unavailable,
    UnknownOutcome,
)
from asya_proxy.heads import Head
from asya_proxy.metrics import MountMetrics
from asya_proxy.service import MAX_PAGE, Listing, Service
from asya_proxy.settings import MountSettings
from asya_proxy.stores.base import ABSENT, ANY, NOTHING_KNOWN, Entry, Known, Precondition, Stat, match
from asya_proxy.tracing import Span, passed_on
from asya_proxy.wire import (
    Place,
    Target,
    check_write_id,
    error_body,
    http_date,
    none_match,
    parse_key,
    parse_precondition,
    parse_query,
    parse_range,
    parse_target,
    parse_version,
)

log = logging.getLogger("asya_proxy.requests")

_JSON = "Content-Type: application/json\r\n"

# What a handler meets in the ordinary course of things; the rest is worth a line in the log.
_ORDINARY = frozenset(
    {"key_not_found", "exists", "conflict", "is_directory", "not_directory", "not_empty", "range", "unsupported"}
)
_CHANGES = frozenset({"PUT", "PATCH", "DELETE", "POST"})

Health = Callable[[str], Awaitable[Answer]]
Route = Callable[[Request, Target], Awaitable[Answer]]


class Plan(NamedTuple):
    """What becomes of a request: the operation's name, from a closed set, its route, and the route's argument."""

    op: str
    route: Route
    target: Target


class InFlight:
    """Requests at once, over all mounts."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0


class Routes:
    """One mount's handler of requests."""

    def __init__(
        self,
        mount: MountSettings,
        figures: MountMetrics,
        budget: Budget,
        in_flight: InFlight,
        health: Health,
        span: Span = passed_on,
    ) -> None:
        self.service: Service | None = None
        self.not_ready = "the proxy is connecting to its backend"
        self.max_size = mount.max_object_size
        self._mount = mount
        self._figures = figures
        self._budget = budget
        self._in_flight = in_flight
        self._health = health
        self._span = span
        self._tail = (
            f"{H_PROTOCOL}: {PROTOCOL}\r\n{H_CONSISTENCY}: {mount.consistency}\r\n{H_BACKEND}: {mount.backend}\r\n"
        )
        self._routes: dict[Place, dict[str, tuple[str, Route]]] = {
            Place.FILE: {
                "GET": ("read", self._read),
                "HEAD": ("stat", self._stat),
                "PUT": ("write", self._write),
                "PATCH": ("append", self._append),
                "DELETE": ("remove", self._remove),
                "POST": ("rename", self._rename),
            },
            Place.DIRECTORY: {
                "GET": ("read", self._read_directory),
                "HEAD": ("stat", self._stat_directory),
                "PUT": ("mkdir", self._make_directory),
                "DELETE": ("rmdir", self._remove_directory),
                "POST": ("rename", self._rename),
            },
            Place.TOP: {"GET": ("list", self._list), "HEAD": ("stat", self._stat_top)},
            Place.ATTRIBUTES: {
                "GET": ("attributes", self._read_attributes),
                "PUT": ("attributes", self._set_attribute),
                "DELETE": ("attributes", self._remove_attribute),
            },
            Place.ELSEWHERE: {"GET": ("health", self._elsewhere), "HEAD": ("health", self._elsewhere)},
        }
        self._place = f"{mount.actor or mount.name} on {mount.backend}"

    async def __call__(self, request: Request) -> Answer:
        began = time.monotonic()
        figures = self._figures
        in_flight = self._in_flight
        in_flight.count += 1
        figures.in_flight += 1
        op, outcome = "other", "ok"
        try:
            if in_flight.count > in_flight.limit:
                raise Busy(f"more than {in_flight.limit} requests at once (STATE_MAX_IN_FLIGHT)")
            plan = request.head.plan
            op, handler, target = plan if type(plan) is Plan else self._plan(request.head)
            answer = await handler(request, target)
        except StoreError as error:
            outcome = error.code
            answer = self._failed(request, op, error, began)
        except Exception as error:
            outcome = "internal"
            answer = self._broken(request, op, error, began)
        finally:
            in_flight.count -= 1
            figures.in_flight -= 1
        figures.observe(op, outcome, time.monotonic() - began)
        return answer

    def refuse(self, error: StoreError) -> Answer:
        """The answer to what could not even be parsed."""
        self._figures.observe("parse", error.code, 0.0)
        self._tell(None, "parse", 0.0, error)
        return self._error(error, self._place)

    # Routing.

    def _plan(self, head: Head) -> Plan:
        """What a head asks for, remembered in it. Raises BadRequest, NameTooLong."""
        target = parse_target(head.target)
        routes = self._routes[target.place]
        route = routes.get(head.method)
        if route is None:
            raise BadRequest(f"method {head.method} means nothing here; known are {', '.join(routes)}")
        if head.headers.get(H_PROTOCOL, PROTOCOL) != PROTOCOL:
            raise BadRequest(
                f"the client speaks protocol {head.headers[H_PROTOCOL]}, this proxy {PROTOCOL}: "
                "let runtime and proxy images come from the same release"
            )
        op, handler = route
        parent = checked(head.headers.get(HEADER))
        if parent is not None:
            handler = self._traced(op, handler, parent)
        plan = head.plan = Plan(op, handler, target)
        return plan

    def _traced(self, op: str, route: Route, parent: str) -> Route:
        """`route` as a part of the trace that `parent` names."""
        mount = self._mount
        attributes = {"asya.actor": mount.actor, "asya.mount": mount.name, "asya.backend": mount.backend}

        async def traced(request: Request, target: Target) -> Answer:
            with self._span(f"state {op}", parent, attributes):
                return await route(request, target)

        return traced

    @property
    def _files(self) -> Service:
        if self.service is None:
            raise Unavailable(self.not_ready, ambiguous=False)
        return self.service

    async def _elsewhere(self, _request: Request, target: Target) -> Answer:
        if target.path not in (HEALTHZ, READYZ, METRICS):
            raise BadRequest(f"nothing is at {target.path[:80]!r}; state files are below {KEYS}")
        answer = await self._health(target.path)
        answer.head += self._tail
        return answer

    # Directories.

    async def _stat_top(self, _request: Request, _target: Target) -> Answer:
        await self._files.stat_directory(b"")
        return self._is_directory()

    async def _stat_directory(self, _request: Request, target: Target) -> Answer:
        await self._files.stat_directory(target.key)
        return self._is_directory()

    async def _read_directory(self, _request: Request, target: Target) -> Answer:
        await self._files.stat_directory(target.key)
        raise IsDirectory("the name is a directory")

    async def _make_directory(self, request: Request, target: Target) -> Answer:
        if not request.complete or request.take():
            raise BadRequest("a directory has no content")
        await self._files.make_directory(target.key, self._wish(request))
        return Answer(204, self._tail)

    async def _remove_directory(self, request: Request, target: Target) -> Answer:
        await self._files.remove_directory(target.key, self._wish(request))
        return Answer(204, self._tail)

    # Files.

    async def _read(self, request: Request, target: Target) -> Answer:
        key = target.key
        headers = request.headers
        wanted = headers.get("If-Match")
        version = None if wanted is None or wanted == "*" else parse_version(wanted)
        ranged = headers.get("Range")
        span = None if ranged is None else parse_range(ranged)
        unless = headers.get("If-None-Match")
        if unless is not None:
            stat = await self._files.stat(key)
            if stat is not None and not none_match(unless, stat.version):
                return Answer(304, self._facts(stat), length=-1)
        if span is None:
            reading = await self._files.read(key, version=version)
            stat, status, size = reading.stat, 200, reading.stat.size
            head = self._facts(stat)
        else:
            reading = await self._files.read(key, start=span[0], end=span[1], version=version)
            stat, status = reading.stat, 206
            first = max(0, stat.size + span[0]) if span[0] < 0 else span[0]
            if first >= stat.size:
                raise RangeInvalid(f"the file has {stat.size} bytes")
            beyond = stat.size if span[1] is None else min(span[1], stat.size)
            size = beyond - first
            head = f"Content-Range: bytes {first}-{beyond - 1}/{stat.size}\r\n" + self._facts(stat)
        self._figures.bytes_out += size
        if reading.data is not None:
            return Answer(status, head, reading.data)
        return Answer(status, head, stream=await self._begun(request, reading.stream, size), length=size)

    async def _begun(self, request: Request, stream: AsyncIterator[bytes] | None, size: int) -> _Begun:
        """`stream`, its first piece fetched: what goes wrong there can still be answered."""
        assert stream is not None
        began = time.monotonic()

        def cut(error: StoreError) -> None:
            self._figures.cut_answers += 1
            self._tell(request, "read", time.monotonic() - began, error, "answer cut short")

        return _Begun(await anext(stream, None), stream, size, cut)

    async def _stat(self, _request: Request, target: Target) -> Answer:
        stat = await self._files.stat(target.key)
        if stat is None:
            return self._is_directory()
        return Answer(200, f"{H_IS_FILE}: true\r\n" + self._facts(stat), length=stat.size)

    async def _write(self, request: Request, target: Target) -> Answer:
        wish = self._wish(request)
        incoming = Incoming(request, self._budget, self._figures, self.max_size)
        try:
            body = incoming.whole() if request.complete else await incoming.body()
            stat = await self._files.write(target.key, body, wish)
        finally:
            incoming.done()
        return Answer(204, self._etag(stat))

    async def _append(self, request: Request, target: Target) -> Answer:
        wish = self._wish(request)
        if not wish.when.any:
            raise BadRequest("an append is never conditional")
        with self._incoming(request) as incoming:
            appended = await self._files.append(target.key, await incoming.body(), wish)
        head = self._etag(appended.stat)
        if appended.base is not None:
            head = f"{H_BASE_ETAG}: {quote_etag(appended.base)}\r\n" + head
        return Answer(204, head)

    async def _remove(self, request: Request, target: Target) -> Answer:
        await self._files.remove(target.key, self._wish(request))
        return Answer(204, self._tail)

    async def _rename(self, request: Request, target: Target) -> Answer:
        parameters = parse_query(target.query)
        if set(parameters) != {"rename_to"}:
            raise BadRequest("POST takes exactly one parameter, rename_to")
        new = parse_key(target.query.strip("&").partition("=")[2])
        wanted = request.headers.get(H_SOURCE_IF_MATCH)
        when_source = ANY if wanted is None else match(parse_version(wanted))
        asked = await self._whole(request)
        renamed = await self._files.rename(target.key, new, self._wish(request), when_source, _known(asked))
        if isinstance(renamed, Stat):
            return Answer(204, self._etag(renamed))
        return Answer(200, _JSON + self._tail, _moved(renamed)) if asked else Answer(204, self._tail)

    async def _list(self, _request: Request, target: Target) -> Answer:
        parameters = parse_query(target.query)
        unknown = set(parameters) - {"prefix", "delimiter", "limit", "after", "detail"}
        if unknown:
            raise BadRequest(f"a listing does not know {', '.join(sorted(unknown))}")
        delimiter = parameters.get("delimiter", b"")
        if delimiter not in (b"", b"/"):
            raise BadRequest("the delimiter is / or empty")
        limit = parameters.get("limit", b"%d" % MAX_PAGE)
        if not limit.isdigit() or not int(limit):
            raise BadRequest(f"limit {limit.decode('latin-1')!r}: expected a number from 1 on")
        listing = await self._files.list(
            parameters.get("prefix", b""),
            delimiter=delimiter == b"/",
            after=parameters.get("after", b""),
            limit=int(limit),
        )
        return Answer(200, _JSON + self._tail, _listing(listing, detail=parameters.get("detail", b"0") == b"1"))

    # Attributes.

    async def _read_attributes(self, _request: Request, target: Target) -> Answer:
        name = _attribute_name(target)
        attrs = await self._files.attributes(target.key)
        if not name:
            return Answer(200, _JSON + self._tail, json.dumps({"attrs": sorted(attrs)}).encode())
        if name not in attrs:
            raise KeyNotFound(f"no attribute {name!r}")
        return Answer(200, _JSON + self._tail, json.dumps({"attr": name, "value": attrs[name]}).encode())

    async def _set_attribute(self, request: Request, target: Target) -> Answer:
        wish = self._wish(request)
        name, value = _attribute(await self._whole(request), _attribute_name(target))
        return Answer(204, self._etag(await self._files.change_attribute(target.key, name, value, wish)))

    async def _remove_attribute(self, request: Request, target: Target) -> Answer:
        name = _attribute_name(target)
        if not name:
            raise BadRequest("name the attribute: ?attr=NAME")
        return Answer(204, self._etag(await self._files.change_attribute(target.key, name, None, self._wish(request))))

    # Parts of requests and answers.

    def _incoming(self, request: Request) -> Incoming:
        return Incoming(request, self._budget, self._figures, self.max_size)

    async def _whole(self, request: Request) -> bytes:
        """A body that is no file's content. Raises TooLarge where it does not fit into memory."""
        with self._incoming(request) as incoming:
            body = await incoming.body()
            if body.data is None:
                raise TooLarge("the body of this request is larger than any that means something")
            return body.data

    def _wish(self, request: Request) -> Wish:
        headers = request.headers
        when: Precondition
        if_match, if_none_match = headers.get("If-Match"), headers.get("If-None-Match")
        if if_match is None and if_none_match is None:
            when = ANY
        else:
            when = ABSENT if if_none_match == "*" and if_match is None else parse_precondition(if_match, if_none_match)
        write_id = request.write_id
        return Wish.unnamed(when) if write_id is None else Wish(check_write_id(write_id), when)

    def _etag(self, stat: Stat) -> str:
        return f'ETag: "{stat.version}"\r\n{self._tail}'

    def _facts(self, stat: Stat) -> str:
        return _facts(stat.version, stat.mtime_ns, self._tail)

    def _is_directory(self) -> Answer:
        return Answer(200, f"{H_IS_FILE}: false\r\n{self._tail}")

    # Failures.

    def _failed(self, request: Request, op: str, error: StoreError, began: float) -> Answer:
        key = _key(request)
        self._tell(request, op, time.monotonic() - began, error)
        return self._error(error, f"{self._place}: {key!r}" if key else self._place)

    def _broken(self, request: Request, op: str, error: Exception, began: float) -> Answer:
        key = _key(request)
        self._figures.defects += 1
        context = self._context(request, op, time.monotonic() - began, "internal", repr(error))
        log.error("request broke", exc_info=error, extra=context)
        kind = UnknownOutcome if request.head.method in _CHANGES else Unavailable
        return self._error(kind(f"a defect of the proxy: {type(error).__name__}"), f"{self._place}: {key!r}")

    def _tell(
        self, request: Request | None, op: str, seconds: float, error: StoreError, message: str = "request failed"
    ) -> None:
        """The one line of a failed operation; None is a request that could not be parsed."""
        level = logging.DEBUG if error.code in _ORDINARY else logging.WARNING
        if log.isEnabledFor(level):
            log.log(level, message, extra=self._context(request, op, seconds, error.code, str(error)))

    def _context(self, request: Request | None, op: str, seconds: float, code: str, cause: str) -> dict[str, object]:
        mount = self._mount
        trace = None if request is None else trace_id(checked(request.headers.get(HEADER)))
        return {
            **({} if trace is None else {"trace_id": trace}),
            "actor": mount.actor,
            "mount": mount.name,
            "key": "" if request is None else _key(request),
            "op": op,
            "backend": mount.backend,
            "ms": round(seconds * 1000, 3),
            "error": code,
            "cause": cause,
        }

    def _error(self, error: StoreError, place: str) -> Answer:
        head = f"{H_ERROR}: {error.code}\r\n{_JSON}{self._tail}"
        return Answer(error.wire.status, head, error_body(error, place))


class _Begun:
    """A stream of `size` bytes whose first piece is here. `cut` is told what ends it before."""

    def __init__(
        self, first: bytes | None, stream: AsyncIterator[bytes], size: int, cut: Callable[[StoreError], None]
    ) -> None:
        self._first = first
        self._stream = stream
        self._size = size
        self._sent = 0
        self._cut = cut

    def __aiter__(self) -> _Begun:
        return self

    async def __anext__(self) -> bytes:
        piece, self._first = self._first, None
        if piece is None:
            try:
                piece = await anext(self._stream)
            except StopAsyncIteration:
                if self._sent != self._size:
                    self._broken(Unavailable(f"the store gave {self._sent} bytes of {self._size}"))
                raise
            except StoreError as error:
                self._broken(error)
        self._sent += len(piece)
        return piece

    def _broken(self, error: StoreError) -> NoReturn:
        self._cut(error)
        raise error

    async def aclose(self) -> None:
        await close_stream(self._stream)


@lru_cache(maxsize=1024)
def _facts(version: str, mtime_ns: int, tail: str) -> str:
    """Header lines about a file. What is read again has mostly not changed."""
    modified = http_date(mtime_ns // 1_000_000_000)
    return f'ETag: "{version}"\r\nLast-Modified: {modified}\r\n{H_MTIME}: {mtime_ns}\r\n{tail}'


def _key(request: Request) -> str:
    """The key as it stands in the target, for messages; bounded."""
    path = request.head.target.partition("?")[0]
    for root in (KEYS, META):
        if path.startswith(root):
            return path[len(root) : len(root) + 900]
    return ""


def _listing(listing: Listing, *, detail: bool) -> bytes:
    answer: dict[str, object] = {
        "keys": [_entry(e) if detail else encode_key(e.key) for e in listing.files],
        "prefixes": [encode_key(name) for name in listing.directories],
        "truncated": listing.next is not None,
        "exists": listing.exists,
    }
    if listing.next is not None:
        answer["next"] = encode_key(listing.next)
    return json.dumps(answer).encode()


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "key": encode_key(entry.key),
        "size": entry.size,
        "mtime": entry.mtime_ns / 1e9,
        "mtime_ns": entry.mtime_ns,
        "etag": entry.version,
    }


def _known(data: bytes) -> Known:
    """Names and versions of `{"known": {NAME: VERSION or null}}`. Raises BadRequest."""
    if not data:
        return NOTHING_KNOWN
    try:
        known = {decode_key(name): version for name, version in json.loads(data)["known"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest('what is known of a directory is told by {"known": {NAME: VERSION}}') from None
    if not all(version is None or (isinstance(version, str) and version) for version in known.values()):
        raise BadRequest("a version is text, or null for any")
    return known


def _moved(versions: Mapping[bytes, str]) -> bytes:
    return json.dumps({"moved": {encode_key(name): version for name, version in versions.items()}}).encode()


def _attribute_name(target: Target) -> str:
    """The name in `?attr=`, "" where there is none."""
    parameters = parse_query(target.query)
    if set(parameters) - {"attr"}:
        raise BadRequest("attributes take one parameter, attr")
    return parameters.get("attr", b"").decode("utf-8", "surrogateescape")


def _attribute(data: bytes, name: str) -> tuple[str, str]:
    """Name and value of `{"attr": A, "value": V}`; `attr` may be left to the query. Raises BadRequest."""
    try:
        given = json.loads(data)
        named, value = given.get("attr", name), given["value"]
    except (ValueError, KeyError, AttributeError):
        raise BadRequest('an attribute is set by {"attr": NAME, "value": TEXT}') from None
    if not isinstance(named, str) or not named or not isinstance(value, str) or (name and named != name):
        raise BadRequest("attribute names and values are text, and the name is the query's")
    return named, value
