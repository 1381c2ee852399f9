"""State files in Google Cloud Storage.

A state file is an object with exactly its bytes; the version is the generation, which no two writes share; the
history of writes and the attributes lie in the object's metadata. A change of metadata alone would not move the
generation, so attributes are replaced by rewriting the object onto itself, inside the backend and on a condition.

Rules of the conditions: cloud.google.com/storage/docs/request-preconditions. One object takes about one write a
second (quotas page); beyond it the backend answers 429, which is `Busy` here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from google.cloud.storage import Blob

from asya_proxy.errors import Conflict, KeyNotFound, PermissionDenied, RangeInvalid, TooLarge, Unavailable
from asya_proxy.stores import history, http_link, object_keys
from asya_proxy.stores.base import (
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
    match,
)
from asya_proxy.stores.gcs_calls import GcsCalls, generation_of
from asya_proxy.stores.gcs_objects import SMALL
from asya_proxy.stores.gcs_resumable import PART, Resumable
from asya_proxy.stores.http_link import Answer
from asya_proxy.stores.spool import chained, parts

MAX_SIZE = 5 << 40
"""Bytes of one object (quotas page)."""

ATTRIBUTES = "asyaattrs"
"""The metadata field of the attributes, a JSON object."""
MTIME = "asyamtime"
"""The metadata field of the time of the last write, in nanoseconds, where the object is younger than its content."""
ATTRIBUTES_LIMIT = 6 << 10
"""Bytes of attributes; GCS allows 8 KiB of metadata in all."""

_PAGE = 1000
_FIELDS = f"nextPageToken,prefixes,items(name,generation,size,timeCreated,metadata/{MTIME})"


class GcsStore(BaseStore):
    traits = Traits(copy=True, attributes=True, max_size=MAX_SIZE)

    def __init__(self, config: StoreConfig) -> None:
        self._timeout = config.attempt_timeout
        self._prefix = config.prefix
        self._calls = GcsCalls(config)
        self._uploads = Resumable(self._calls)

    async def connect(self) -> None:
        await self._calls.connect()
        await self.ping()

    async def close(self) -> None:
        await self._uploads.close(self._timeout)
        await self._calls.close()

    async def ping(self) -> None:
        """A listing of one name. Raises KeyNotFound without a bucket."""
        try:
            await self._calls.change("list", partial(self._listing, self._prefix, "", False, 1))
        except KeyNotFound as error:
            raise KeyNotFound(
                f"bucket {self._calls.bucket!r} does not exist: create it, or correct `bucket` (STATE_BUCKET)"
            ) from error
        except Unavailable as error:
            error.ambiguous = False
            raise

    # Reading

    async def head(self, key: bytes) -> Stat | None:
        # A GET of one byte, not a HEAD: only an answer with a body tells what is absent, object or bucket.
        name = self._name(key)
        try:
            return _looked(await self._calls.get("head", name, {"Range": "bytes=0-0"}))
        except KeyNotFound:
            return None
        except PermissionDenied as refusal:
            await self._hidden(name, refusal)
            return None
        except RangeInvalid:
            pass
        try:  # empty, so that it has no first byte
            return _looked(await self._calls.get("head", name, {}))
        except KeyNotFound:
            return None

    async def _hidden(self, name: str, refusal: PermissionDenied) -> None:
        """Return where `refusal` hides an absent object: GCS says 403 for it to those who may list only below a prefix.
        Raises `refusal` where the object is there, or cannot be looked for."""
        try:
            found, _ = await self._calls.read("list", partial(self._listing, name, "", False, 1))
        except PermissionDenied:
            raise refusal from None
        if any(item.object_name == name for item in found):
            raise refusal

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
            headers["x-goog-if-generation-match"] = str(generation_of(match(version), self._calls.where("get")))
        try:
            answer = await self._calls.get("get", self._name(key), headers)
        except KeyNotFound:
            return None
        except PermissionDenied as refusal:
            await self._hidden(self._name(key), refusal)
            return None
        stat = _stat(answer)
        if answer.status == http_link.WHOLE and answer.length != stat.size:
            answer.close()
            raise Unavailable(f"{self._calls.where('get')}: the content was transcoded on its way", ambiguous=False)
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
        start_name = self._prefix + object_keys.encode(start) if start > prefix else ""
        # A directory was the last name: go on behind everything in it, which is where a `0` would stand.
        begin = start_name[:-1] + "0" if delimiter and start_name.endswith("/") else start_name
        look = partial(self._listing, self._prefix + object_keys.settled(prefix), begin, delimiter, limit)
        found, more = await self._calls.read("list", look)
        wanted = [item for item in found if item.name.startswith(prefix) and item.object_name != start_name]
        ordered = object_keys.order(wanted[:limit], more=more or len(wanted) > limit)
        return Page(
            entries=[item.entry for item in ordered if item.entry is not None],
            prefixes=[item.name for item in ordered if item.entry is None],
            more=more or len(ordered) < len(wanted),
        )

    def _listing(self, prefix: str, begin: str, delimiter: bool, limit: int) -> tuple[_Names, bool]:
        """At least `limit + 1` names from `begin` on, or all, in the order of object names; whether there are more."""
        names = self._calls.link.client.list_blobs(
            self._calls.bucket,
            prefix=prefix,
            delimiter="/" if delimiter else None,
            start_offset=begin or None,
            page_size=min(_PAGE, limit + 1),
            fields=_FIELDS,
            timeout=self._calls.timeout,
            retry=None,
        )
        found: _Names = []
        for page in names.pages:
            found += _listed(page, len(self._prefix))
            if len(found) > limit:
                break
        return sorted(found, key=lambda item: item.object_name), names.next_page_token is not None

    # Changing

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        if body.size is not None and body.size > MAX_SIZE:
            raise TooLarge(f"{self._calls.where('put')}: {body.size} bytes; GCS takes {MAX_SIZE}")
        fields = _metadata(history.of_change(change), change.attrs)
        if body.data is not None and len(body.data) <= SMALL:
            return await self._put_small(self._name(key), body.data, fields, change.when)
        blob = self._blob(key, fields)
        if body.data is not None and len(body.data) <= PART:
            return await self._put_whole(blob, body.data, change.when)
        async with aclosing(parts(body, lambda number: PART)) as cut:
            first = [await anext(cut)]
            if first[0].last:
                return await self._put_whole(blob, bytes(first[0].data), change.when)
            try:
                return _of_resource(await self._uploads.put(blob, chained(first, cut), change.when))
            except KeyNotFound as error:
                raise _bucket_is_gone(error) from error

    async def _put_small(self, name: str, data: bytes, fields: Mapping[str, str], when: Precondition) -> Stat:
        try:
            return _of_resource(await self._calls.upload(name, data, fields, when))
        except KeyNotFound as error:
            raise _bucket_is_gone(error) from error

    async def _put_whole(self, blob: Blob, data: bytes, when: Precondition) -> Stat:
        send = partial(
            blob.upload_from_string,
            data,
            content_type="application/octet-stream",
            if_generation_match=generation_of(when, self._calls.where("put")),
            timeout=self._calls.timeout,
            retry=None,
        )
        try:
            await self._calls.change("put", send, when=when, pool=self._calls.large)
        except KeyNotFound as error:
            raise _bucket_is_gone(error) from error
        return _of_resource(blob._properties)

    async def delete(self, key: bytes, change: Change) -> None:
        try:
            await self._calls.delete(self._name(key), change.when)
        except KeyNotFound:
            await self._bucket_is_there()
            if change.when.any:
                raise
            raise Conflict(f"{self._calls.where('delete')}: it is not at version {change.when.version}") from None

    async def copy(self, source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        where = self._calls.where("copy")
        stat = await self.head(source)
        if stat is None:
            raise KeyNotFound(f"{where}: there is no source")
        if when_source.version not in (None, stat.version):
            raise Conflict(f"{where}: the source is not at version {when_source.version}")
        blob = self._blob(target, _metadata(history.of_change(change), change.attrs or stat.attrs))
        try:
            await self._rewrite(self._blob(source), stat, blob, change.when)
        except (Conflict, KeyNotFound) as lost:
            # One refusal stands for both conditions: look which of them did not hold.
            current = await self.head(source)
            if when_source.any and (current is None or current.version != stat.version):
                raise Unavailable(f"{where}: the source was written meanwhile", ambiguous=False) from lost
            if isinstance(lost, KeyNotFound):
                raise Conflict(f"{where}: the source is gone") from lost
            raise
        return _of_resource(blob._properties)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], change: Change) -> Stat:
        where = self._calls.where("attributes")
        stat = await self.head(key)
        if stat is None and change.when.any:
            raise KeyNotFound(where)
        if stat is None or change.when.version not in (None, stat.version):
            raise Conflict(f"{where}: it is not at version {change.when.version}")
        writes = history.of_change(change, stat.version)
        blob = self._blob(key, _metadata(writes, attrs, stat.mtime_ns))
        try:
            await self._rewrite(self._blob(key), stat, blob, match(stat.version))
        except (Conflict, KeyNotFound) as lost:
            if change.when.any:
                raise Unavailable(f"{where}: it was written meanwhile", ambiguous=False) from lost
            raise Conflict(f"{where}: it is not at version {change.when.version}") from lost
        return _of_resource(blob._properties)

    async def _rewrite(self, source: Blob, stat: Stat, target: Blob, when: Precondition) -> None:
        """Copy inside the backend. Large objects take several calls, of which the last makes the target."""
        condition = generation_of(when, self._calls.where("copy"))
        token: str | None = None
        while True:
            step = partial(
                target.rewrite,
                source,
                token=token,
                if_generation_match=condition,
                if_source_generation_match=int(stat.version),
                timeout=self._calls.slow_timeout,
                retry=None,
            )
            token, _, _ = await self._calls.change("copy", step, when=when, pool=self._calls.large)
            if token is None:
                return

    async def _bucket_is_there(self) -> None:
        """Raises Unavailable unless it is: the 404 of a deletion does not tell object from bucket."""
        try:
            await self.ping()
        except KeyNotFound as error:
            raise Unavailable(str(error), ambiguous=False) from error

    def _name(self, key: bytes) -> str:
        return object_keys.object_name(self._prefix, key)

    def _blob(self, key: bytes, metadata: Mapping[str, str] | None = None) -> Blob:
        blob = self._calls.blob(self._name(key))
        if metadata is not None:
            blob.metadata = dict(metadata)
        return blob


class _Listed(NamedTuple):
    object_name: str
    name: bytes
    entry: Entry | None
    """None: a prefix."""


_Names = list[_Listed]


def _bucket_is_gone(error: KeyNotFound) -> Unavailable:
    """What 404 means to a write: an object need not be there."""
    return Unavailable(f"{error}: the bucket, or the session of the upload, is gone", ambiguous=False)


def _looked(answer: Answer) -> Stat:
    """The object of an answer whose content nobody wants."""
    answer.close()
    return _stat(answer)


def _listed(page: Any, cut: int) -> _Names:
    """Entries and prefixes of one page; the first `cut` characters of each name are the store's."""
    listed: _Names = []
    for blob in page:
        if key := object_keys.decode(blob.name[cut:]):
            stat = _of_resource(blob._properties)
            listed.append(_Listed(blob.name, key, Entry(key, stat.version, stat.size, stat.mtime_ns)))
    for name in page.prefixes:
        if key := object_keys.decode(name[cut:]):
            listed.append(_Listed(name, key, None))
    return listed


def _metadata(writes: tuple[Past, ...], attrs: Mapping[str, str], mtime_ns: int | None = None) -> dict[str, str]:
    """Raises TooLarge where the attributes do not fit."""
    fields = {history.FIELD: history.encode(writes)}
    if attrs:
        fields[ATTRIBUTES] = json.dumps(dict(attrs), separators=(",", ":"))
        if len(fields[ATTRIBUTES]) > ATTRIBUTES_LIMIT:
            raise TooLarge(f"attributes of {len(fields[ATTRIBUTES])} bytes; GCS has room for {ATTRIBUTES_LIMIT}")
    if mtime_ns is not None:
        fields[MTIME] = str(mtime_ns)
    return fields


def _stat_of(version: str, size: int, made: float, fields: Mapping[str, str]) -> Stat:
    mtime, attrs = fields.get(MTIME, ""), fields.get(ATTRIBUTES, "")
    return Stat(
        version=version,
        size=size,
        mtime_ns=int(mtime) if mtime.isdigit() else int(made) * 10**9,
        history=history.decode(fields.get(history.FIELD, "")),
        attrs=_attributes(attrs),
    )


def _attributes(text: str) -> dict[str, str]:
    """Empty where the field is absent or not ours."""
    try:
        return {str(name): str(value) for name, value in json.loads(text).items()} if text else {}
    except (ValueError, AttributeError):
        return {}


def _stat(answer: Answer) -> Stat:
    """The object of an answer of the XML API, ranged or not."""
    headers = answer.headers
    total = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("x-goog-stored-content-length")
    prefix = "x-goog-meta-"
    fields = {name.lower()[len(prefix) :]: value for name, value in headers.items() if name.lower().startswith(prefix)}
    made = _seconds(headers["Last-Modified"])
    return _stat_of(headers["x-goog-generation"], int(total or answer.length), made, fields)


@lru_cache(maxsize=256)
def _seconds(date: str) -> float:
    """Of the Unix epoch."""
    return parsedate_to_datetime(date).timestamp()


def _of_resource(resource: Mapping[str, Any]) -> Stat:
    """The object of an answer of the JSON API."""
    made = datetime.fromisoformat(resource["timeCreated"]).timestamp()
    return _stat_of(str(resource["generation"]), int(resource["size"]), made, resource.get("metadata", {}))
