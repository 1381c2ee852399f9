"""One request to GCS from the event loop, by the client library in a thread or without it, and what its failure means.

Nothing is repeated here: the layer above repeats reads, and knows which changes it may repeat. Large writes, listings
and copies go through the library, the rest through `gcs_objects`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Blob, Bucket, Client

from asya_proxy.errors import BadRequest, Conflict, Exists, KeyNotFound, StoreError, Unavailable
from asya_proxy.stores import gcs_client
from asya_proxy.stores.base import ANY, Precondition, StoreConfig
from asya_proxy.stores.gcs_objects import Objects
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.stores.threads import Pool

_T = TypeVar("_T")

THREADS = 16
LARGE_THREADS = 8
PARALLEL = 64
"""Requests at a time without the library."""
WAITING = 256

LAST_GENERATION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """What a connected store calls through."""

    client: Client
    session: AuthorizedSession
    bucket: Bucket
    objects: Objects


def generation_of(when: Precondition, where: str) -> int | None:
    """The value of ifGenerationMatch. Raises Conflict for a version that no object of GCS can have."""
    if when.any:
        return None
    if when.absent:
        return 0
    version = when.version or ""
    if not (version.isascii() and version.isdigit() and 0 < int(version) <= LAST_GENERATION):
        raise Conflict(f"{where}: it is not at version {version}")
    return int(version)


class GcsCalls:
    """The client and the thread pools of one store."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config
        self.bucket = config.bucket
        self.small = Pool("gcs", threads=THREADS, waiting=WAITING)
        self.large = Pool("gcs-large", threads=LARGE_THREADS, waiting=4 * WAITING)
        self.timeout = (min(gcs_client.CONNECT_TIMEOUT, config.attempt_timeout), config.attempt_timeout)
        """Seconds to connect, and between two bytes."""
        self.slow_timeout = (self.timeout[0], max(gcs_client.SLOW_TIMEOUT, config.attempt_timeout))
        self._link: Link | None = None
        self._http: HttpLink | None = None
        self._refused = False

    async def connect(self) -> None:
        """Make the client; nothing is sent but what its credentials need."""
        make = partial(gcs_client.make_client, self._config.environ, connections=THREADS + LARGE_THREADS)
        try:
            client, session = await self.small.run(make)
        except (GoogleAuthError, OSError) as error:
            raise gcs_client.translate(error, changing=False, where=self.where("connect")) from error
        except ValueError as error:
            raise BadRequest(
                f"{self.where('connect')}: {error}: check GOOGLE_APPLICATION_CREDENTIALS and STORAGE_EMULATOR_HOST"
            ) from error

        if self._http is None:
            self._http = HttpLink(
                "gcs",
                gcs_client.route(client.api_endpoint),
                parallel=PARALLEL,
                waiting=WAITING,
                connect_timeout=self.timeout[0],
                read_timeout=self.timeout[1],
            )
        identity = session.credentials
        objects = Objects(self._http, client.api_endpoint, self.bucket, identity, self.small, Request())
        self._link = Link(client, session, client.bucket(self.bucket), objects)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
        self.small.close()
        self.large.close()
        if self._link is not None:
            self._link.client.close()

    @property
    def link(self) -> Link:
        if self._link is None:
            raise Unavailable(f"{self.where('call')}: the store is not connected", ambiguous=False)
        return self._link

    def blob(self, name: str) -> Blob:
        return self.link.bucket.blob(name)

    def where(self, operation: str) -> str:
        place = gcs_client.endpoint(self._config.environ)
        return f"gcs {operation} in bucket {self.bucket!r}" + (f" at {place}" if place else "")

    async def read(self, operation: str, work: Callable[[], _T], *, pool: Pool | None = None) -> _T:
        """`work()` in a thread. Raises as `reading` does."""
        with self.reading(operation):
            return await self._with_credentials(lambda: (pool or self.small).run(work))

    async def change(
        self, operation: str, work: Callable[[], _T], *, when: Precondition = ANY, pool: Pool | None = None
    ) -> _T:
        """`work()` in a thread, a change under `when`. Raises as `changing` does."""
        with self.changing(operation, when):
            return await self._with_credentials(lambda: (pool or self.small).run(work))

    async def get(self, operation: str, name: str, headers: Mapping[str, str]) -> Answer:
        """Raises as `reading` does."""
        with self.reading(operation):
            return await self._with_credentials(lambda: self.link.objects.get(name, headers))

    async def upload(self, name: str, data: bytes, metadata: Mapping[str, str], when: Precondition) -> dict[str, Any]:
        """Small content: the object resource. Raises as `changing` does."""
        generation = generation_of(when, self.where("put"))
        with self.changing("put", when):
            return await self._with_credentials(lambda: self.link.objects.upload(name, data, metadata, generation))

    async def delete(self, name: str, when: Precondition) -> None:
        """Raises as `changing` does."""
        generation = generation_of(when, self.where("delete"))
        with self.changing("delete", when):
            await self._with_credentials(lambda: self.link.objects.delete(name, generation))

    @contextlib.contextmanager
    def reading(self, operation: str) -> Iterator[None]:
        """Raises KeyNotFound for an absent object, Conflict for another version, and what else the backend says; its
        `Unavailable` is never ambiguous."""
        try:
            yield
        except gcs_client.SDK_ERRORS as error:
            if gcs_client.code_of(error) == "NoSuchKey":
                raise KeyNotFound(self.where(operation)) from error
            if gcs_client.status_of(error) == 412:
                raise Conflict(f"{self.where(operation)}: it is at another version") from error
            raise self.translate(error, operation, changing=False) from error

    @contextlib.contextmanager
    def changing(self, operation: str, when: Precondition) -> Iterator[None]:
        """Raises Exists or Conflict where `when` did not hold, and KeyNotFound for 404, which may also be the
        bucket's."""
        try:
            yield
        except gcs_client.SDK_ERRORS as error:
            status = gcs_client.status_of(error)
            if status == 412 and when.absent:
                raise Exists(f"{self.where(operation)}: the name is taken") from error
            if status == 412:
                raise Conflict(f"{self.where(operation)}: it is not at version {when.version}") from error
            if status == 404:
                raise KeyNotFound(self.where(operation)) from error
            raise self.translate(error, operation, changing=True) from error

    async def _with_credentials(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """`work()`, after new credentials are read where the last ones were refused."""
        if self._refused:  # maybe the Secret has new credentials by now
            await self.connect()
            self._refused = False
        try:
            return await work()
        except gcs_client.SDK_ERRORS as error:
            self._refused = isinstance(error, GoogleAuthError) or gcs_client.status_of(error) == 401
            raise

    def translate(self, error: BaseException, operation: str, *, changing: bool) -> StoreError:
        return gcs_client.translate(error, changing=changing, where=self.where(operation))
