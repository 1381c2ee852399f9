"""State files in S3 and what speaks like it.

A state file is an object with exactly its bytes; the version is the ETag, opaque and without its
quotes; the history of writes lies in one metadata field. Plain ETags are hashes of the content: equal
content has an equal version (`Traits.unique_versions` is False), and a change of metadata alone would
not move it, so attributes are not claimed.

Rules of the conditions: S3 user guide, "conditional writes" and "conditional deletes".
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from asya_proxy.errors import Conflict, KeyNotFound, PermissionDenied, RangeInvalid, TooLarge, Unavailable
from asya_proxy.stores import history, http_link, object_keys, s3_client, s3_promises
from asya_proxy.stores.base import (
    CHUNK,
    BaseStore,
    Body,
    Change,
    Entry,
    Page,
    Past,
    Precondition,
    Reading,
    Stat,
    StoreConfig,
    Traits,
)
from asya_proxy.stores.http_link import Answer
from asya_proxy.stores.s3_calls import S3Calls, conditions, header, quoted, unquoted
from asya_proxy.stores.s3_multipart import MAX_SIZE, PART, Multipart, Origin, SourceMoved, part_size
from asya_proxy.stores.spool import chained, parts

_FIRST_BYTE = {"Range": "bytes=0-0"}
_HISTORY = f"x-amz-meta-{history.FIELD}"
_PAGE = 1000
"""Names in one answer, at most (ListObjectsV2)."""


class S3Store(BaseStore):
    traits = Traits(unique_versions=False, copy=True, max_size=MAX_SIZE)

    def __init__(self, config: StoreConfig) -> None:
        self._timeout = config.attempt_timeout
        self._bucket = config.bucket
        self._prefix = config.prefix
        self._calls = S3Calls(config)
        self._multipart = Multipart(self._calls)

    async def connect(self) -> None:
        await self._calls.connect()
        await self.ping()
        await self._calls.find_objects()

    async def close(self) -> None:
        await self._multipart.close(self._timeout)
        await self._calls.close()

    async def ping(self) -> None:
        """A listing of one name: unlike HEAD it says why it was refused. Raises KeyNotFound without a bucket."""
        ask = partial(self._calls.sdk.reads.list_objects_v2, Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
        try:
            await self._calls.small.run(ask)
        except s3_client.SDK_ERRORS as error:
            if s3_client.code_of(error) == "NoSuchBucket":
                raise KeyNotFound(
                    f"bucket {self._bucket!r} does not exist: create it, or correct `bucket` (STATE_BUCKET)"
                ) from error
            raise self._calls.translate(error, "list", changing=False) from error

    # Reading

    async def head(self, key: bytes) -> Stat | None:
        # A GET of one byte, because the 404 of a HEAD does not say what is missing: object, bucket or user.
        try:
            answer = await self._calls.get("head", self._name(key), _FIRST_BYTE)
        except KeyNotFound:
            return None
        except RangeInvalid:
            return await self._head_empty(key)
        except PermissionDenied as refusal:
            await self._hidden(key, refusal)
            return None
        answer.close()
        return _stat(answer)

    async def _hidden(self, key: bytes, refusal: PermissionDenied) -> None:
        """Return where `refusal` hides an absent object: S3 says 403 for it to those who may list only below a prefix.
        Raises `refusal` where the object is there, or cannot be looked for."""
        name = self._name(key)
        ask = partial(self._calls.sdk.reads.list_objects_v2, Bucket=self._bucket, Prefix=name, MaxKeys=1)
        try:
            answer = await self._calls.read("list", ask)
        except PermissionDenied:
            raise refusal from None
        if [item["Key"] for item in answer.get("Contents", ())] == [name]:
            raise refusal

    async def _head_empty(self, key: bytes) -> Stat | None:
        """An empty object has no first byte to ask for; a whole GET of it is small, unless it grew since."""
        try:
            answer = await self._calls.get("head", self._name(key), {})
        except KeyNotFound:
            return None
        answer.close()
        return _stat(answer)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        if end is not None and (start < 0 or end <= start):
            return await self._get_measured(key, start, end, version)
        headers: dict[str, str] = {}
        if start < 0:
            headers["Range"] = f"bytes={start}"
        elif start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if version is not None:
            headers["If-Match"] = quoted(version)
        try:
            answer = await self._calls.get("get", self._name(key), headers)
        except KeyNotFound:
            return None
        except PermissionDenied as refusal:
            await self._hidden(key, refusal)
            return None
        stat = _stat(answer)
        if "Range" in headers and answer.status == http_link.WHOLE:
            return Reading(stat, http_link.cut(answer, start, end))
        return Reading(stat, None if answer.stream else answer.data, answer.stream)

    async def _get_measured(self, key: bytes, start: int, end: int, version: str | None) -> Reading | None:
        """Ranges that need the size first, or nothing but it."""
        stat = await self.head(key)
        if stat is None:
            return None
        if version not in (None, stat.version):
            raise Conflict(f"{self._calls.where('get')}: it is not at version {version}")
        start = max(0, stat.size + start) if start < 0 else start
        if end <= start:
            return Reading(stat, data=b"")
        return await self.get(key, start=start, end=end, version=stat.version)

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = _PAGE) -> Page:
        start = object_keys.folded(prefix, after) if delimiter else after
        start_name = self._prefix + object_keys.encode(start)
        ask: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + object_keys.settled(prefix)}
        if start > prefix:
            # A directory was the last name: go on behind everything in it.
            ask["StartAfter"] = start_name + ("\U0010ffff" if delimiter and start.endswith(b"/") else "")
        if delimiter:
            ask["Delimiter"] = "/"
        found: list[_Listed] = []
        more = True
        while more and len(found) < limit:
            # Never one: MinIO, asked for one name behind a directory with a marker, ends the listing.
            ask["MaxKeys"] = min(_PAGE, max(2, limit - len(found)))
            answer = await self._calls.read("list", partial(self._calls.sdk.reads.list_objects_v2, **ask))
            more = bool(answer.get("IsTruncated"))
            if more:
                ask["ContinuationToken"] = answer["NextContinuationToken"]
            found += [
                item
                for item in _listed(answer, len(self._prefix))
                if item.name.startswith(prefix) and (not start or item.object_name > start_name)
            ]
        more = more or len(found) > limit
        ordered = object_keys.order(found[:limit], more=more)
        return Page(
            entries=[item.entry for item in ordered if item.entry is not None],
            prefixes=[item.name for item in ordered if item.entry is None],
            more=more,
        )

    # Changing

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        if body.size is not None and body.size > MAX_SIZE:
            raise TooLarge(f"{self._calls.where('put')}: {body.size} bytes; at most {MAX_SIZE} go up in parts")
        name, writes = self._name(key), history.of_change(change)
        if body.data is not None and len(body.data) <= PART:
            return await self._put_whole(name, body.data, writes, change.when)
        async with aclosing(parts(body, part_size)) as cut:
            first = [await anext(cut)]
            if first[0].last:
                return await self._put_whole(name, bytes(first[0].data), writes, change.when)
            answer, size = await self._multipart.put(name, chained(first, cut), _metadata(writes), change.when)
            return _made(answer, size, writes)

    async def _put_whole(self, name: str, data: bytes, writes: tuple[Past, ...], when: Precondition) -> Stat:
        if len(data) <= CHUNK:
            headers = {f"x-amz-meta-{field}": value for field, value in _metadata(writes).items()}
            answer = (await self._calls.put(name, data, headers, when)).headers
            return _written(answer["ETag"], answer.get("Date", ""), len(data), writes)
        # In a thread: it takes long, and the backend may refuse before it has read all.
        send = partial(
            self._calls.sdk.changes.put_object,
            Bucket=self._bucket,
            Key=name,
            Body=data,
            Metadata=_metadata(writes),
            **conditions(when),
        )
        return _made(await self._calls.change("put", send, when=when, pool=self._calls.large), len(data), writes)

    async def delete(self, key: bytes, change: Change) -> None:
        # Asked first: the answer to a DELETE does not tell (everywhere) whether there was anything. Whether the
        # version is right is left to the backend, so that the self-test sees one that does not care.
        if await self.head(key) is None:
            if change.when.any:
                raise KeyNotFound(self._calls.where("delete"))
            raise Conflict(f"{self._calls.where('delete')}: it is not at version {change.when.version}, but gone")
        await self._calls.delete(self._name(key), change.when)

    # What the self-test asks of it: `capabilities.InParts`

    operations = s3_promises.OPERATIONS

    async def prepare(self, key: bytes, data: bytes) -> s3_promises.Upload:
        return await s3_promises.prepare(self._calls, self._name(key), data)

    async def keeps_promises(self, key: bytes, passed: bytes, stale: str | None) -> bool:
        return await s3_promises.keeps_promises(self._calls, self._name(key), passed, stale)

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        where = self._calls.where("copy")
        stat = await self.head(source)
        if stat is None:
            raise KeyNotFound(f"{where}: there is no source")
        if when_source.version not in (None, stat.version):
            raise Conflict(f"{where}: the source is not at version {when_source.version}")
        writes = history.of_change(change)
        try:
            if stat.size <= CHUNK:
                data = await self._whole(source, stat.version)
                return await self._put_whole(self._name(target), data, writes, change.when)
            origin = Origin(self._name(source), stat.version, stat.size)
            answer = await self._multipart.copy(origin, self._name(target), _metadata(writes), change.when)
            return _made(answer, stat.size, writes)
        except SourceMoved:
            if when_source.any:  # nobody asked for this version: the next attempt takes the new one
                raise Unavailable(f"{where}: the source was written meanwhile", ambiguous=False) from None
            raise

    async def _whole(self, key: bytes, version: str) -> bytes:
        """A small object at `version`."""
        try:
            reading = await self.get(key, version=version)
        except Conflict as error:
            raise SourceMoved(str(error)) from error
        if reading is None or reading.data is None:
            raise SourceMoved(f"{self._calls.where('copy')}: the source is gone")
        return reading.data

    def _name(self, key: bytes) -> str:
        return object_keys.object_name(self._prefix, key)


class _Listed(NamedTuple):
    object_name: str
    name: bytes
    entry: Entry | None
    """None: a prefix."""


def _listed(answer: Mapping[str, Any], cut: int) -> list[_Listed]:
    """Entries and prefixes of one answer in the order of object names; the first `cut` characters are the store's."""
    listed = []
    for item in answer.get("Contents", ()):
        if key := object_keys.decode(item["Key"][cut:]):
            mtime_ns = int(item["LastModified"].timestamp()) * 10**9
            entry = Entry(key, unquoted(item["ETag"]), item["Size"], mtime_ns)
            listed.append(_Listed(item["Key"], key, entry))
    for item in answer.get("CommonPrefixes", ()):
        if key := object_keys.decode(item["Prefix"][cut:]):
            listed.append(_Listed(item["Prefix"], key, None))
    return sorted(listed, key=lambda item: item.object_name)


def _metadata(writes: tuple[Past, ...]) -> dict[str, str]:
    return {history.FIELD: history.encode(writes)}


def _stat(answer: Answer) -> Stat:
    """The object of an answer to GET, ranged or not."""
    headers = answer.headers
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return Stat(
        version=unquoted(headers["ETag"]),
        size=int(total) if total else answer.length,
        mtime_ns=_seconds(headers["Last-Modified"]) * 10**9,
        history=history.decode(headers.get(_HISTORY, "")),
    )


def _made(answer: Mapping[str, Any], size: int, writes: tuple[Past, ...]) -> Stat:
    """The object that the SDK made."""
    return _written(answer["ETag"], header(answer, "date"), size, writes)


def _written(etag: str, date: str, size: int, writes: tuple[Past, ...]) -> Stat:
    """The object that a change made. Its time is that of the answer: S3 tells the object's own only when asked."""
    return Stat(unquoted(etag), size, (_seconds(date) if date else int(time.time())) * 10**9, writes)


@lru_cache(maxsize=256)
def _seconds(date: str) -> int:
    """Of the Unix epoch."""
    return int(parsedate_to_datetime(date).timestamp())
