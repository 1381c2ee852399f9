"""The wire protocol: which request is which call of the service, and what goes back.

Requests come raw (`connection.Request`), answers leave as bytes. File semantics live in `service`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable

from asya_contract.wire import (
    H_BASE_ETAG,
    H_CONSISTENCY,
    H_IS_FILE,
    H_PROTOCOL,
    H_SOURCE_IF_MATCH,
    H_WRITE_ID,
    HEALTHZ,
    KEYS,
    META,
    METRICS,
    PROTOCOL,
    READYZ,
    encode_key,
    quote_etag,
)
from asya_proxy.bodies import Budget, Incoming
from asya_proxy.connection import Answer, Request
from asya_proxy.consistency import Wish
from asya_proxy.errors import (
    BadRequest,
    Busy,
    IsDirectory,
    KeyNotFound,
    StoreError,
    Unavailable,
    UnknownOutcome,
)
from asya_proxy.metrics import MountMetrics
from asya_proxy.service import MAX_PAGE, Listing, Service
from asya_proxy.settings import MountSettings
from asya_proxy.stores.base import ABSENT, ANY, Entry, Precondition, Stat, match
from asya_proxy.wire import (
    check_write_id,
    error_body,
    http_date,
    none_match,
    parse_key,
    parse_precondition,
    parse_query,
    parse_range,
    parse_version,
)

log = logging.getLogger("asya_proxy.requests")

H_BACKEND = "X-Asya-Backend"
H_ERROR = "X-Asya-Error"
_JSON = "Content-Type: application/json\r\n"

# What a handler meets in the ordinary course of things; the rest is worth a line in the log.
_ORDINARY = frozenset(
    {"key_not_found", "exists", "conflict", "is_directory", "not_directory", "not_empty", "range", "unsupported"}
)
_CHANGES = frozenset({"PUT", "PATCH", "DELETE", "POST"})

Health = Callable[[str], Awaitable[Answer]]


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
    ) -> None:
        self.service: Service | None = None
        self.not_ready = "the proxy is connecting to its backend"
        self.max_size = mount.max_object_size
        self._mount = mount
        self._figures = figures
        self._budget = budget
        self._in_flight = in_flight
        self._health = health
        self._tail = (
            f"{H_PROTOCOL}: {PROTOCOL}\r\n{H_CONSISTENCY}: {mount.consistency}\r\n{H_BACKEND}: {mount.backend}\r\n"
        )
        self._place = f"{mount.actor or mount.name} on {mount.backend}"

    async def __call__(self, request: Request) -> Answer:
        began = time.monotonic()
        figures = self._figures
        op = request.method
        in_flight = self._in_flight
        in_flight.count += 1
        figures.in_flight += 1
        try:
            if in_flight.count > in_flight.limit:
                raise Busy(f"more than {in_flight.limit} requests at once (STATE_MAX_IN_FLIGHT)")
            op, answer = await self._route(request)
            outcome = "ok"
        except StoreError as error:
            op, outcome = _op(request), error.code
            answer = self._failed(request, op, error, began)
        except Exception as error:
            op, outcome = _op(request), "internal"
            answer = self._broken(request, op, error, began)
        finally:
            in_flight.count -= 1
            figures.in_flight -= 1
        figures.observe(op, outcome, time.monotonic() - began)
        return answer

    def refuse(self, error: StoreError) -> Answer:
        """The answer to what could not even be parsed."""
        self._figures.observe("parse", error.code, 0.0)
        return self._error(error, self._place)

    # Routing.

    async def _route(self, request: Request) -> tuple[str, Answer]:
        target = request.target
        path, _, query = target.partition("?")
        if not path.startswith(KEYS):
            return await self._elsewhere(request, path, query)
        spoken = request.headers.get(H_PROTOCOL)
        if spoken is not None and spoken != PROTOCOL:
            raise BadRequest(
                f"the client speaks protocol {spoken}, this proxy {PROTOCOL}: "
                "let runtime and proxy images come from the same release"
            )
        service = self._ready()
        encoded = path[len(KEYS) :]
        method = request.method
        if not encoded:
            return await self._top(service, method, query)
        key = parse_key(encoded)
        if key.endswith(b"/"):
            return await self._directory(service, request, key, query)
        if method == "GET":
            return "read", await self._read(service, request, key)
        if method == "HEAD":
            return "stat", await self._stat(service, key)
        if method == "PUT":
            return "write", await self._write(service, request, key)
        if method == "PATCH":
            return "append", await self._append(service, request, key)
        if method == "DELETE":
            await service.remove(key, self._wish(request))
            return "remove", Answer(204, self._tail)
        if method == "POST":
            return "rename", await self._rename(service, request, key, query)
        raise BadRequest(f"method {method} means nothing here; known are GET, HEAD, PUT, PATCH, DELETE, POST")

    async def _elsewhere(self, request: Request, path: str, query: str) -> tuple[str, Answer]:
        if path.startswith(META):
            return "attributes", await self._attributes(self._ready(), request, parse_key(path[len(META) :]), query)
        if path in (HEALTHZ, READYZ, METRICS) and request.method in ("GET", "HEAD"):
            answer = await self._health(path)
            answer.head += self._tail
            return "health", answer
        raise BadRequest(f"nothing is at {path[:80]!r}; state files are below {KEYS}")

    def _ready(self) -> Service:
        if self.service is None:
            raise Unavailable(self.not_ready, ambiguous=False)
        return self.service

    async def _top(self, service: Service, method: str, query: str) -> tuple[str, Answer]:
        if method == "GET":
            return "list", await self._list(service, parse_query(query))
        if method == "HEAD":
            return "stat", self._is_directory()
        raise BadRequest(f"method {method} needs a key")

    async def _directory(self, service: Service, request: Request, key: bytes, query: str) -> tuple[str, Answer]:
        method = request.method
        if method == "HEAD":
            await service.stat_directory(key)
            return "stat", self._is_directory()
        if method == "PUT":
            if not request.complete or request.take():
                raise BadRequest("a directory has no content")
            await service.make_directory(key, self._wish(request))
            return "mkdir", Answer(204, self._tail)
        if method == "DELETE":
            await service.remove_directory(key, self._wish(request))
            return "rmdir", Answer(204, self._tail)
        if method == "POST":
            return "rename", await self._rename(service, request, key, query)
        await service.stat_directory(key)
        raise IsDirectory("the name is a directory")

    # One request each.

    async def _read(self, service: Service, request: Request, key: bytes) -> Answer:
        headers = request.headers
        wanted = headers.get("If-Match")
        version = None if wanted is None or wanted == "*" else parse_version(wanted)
        ranged = headers.get("Range")
        span = None if ranged is None else parse_range(ranged)
        unless = headers.get("If-None-Match")
        if unless is not None:
            stat = await service.stat(key)
            if stat is not None and not none_match(unless, stat.version):
                return Answer(304, self._facts(stat), length=-1)
        if span is None:
            reading = await service.read(key, version=version)
            stat, status, size = reading.stat, 200, reading.stat.size
            head = self._facts(stat)
        else:
            reading = await service.read(key, start=span[0], end=span[1], version=version)
            stat, status = reading.stat, 206
            first = max(0, stat.size + span[0]) if span[0] < 0 else span[0]
            beyond = stat.size if span[1] is None else min(span[1], stat.size)
            size = beyond - first
            head = f"Content-Range: bytes {first}-{beyond - 1}/{stat.size}\r\n" + self._facts(stat)
        self._figures.bytes_out += size
        if reading.data is not None:
            return Answer(status, head, reading.data)
        return Answer(status, head, stream=reading.stream, length=size)

    async def _stat(self, service: Service, key: bytes) -> Answer:
        stat = await service.stat(key)
        if stat is None:
            return self._is_directory()
        return Answer(200, f"{H_IS_FILE}: true\r\n" + self._facts(stat), length=stat.size)

    async def _write(self, service: Service, request: Request, key: bytes) -> Answer:
        wish = self._wish(request)
        with self._incoming(request) as incoming:
            stat = await service.write(key, await incoming.body(), wish)
        return Answer(204, self._etag(stat))

    async def _append(self, service: Service, request: Request, key: bytes) -> Answer:
        wish = self._wish(request)
        if not wish.when.any:
            raise BadRequest("an append is never conditional")
        with self._incoming(request) as incoming:
            appended = await service.append(key, await incoming.body(), wish)
        head = self._etag(appended.stat)
        if appended.base is not None:
            head = f"{H_BASE_ETAG}: {quote_etag(appended.base)}\r\n" + head
        return Answer(204, head)

    async def _rename(self, service: Service, request: Request, key: bytes, query: str) -> Answer:
        parameters = parse_query(query)
        if set(parameters) != {"rename_to"}:
            raise BadRequest("POST takes exactly one parameter, rename_to")
        target = parse_key(query.partition("=")[2])
        wanted = request.headers.get(H_SOURCE_IF_MATCH)
        when_source = ANY if wanted is None else match(parse_version(wanted))
        stat = await service.rename(key, target, self._wish(request), when_source)
        return Answer(204, self._tail if stat is None else self._etag(stat))

    async def _list(self, service: Service, parameters: dict[str, bytes]) -> Answer:
        unknown = set(parameters) - {"prefix", "delimiter", "limit", "after", "detail"}
        if unknown:
            raise BadRequest(f"a listing does not know {', '.join(sorted(unknown))}")
        delimiter = parameters.get("delimiter", b"")
        if delimiter not in (b"", b"/"):
            raise BadRequest("the delimiter is / or empty")
        limit = parameters.get("limit", b"%d" % MAX_PAGE)
        if not limit.isdigit() or not int(limit):
            raise BadRequest(f"limit {limit.decode('latin-1')!r}: expected a number from 1 on")
        listing = await service.list(
            parameters.get("prefix", b""),
            delimiter=delimiter == b"/",
            after=parameters.get("after", b""),
            limit=int(limit),
        )
        return Answer(200, _JSON + self._tail, _listing(listing, detail=parameters.get("detail", b"0") == b"1"))

    async def _attributes(self, service: Service, request: Request, key: bytes, query: str) -> Answer:
        parameters = parse_query(query)
        if set(parameters) - {"attr"}:
            raise BadRequest("attributes take one parameter, attr")
        name = parameters.get("attr", b"").decode("utf-8", "surrogateescape")
        if request.method in ("GET", "HEAD"):
            attrs = await service.attributes(key)
            if not name:
                return Answer(200, _JSON + self._tail, json.dumps({"attrs": sorted(attrs)}).encode())
            if name not in attrs:
                raise KeyNotFound(f"no attribute {name!r}")
            return Answer(200, _JSON + self._tail, json.dumps({"attr": name, "value": attrs[name]}).encode())
        if request.method not in ("PUT", "DELETE"):
            raise BadRequest(f"method {request.method} means nothing here; known are GET, PUT, DELETE")
        wish = self._wish(request)
        value: str | None = None
        if request.method == "PUT":
            with self._incoming(request) as incoming:
                name, value = _attribute(await (await incoming.body()).read(), name)
        if not name:
            raise BadRequest("name the attribute: ?attr=NAME")
        return Answer(204, self._etag(await service.change_attribute(key, name, value, wish)))

    # Parts of requests and answers.

    def _incoming(self, request: Request) -> Incoming:
        return Incoming(request, self._budget, self._figures, self.max_size)

    def _wish(self, request: Request) -> Wish:
        headers = request.headers
        when: Precondition
        if_match, if_none_match = headers.get("If-Match"), headers.get("If-None-Match")
        if if_match is None and if_none_match is None:
            when = ANY
        else:
            when = ABSENT if if_none_match == "*" and if_match is None else parse_precondition(if_match, if_none_match)
        write_id = headers.get(H_WRITE_ID)
        return Wish.unnamed(when) if write_id is None else Wish(check_write_id(write_id), when)

    def _etag(self, stat: Stat) -> str:
        return f'ETag: "{stat.version}"\r\n{self._tail}'

    def _facts(self, stat: Stat) -> str:
        modified = http_date(stat.mtime_ns // 1_000_000_000)
        return f'ETag: "{stat.version}"\r\nLast-Modified: {modified}\r\n{self._tail}'

    def _is_directory(self) -> Answer:
        return Answer(200, f"{H_IS_FILE}: false\r\n{self._tail}")

    # Failures.

    def _failed(self, request: Request, op: str, error: StoreError, began: float) -> Answer:
        level = logging.DEBUG if error.code in _ORDINARY else logging.WARNING
        key = _key(request)
        if log.isEnabledFor(level):
            log.log(
                level,
                "request failed",
                extra=self._context(op, key, began) | {"error": error.code, "cause": str(error)},
            )
        return self._error(error, f"{self._place}: {key!r}" if key else self._place)

    def _broken(self, request: Request, op: str, error: Exception, began: float) -> Answer:
        key = _key(request)
        log.error("request broke", exc_info=error, extra=self._context(op, key, began))
        kind = UnknownOutcome if request.method in _CHANGES else Unavailable
        return self._error(kind(f"a defect of the proxy: {type(error).__name__}"), f"{self._place}: {key!r}")

    def _context(self, op: str, key: str, began: float) -> dict[str, object]:
        mount = self._mount
        return {
            "actor": mount.actor,
            "mount": mount.name,
            "key": key,
            "op": op,
            "backend": mount.backend,
            "ms": round((time.monotonic() - began) * 1000, 3),
        }

    def _error(self, error: StoreError, place: str) -> Answer:
        head = f"{H_ERROR}: {error.code}\r\n{_JSON}{self._tail}"
        return Answer(error.wire.status, head, error_body(error, place))


def _key(request: Request) -> str:
    """The key as it stands in the target, for messages; bounded."""
    path = request.target.partition("?")[0]
    for root in (KEYS, META):
        if path.startswith(root):
            return path[len(root) : len(root) + 900]
    return ""


def _op(request: Request) -> str:
    """The name of a failed request's operation, from a closed set."""
    if request.target.startswith(META):
        return "attributes"
    if not request.target.startswith(KEYS):
        return "other"
    path, _, _query = request.target.partition("?")
    if path == KEYS and request.method == "GET":
        return "list"
    if path.endswith("/"):
        return {"HEAD": "stat", "PUT": "mkdir", "DELETE": "rmdir", "POST": "rename"}.get(request.method, "other")
    names = {"GET": "read", "HEAD": "stat", "PUT": "write", "PATCH": "append", "DELETE": "remove", "POST": "rename"}
    return names.get(request.method, "other")


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
        "etag": entry.version,
    }


def _attribute(data: bytes, name: str) -> tuple[str, str]:
    """Name and value of `{"attr": A, "value": V}`; `attr` may be left to the query. Raises BadRequest."""
    try:
        given = json.loads(data)
        named, value = given.get("attr", name), given["value"]
    except (ValueError, KeyError, AttributeError):
        raise BadRequest('an attribute is set by {"attr": NAME, "value": TEXT}') from None
    if not isinstance(named, str) or not isinstance(value, str) or (name and named != name):
        raise BadRequest("attribute names and values are text, and the name is the query's")
    return named, value
