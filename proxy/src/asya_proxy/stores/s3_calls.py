"""One request to S3 from the event loop, by the SDK in a thread or without it, and what its failure means."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from asya_proxy.errors import BadRequest, Conflict, Exists, KeyNotFound, StoreError, Unavailable
from asya_proxy.stores import s3_client
from asya_proxy.stores.base import ANY, Precondition, StoreConfig
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.stores.s3_objects import Objects
from asya_proxy.stores.threads import Pool

_T = TypeVar("_T")

THREADS = 16
LARGE_THREADS = 8
PARALLEL = 64
"""Requests at a time without the SDK."""
WAITING = 256


def quoted(version: str) -> str:
    """A version as the ETag that the backend gave."""
    return version if version.startswith("W/") else f'"{version}"'


def unquoted(etag: str) -> str:
    """An ETag as a version."""
    return etag[1:-1] if len(etag) > 1 and etag[0] == etag[-1] == '"' else etag


def conditions(when: Precondition) -> dict[str, Any]:
    if when.absent:
        return {"IfNoneMatch": "*"}
    return {} if when.version is None else {"IfMatch": quoted(when.version)}


def condition_headers(when: Precondition) -> dict[str, str]:
    if when.absent:
        return {"If-None-Match": "*"}
    return {} if when.version is None else {"If-Match": quoted(when.version)}


class S3Calls:
    """The clients and thread pools of one store. `objects` is for what needs none of them."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self.bucket = config.bucket
        self.small = Pool("s3", threads=THREADS, waiting=WAITING)
        self.large = Pool("s3-large", threads=LARGE_THREADS, waiting=4 * WAITING)
        self._clients: s3_client.Clients | None = None
        self._objects: Objects | None = None

    async def connect(self) -> None:
        """Make the clients; nothing is sent. Raises BadRequest."""

        def make() -> s3_client.Clients:
            return s3_client.make_clients(
                self._config.environ,
                attempt_timeout=self._config.attempt_timeout,
                connections=THREADS + LARGE_THREADS,
            )

        try:
            self._clients = await self.read("connect", make)
        except ValueError as error:  # the SDK's word for an endpoint or setting that it cannot read
            raise BadRequest(f"{self.where('connect')}: {error}: correct `endpoint` (AWS_ENDPOINT_URL)") from error

    async def find_objects(self) -> None:
        """Once the SDK has reached the bucket, and so knows its region."""
        place = await self.read("connect", partial(s3_client.find_objects, self.sdk, self.bucket))
        timeout = self._config.attempt_timeout
        link = HttpLink(
            "s3",
            place.route,
            parallel=PARALLEL,
            waiting=WAITING,
            connect_timeout=min(s3_client.CONNECT_TIMEOUT, timeout),
            read_timeout=timeout,
        )
        self._objects = Objects(place, link, self.small)

    async def close(self) -> None:
        if self._objects is not None:
            await self._objects.close()
        self.small.close()
        self.large.close()
        if self._clients is not None:
            for client in (self._clients.reads, self._clients.changes, self._clients.slow):
                client.close()

    @property
    def sdk(self) -> s3_client.Clients:
        if self._clients is None:
            raise Unavailable(f"{self.where('call')}: the store is not connected", ambiguous=False)
        return self._clients

    def where(self, operation: str) -> str:
        place = s3_client.endpoint(self._config.environ)
        return f"s3 {operation} in bucket {self.bucket!r}" + (f" at {place}" if place else "")

    @property
    def objects(self) -> Objects:
        if self._objects is None:
            raise Unavailable(f"{self.where('call')}: the store is not connected", ambiguous=False)
        return self._objects

    async def read(self, operation: str, work: Callable[[], _T], *, pool: Pool | None = None) -> _T:
        """`work()` in a thread. Raises as `reading` does."""
        with self.reading(operation):
            return await (pool or self.small).run(work)

    async def change(
        self, operation: str, work: Callable[[], _T], *, when: Precondition = ANY, pool: Pool | None = None
    ) -> _T:
        """`work()` in a thread, a change under `when`. Raises as `changing` does."""
        with self.changing(operation, when):
            return await (pool or self.small).run(work)

    async def get(self, operation: str, name: str, headers: Mapping[str, str]) -> Answer:
        """Raises as `reading` does."""
        with self.reading(operation):
            return await self.objects.get(name, headers)

    async def put(self, name: str, data: bytes, headers: Mapping[str, str], when: Precondition) -> Answer:
        """Small content. Raises as `changing` does."""
        with self.changing("put", when):
            return await self.objects.put(name, data, {**headers, **condition_headers(when)})

    async def delete(self, name: str, when: Precondition) -> None:
        """Raises as `changing` does, and not where nothing was there."""
        with self.changing("delete", when):
            await self.objects.delete(name, condition_headers(when))

    @contextlib.contextmanager
    def reading(self, operation: str) -> Iterator[None]:
        """Raises KeyNotFound for an absent object, Conflict for another version, and what else the backend says; its
        `Unavailable` is never ambiguous."""
        try:
            yield
        except s3_client.SDK_ERRORS as error:
            if s3_client.code_of(error) == "NoSuchKey":
                raise KeyNotFound(self.where(operation)) from error
            if s3_client.precondition_failed(error):
                raise Conflict(f"{self.where(operation)}: it is at another version") from error
            raise self.translate(error, operation, changing=False) from error

    @contextlib.contextmanager
    def changing(self, operation: str, when: Precondition) -> Iterator[None]:
        """Raises Exists or Conflict where `when` did not hold."""
        try:
            yield
        except s3_client.SDK_ERRORS as error:
            lost = s3_client.precondition_failed(error)
            if lost and when.absent:
                raise Exists(f"{self.where(operation)}: the name is taken") from error
            if lost or (s3_client.code_of(error) == "NoSuchKey" and when.version is not None):
                raise Conflict(f"{self.where(operation)}: it is not at version {when.version}") from error
            raise self.translate(error, operation, changing=True) from error

    def translate(self, error: BaseException, operation: str, *, changing: bool) -> StoreError:
        return s3_client.translate(error, changing=changing, where=self.where(operation))


def header(answer: Mapping[str, Any], name: str) -> str:
    """An HTTP header of an answer; `name` in lower case."""
    return str(answer["ResponseMetadata"].get("HTTPHeaders", {}).get(name, ""))
