"""One request to GCS from the event loop, by the client library in a thread or without it, and what its failure means.

Nothing is repeated here: the layer above repeats reads, and knows which changes it may repeat. Large writes, listings
and copies go through the library, the rest through `gcs_objects`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Blob, Bucket, Client

from asya_proxy.errors import (
    BadRequest,
    Conflict,
    Exists,
    KeyNotFound,
    PermissionDenied,
    StoreError,
    Unavailable,
)
from asya_proxy.stores import gcs_client
from asya_proxy.stores.base import ANY, Precondition, StoreConfig
from asya_proxy.stores.gcs_objects import Objects
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.stores.threads import Pool, Shared

_T = TypeVar("_T")

THREADS = 16
LARGE_THREADS = 8
PARALLEL = 64
"""Requests at a time without the library."""
WAITING = 256
RENEWAL = 10.0
"""Seconds at least between two readings of credentials that stay refused."""

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
        self._fetch = partial(Request(), timeout=config.attempt_timeout)
        self._fetching = Shared[None]()
        self._looking = Shared[bool]()
        self._renewals = 0
        self._renewed = -RENEWAL
        self._given: tuple[object, ...] = ()
        self._failure: StoreError | None = None
        """Why there are no credentials that work; until it is time to look again, nothing is asked."""

    async def connect(self) -> None:
        """Make the client; nothing is sent but what its credentials need."""
        make = partial(gcs_client.make_client, self._config.environ, connections=THREADS + LARGE_THREADS)
        with self._connecting():
            client, session = await self.small.run(make)
        self._http = HttpLink(
            "gcs",
            gcs_client.route(client.api_endpoint),
            parallel=PARALLEL,
            waiting=WAITING,
            connect_timeout=self.timeout[0],
            read_timeout=self.timeout[1],
        )
        objects = Objects(self._http, client.api_endpoint, self.bucket, session, self.small, self._fetch)
        self._link = Link(client, session, client.bucket(self.bucket), objects)

    @contextlib.contextmanager
    def _connecting(self) -> Iterator[None]:
        try:
            yield
        except (GoogleAuthError, OSError) as error:
            raise gcs_client.translate(error, changing=False, where=self.where("connect")) from error
        except ValueError as error:
            raise BadRequest(
                f"{self.where('connect')}: {error}: check GOOGLE_APPLICATION_CREDENTIALS and STORAGE_EMULATOR_HOST"
            ) from error

    async def close(self) -> None:
        await self._fetching.close()
        await self._looking.close()
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
        """`work()` with a token that is good; again, with a new one, where it was refused: nothing was done then."""
        if self._failure is not None:
            await self._renew(self._renewals, refused=False)
        renewals = self._renewals
        try:
            if not self.link.session.credentials.valid:
                await self._fetching.run(self._fetch_token)
            return await work()
        except gcs_client.SDK_ERRORS as error:
            refused = gcs_client.status_of(error) == 401
            if not (refused or isinstance(error, GoogleAuthError)) or not await self._renew(renewals, refused=True):
                raise
        return await work()

    async def _fetch_token(self) -> None:
        credentials = self.link.session.credentials
        if not credentials.valid:
            await self.small.run(lambda: credentials.refresh(self._fetch))

    async def _renew(self, renewals: int, *, refused: bool) -> bool:
        """Read the credentials anew, as the Secret may have new ones by now, and fetch a token: one for all that are
        refused together, and no more often than once in `RENEWAL` while the same are given. False where it is not yet
        time for it. Raises why there is none."""
        if self._renewals == renewals and not await self._looking.run(partial(self._look, refused)):
            return False
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)  # anew: what is raised again and again grows
        return True

    async def _look(self, refused: bool) -> bool:
        given = await self.small.run(lambda: gcs_client.given(self._config.environ))
        if given == self._given and time.monotonic() < self._renewed + RENEWAL:
            return self._failure is not None
        self._renewals += 1
        self._given, self._renewed = given, time.monotonic()
        make = partial(gcs_client.new_token, self._config.environ, self._fetch, refused=refused)
        try:
            with self._connecting():
                self.link.session.credentials = await self.small.run(make)
            self._failure = None
        except (PermissionDenied, BadRequest) as failure:
            self._failure = failure
        return True

    def translate(self, error: BaseException, operation: str, *, changing: bool) -> StoreError:
        return gcs_client.translate(error, changing=changing, where=self.where(operation))
