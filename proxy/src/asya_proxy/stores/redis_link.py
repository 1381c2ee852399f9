"""The way to a Redis: its URL, its connections, one call at a time, and what its errors mean.

Knows nothing of keys and versions. Nothing is retried here: a failed call says whether it may have landed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode

import hiredis
from redis import asyncio as redis
from redis import exceptions as wrong
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from asya_proxy.errors import BadRequest, Busy, PermissionDenied, Quota, StoreError, Unavailable
from asya_proxy.stores.redis_scripts import Script

_log = logging.getLogger("asya_proxy.stores.redis")

CONNECTIONS = 64
OLDEST = (6, 2)
SCHEMES = "redis://, rediss://, unix://, redis+sentinel://host:port,host:port/master[/db], redis+cluster://host:port,host:port"

# Refused before anything was done, by the first word of the answer.
_NOT_DONE = ("BUSY", "LOADING", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS")
# What a script is told, in the words of several releases.
_LACKS = ("can't run this command", "can't access", "ACL failure in script")
_UNKNOWN_USER = ("NOAUTH", "WRONGPASS")
_NO_ROUTE = (ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror)


Client: TypeAlias = "redis.Redis | redis.RedisCluster"


class Link:
    """Connections to what `url` names, `CONNECTIONS` at most."""

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._client: Client | None = None
        self._sentinels: Sequence[redis.Redis] = ()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[redis.Connection] = []
        """Connections of the pool that wait here for the next call, the latest last: to give one back and to take it
        again costs as much as the call. Those of a sentinel's pool stay there, where a new master ends them."""

    async def open(self) -> None:
        """Raises BadRequest (URL, version), PermissionDenied, Unavailable."""
        self._client, self._sentinels = make_client(self._url, self._timeout)
        try:
            await self.call("PING")
            await self._look_around()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._end_idle()
        client, self._client = self._client, None
        for connection in (client, *self._sentinels):
            if connection is not None:
                await connection.aclose()

    async def call(self, *args: bytes | memoryview | str | int) -> Any:
        """One command, one attempt."""
        if self._client is None:
            raise Unavailable("the store is closed", ambiguous=False)
        await self._take_slot()
        try:
            if isinstance(self._client, redis.Redis):
                return await self._ask(self._client.connection_pool, args)
            return await self._client.execute_command(*args)
        except (wrong.RedisError, OSError) as error:
            if isinstance(error, wrong.ReadOnlyError | wrong.MasterDownError):
                await self._look_elsewhere()
            raise translate(error) from error
        finally:
            self._slots.release()

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> Any:
        """A script, which is sent in full where the server does not know it (any more)."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except Unavailable as error:
            if not isinstance(error.__cause__, wrong.NoScriptError):
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *args)

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
        except TimeoutError:
            raise Busy(f"all {CONNECTIONS} connections to Redis were busy for {self._timeout:g} s") from None

    async def _look_elsewhere(self) -> None:
        """The server is no primary (any more): connect anew, so that names and sentinels are asked again."""
        if isinstance(self._client, redis.Redis):
            await self._end_idle()
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _ask(self, pool: redis.ConnectionPool, args: Sequence[bytes | memoryview | str | int]) -> Any:
        """One command without what redis-py's client puts around it: retries, callbacks and figures that nobody reads.
        A connection whose answer did not come whole closes itself, and connects again when it is used."""
        connection = await self._connection(pool)
        try:
            await connection.send_command(*args)
            return await connection.read_response()
        finally:
            if self._sentinels or self._client is None:
                await pool.release(connection)
            else:
                self._idle.append(connection)

    async def _connection(self, pool: redis.ConnectionPool) -> redis.Connection:
        if not self._idle:
            return await pool.get_connection()  # type: ignore[no-untyped-call, no-any-return]
        connection = self._idle.pop()
        try:
            await pool.ensure_connection(connection)
        except BaseException:
            self._idle.append(connection)
            raise
        return connection

    async def _end_idle(self) -> None:
        idle, self._idle = self._idle, []
        if isinstance(self._client, redis.Redis):
            for connection in idle:
                await self._client.connection_pool.release(connection)

    async def _look_around(self) -> None:
        """Warn of what may lose state: no append-only file, or an eviction policy."""
        for section, look in (("server", _check_version), ("persistence", _warn_of_aof), ("memory", _warn_of_eviction)):
            assert self._client is not None
            try:
                info = await self._client.info(section)
            except wrong.NoPermissionError:
                _log.info("redis: INFO is not permitted, so version, append-only file and eviction were not checked")
                return
            except (wrong.RedisError, OSError) as error:
                raise translate(error) from error
            # A cluster answers for each node.
            nodes = info.values() if info and all(isinstance(value, dict) for value in info.values()) else [info]
            for node in nodes:
                look(node)


def _check_version(info: Mapping[str, Any]) -> None:
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        raise BadRequest(f"Redis {version} is too old: {'.'.join(map(str, OLDEST))} or newer is needed")


def _warn_of_aof(info: Mapping[str, Any]) -> None:
    if info.get("aof_enabled") == 0:
        _log.warning(
            "redis: no append-only file: acknowledged writes are lost when the server dies; set appendonly yes"
        )


def _warn_of_eviction(info: Mapping[str, Any]) -> None:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        _log.warning(
            "redis: maxmemory-policy %s may drop state files%s; set maxmemory-policy noeviction",
            policy,
            "" if info.get("maxmemory") else " once maxmemory is set",
        )


def make_client(url: str, timeout: float) -> tuple[Client, Sequence[redis.Redis]]:
    """redis-py's client for `url`, and those of its sentinels. Raises BadRequest."""
    options: dict[str, Any] = {
        "decode_responses": False,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    scheme = url.partition("://")[0]
    try:
        if scheme in ("redis", "rediss", "unix"):
            if scheme != "unix":
                options["socket_keepalive"] = True
            # It need not wait for a connection: `Link` lets no more than so many calls in.
            pool = redis.ConnectionPool.from_url(url, max_connections=CONNECTIONS, driver_info=None, **options)
            pool.connection_class = _packing(pool.connection_class)
            return redis.Redis.from_pool(pool), ()
        if scheme in ("redis+sentinel", "rediss+sentinel"):
            hosts, path, own = _several(url)
            master, _, db = path.partition("/")
            if not master:
                raise ValueError("the path names the master, and optionally the database")
            watched = {key: own[key] for key in own if key.startswith("ssl")}
            # Sentinels that ask for a password have one of their own, or none.
            sentinel = Sentinel(  # type: ignore[no-untyped-call]
                hosts,
                sentinel_kwargs={**options, **watched, "password": own.pop("sentinel_password", None)},
                **{**options, **own, "db": int(db or 0)},
            )
            client = sentinel.master_for(master, max_connections=CONNECTIONS)
            client.connection_pool.connection_class = _packing(client.connection_pool.connection_class)
            return client, sentinel.sentinels
        if scheme in ("redis+cluster", "rediss+cluster"):
            hosts, _, own = _several(url)
            cluster = redis.RedisCluster(
                startup_nodes=[ClusterNode(host, port) for host, port in hosts],
                max_connections=CONNECTIONS,
                **{**options, **own},
            )
            return cluster, ()
    except (ValueError, wrong.RedisError) as error:
        raise BadRequest(f"REDIS_URL: {_without_secrets(url, str(error))}; expected one of {SCHEMES}") from None
    raise BadRequest(f"REDIS_URL has scheme {scheme!r}; expected one of {SCHEMES}")


def _without_secrets(url: str, said: str) -> str:
    """What was wrong with `url`. The parser quotes as a port what may be a piece of a password."""
    login = url.partition("://")[2].rpartition("@")[0]
    if any(mark in login for mark in "/?#"):
        return "user and password must be percent-encoded (/ as %2F, ? as %3F, # as %23)"
    return "the port is no number" if said.startswith("Port could not be cast") else said


class _Packing:
    """A connection that puts the frequent commands together in C, as redis-py's blocking connections do."""

    def pack_command(self, *args: Any) -> Sequence[bytes]:
        if args[0] in ("EVALSHA", "HMGET"):
            return [hiredis.pack_command(args)]
        packed: Sequence[bytes] = super().pack_command(*args)  # type: ignore[misc]
        return packed


def _packing(kind: type[Any]) -> type[Any]:
    return type(kind.__name__, (_Packing, kind), {})


def _several(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """Hosts, path and further options of a URL with several hosts."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    settings = dict(parse_qsl(query))
    own = {"sentinel_password": settings.pop("sentinel_password")} if "sentinel_password" in settings else {}
    plain = f"{scheme.partition('+')[0]}://{login}{at}host/?{urlencode(settings)}"
    options: dict[str, Any] = dict(parse_url(plain))
    secure = options.pop("connection_class", None) is not None
    options.pop("host", None)
    options.pop("port", None)
    if secure:
        options["ssl"] = True
    addresses = []
    for host in hosts.split(","):
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError("a host is not host:port")
        addresses.append((name.strip("[]"), int(port)))
    return addresses, path.strip("/"), {**options, **own}


def translate(error: Exception) -> StoreError:
    """One of redis-py's errors as ours."""
    text = str(error)
    code = getattr(error, "status_code", None) or text.partition(" ")[0]
    said = f"{code} {text}" if not text.startswith(code) else text
    lacks = isinstance(error, wrong.AuthorizationError | wrong.NoPermissionError)
    if code == "NOPERM" or lacks or any(words in text for words in _LACKS):
        return PermissionDenied(
            f"Redis refuses: {said}; the user's ACL lacks a right: the least ACL of a proxy is in the setup guide"
        )
    if code in _UNKNOWN_USER or isinstance(error, wrong.AuthenticationError):
        return PermissionDenied(f"Redis refuses the credentials: {said}; check user and password in REDIS_URL")
    if isinstance(error, wrong.OutOfMemoryError) or code == "OOM":
        return Quota(f"Redis is full: {said}")
    if code in _NOT_DONE or isinstance(error, wrong.NoScriptError | wrong.BusyLoadingError):
        return Unavailable(f"Redis: {said}", ambiguous=False)
    if isinstance(error, wrong.MaxConnectionsError) or text == "No connection available.":
        return Busy(f"Redis: {text}")
    unreached = (
        isinstance(error, _NO_ROUTE)
        or isinstance(error.__context__, _NO_ROUTE)
        or "connecting to" in text
        or isinstance(error, redis.sentinel.MasterNotFoundError)
    )
    if unreached:
        return Unavailable(f"Redis: {said}: check REDIS_URL and the network policy", ambiguous=False)
    return Unavailable(f"Redis: {said}", ambiguous="max number of clients" not in text)
