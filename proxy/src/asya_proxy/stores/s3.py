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
from functools import partial
from typing import Any, NamedTuple

from asya_proxy.errors import Conflict, KeyNotFound, PermissionDenied, RangeInvalid, TooLarge, Unavailable
from asya_proxy.stores import history, object_keys, s3_client, s3_promises
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
from asya_proxy.stores.s3_calls import S3Calls, conditions, header, quoted, unquoted
from asya_proxy.stores.s3_multipart import MAX_SIZE, PART, Multipart, Origin, SourceMoved, part_size
from asya_proxy.stores.spool import chained, parts
from asya_proxy.stores.threads import PieceStream

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

    async def close(self) -> None:
        await self._multipart.close(self._timeout)
        self._calls.close()

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
        ask = partial(self._calls.sdk.reads.get_object, Bucket=self._bucket, Key=self._name(key), Range="bytes=0-0")
        try:
            answer = await self._calls.read("head", ask, discard=_close)
        except KeyNotFound:
            return None
        except RangeInvalid:
            return await self._head_empty(key)
        except PermissionDenied as refusal:
            await self._hidden(key, refusal)
            return None
        _close(answer)
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
        ask = partial(self._calls.sdk.reads.get_object, Bucket=self._bucket, Key=self._name(key))
        try:
            answer = await self._calls.read("head", ask, discard=_close)
        except KeyNotFound:
            return None
        _close(answer)
        return _stat(answer)

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        if end is not None and (start < 0 or end <= start):
            return await self._get_measured(key, start, end, version)
        ask: dict[str, Any] = {"Bucket": self._bucket, "Key": self._name(key)}
        if start < 0:
            ask["Range"] = f"bytes={start}"
        elif start or end is not None:
            ask["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if version is not None:
            ask["IfMatch"] = quoted(version)
        try:
            fetched = await self._calls.read("get", partial(self._fetch, ask), discard=lambda got: _close(got.answer))
        except KeyNotFound:
            return None
        except PermissionDenied as refusal:
            await self._hidden(key, refusal)
            return None
        return self._reading(fetched, suffix=start < 0)

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

    def _fetch(self, ask: dict[str, Any]) -> _Fetched:
        answer = self._calls.sdk.reads.get_object(**ask)
        try:
            # Read to the end where it fits: only then does the SDK notice an answer that breaks off.
            small = answer["ContentLength"] <= CHUNK
            return _Fetched(answer, answer["Body"].read() if small else answer["Body"].read(CHUNK))
        except BaseException:
            _close(answer)
            raise

    def _reading(self, fetched: _Fetched, *, suffix: bool) -> Reading:
        answer, stat = fetched.answer, _stat(fetched.answer)
        length, body = int(answer["ContentLength"]), answer["Body"]
        if length <= CHUNK:
            body.close()
            if suffix and stat.size == 0:  # some backends answer 200 here, some 416
                raise RangeInvalid(f"{self._calls.where('get')}: the file is empty")
            return Reading(stat, data=fetched.first)

        async def pull() -> bytes:
            return await self._calls.read("get", partial(body.read, CHUNK), pool=self._calls.large)

        return Reading(stat, stream=PieceStream(fetched.first, length, pull, body.close))

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
                return await self._put_whole(name, first[0].data, writes, change.when)
            answer, size = await self._multipart.put(name, chained(first, cut), _metadata(writes), change.when)
            return _written(answer, size, writes)

    async def _put_whole(self, name: str, data: bytes, writes: tuple[Past, ...], when: Precondition) -> Stat:
        send = partial(
            self._calls.sdk.changes.put_object,
            Bucket=self._bucket,
            Key=name,
            Body=data,
            Metadata=_metadata(writes),
            **conditions(when),
        )
        pool = self._calls.small if len(data) <= CHUNK else self._calls.large
        return _written(await self._calls.change("put", send, when=when, pool=pool), len(data), writes)

    async def delete(self, key: bytes, change: Change) -> None:
        # Asked first: the answer to a DELETE does not tell (everywhere) whether there was anything. Whether the
        # version is right is left to the backend, so that the self-test sees one that does not care.
        if await self.head(key) is None:
            if change.when.any:
                raise KeyNotFound(self._calls.where("delete"))
            raise Conflict(f"{self._calls.where('delete')}: it is not at version {change.when.version}, but gone")
        remove = partial(
            self._calls.sdk.changes.delete_object,
            Bucket=self._bucket,
            Key=self._name(key),
            **conditions(change.when),
        )
        await self._calls.change("delete", remove, when=change.when)

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
            return _written(answer, stat.size, writes)
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


class _Fetched(NamedTuple):
    answer: Any
    first: bytes


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


def _close(answer: Mapping[str, Any]) -> None:
    answer["Body"].close()


def _metadata(writes: tuple[Past, ...]) -> dict[str, str]:
    return {history.FIELD: history.encode(writes)}


def _stat(answer: Mapping[str, Any]) -> Stat:
    """The object of a GetObject answer, ranged or not."""
    total = header(answer, "content-range").rpartition("/")[2]
    fields = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    return Stat(
        version=unquoted(answer["ETag"]),
        size=int(total) if total else int(answer["ContentLength"]),
        mtime_ns=int(answer["LastModified"].timestamp()) * 10**9,
        history=history.decode(fields.get(history.FIELD, "")),
    )


def _written(answer: Mapping[str, Any], size: int, writes: tuple[Past, ...]) -> Stat:
    """The object that a change made. Its time is that of the answer: S3 tells the object's own only when asked."""
    date = header(answer, "date")
    when = parsedate_to_datetime(date).timestamp() if date else time.time()
    return Stat(unquoted(answer["ETag"]), size, int(when) * 10**9, writes)
