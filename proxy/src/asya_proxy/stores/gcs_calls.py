"""One call to GCS from the event loop: which pool, which time-out, and what its failure means.

Nothing is repeated here: the layer above repeats reads, and knows which changes it may repeat. Writes, listings
and copies go through the client library (JSON API). Reads go through the XML API on the
library's session: one request brings content, generation and metadata, and its errors tell an absent object
from an absent bucket, which those of the JSON API do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Blob, Bucket, Client

from asya_proxy.errors import BadRequest, Conflict, Exists, KeyNotFound, StoreError, Unavailable
from asya_proxy.stores import gcs_client
from asya_proxy.stores.base import ANY, Precondition, StoreConfig
from asya_proxy.stores.threads import Pool

_T = TypeVar("_T")

THREADS = 32
LARGE_THREADS = 8
WAITING = 256

LAST_GENERATION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Link:
    """What a connected store calls through."""

    client: Client
    session: AuthorizedSession
    bucket: Bucket


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
        self._refused = False

    async def connect(self) -> None:
        """Make the client; nothing is sent but what its credentials need."""
        try:
            await self.small.run(self._make)
        except (GoogleAuthError, OSError) as error:
            raise gcs_client.translate(error, changing=False, where=self.where("connect")) from error
        except ValueError as error:
            raise BadRequest(
                f"{self.where('connect')}: {error}: check GOOGLE_APPLICATION_CREDENTIALS and STORAGE_EMULATOR_HOST"
            ) from error

    def _make(self) -> None:
        client, session = gcs_client.make_client(self._config.environ, connections=THREADS + LARGE_THREADS)
        self._link = Link(client, session, client.bucket(self.bucket))

    def close(self) -> None:
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

    def open(self, name: str, headers: Mapping[str, str]) -> requests.Response:
        """A read of the XML API, its body not read yet. Blocking. Raises `SDK_ERRORS`."""
        link = self.link
        url = f"{link.client.api_endpoint}/{quote(self.bucket, safe='')}/{quote(name, safe='/')}"
        # Without gzip in it, GCS would decompress what others stored compressed.
        answer = link.session.get(
            url, headers={"Accept-Encoding": "gzip", **headers}, stream=True, timeout=self.timeout
        )
        if answer.status_code not in (200, 206):
            try:
                raise gcs_client.refusal_of(answer)
            finally:
                answer.close()
        return answer

    async def read(
        self,
        operation: str,
        work: Callable[[], _T],
        *,
        discard: Callable[[_T], None] | None = None,
        pool: Pool | None = None,
    ) -> _T:
        """`work()` in a thread. Raises KeyNotFound for an absent object, Conflict for another version, and what
        else the backend says; its `Unavailable` is never ambiguous."""
        try:
            return await self._run(work, pool or self.small, discard)
        except gcs_client.SDK_ERRORS as error:
            if gcs_client.code_of(error) == "NoSuchKey":
                raise KeyNotFound(self.where(operation)) from error
            if gcs_client.status_of(error) == 412:
                raise Conflict(f"{self.where(operation)}: it is at another version") from error
            raise self.translate(error, operation, changing=False) from error

    async def change(
        self, operation: str, work: Callable[[], _T], *, when: Precondition = ANY, pool: Pool | None = None
    ) -> _T:
        """`work()` in a thread, a change under `when`. Raises Exists or Conflict where that did not hold, and
        KeyNotFound for 404, which may also be the bucket's."""
        try:
            return await self._run(work, pool or self.small, None)
        except gcs_client.SDK_ERRORS as error:
            status = gcs_client.status_of(error)
            if status == 412 and when.absent:
                raise Exists(f"{self.where(operation)}: the name is taken") from error
            if status == 412:
                raise Conflict(f"{self.where(operation)}: it is not at version {when.version}") from error
            if status == 404:
                raise KeyNotFound(self.where(operation)) from error
            raise self.translate(error, operation, changing=True) from error

    async def _run(self, work: Callable[[], _T], pool: Pool, discard: Callable[[_T], None] | None) -> _T:
        if self._refused:  # maybe the Secret has new credentials by now
            await self.connect()
            self._refused = False
        try:
            return await pool.run(work, discard=discard)
        except gcs_client.SDK_ERRORS as error:
            self._refused = isinstance(error, GoogleAuthError) or gcs_client.status_of(error) == 401
            raise

    def translate(self, error: BaseException, operation: str, *, changing: bool) -> StoreError:
        return gcs_client.translate(error, changing=changing, where=self.where(operation))
