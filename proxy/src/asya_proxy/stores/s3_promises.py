"""S3's promises, asked for in S3's own operations: what the self-test needs and no state file does.

Some servers keep the conditions of PutObject and ignore those of CompleteMultipartUpload or DeleteObject.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

from asya_proxy.errors import StoreError
from asya_proxy.stores.base import ABSENT, ANY, Precondition, match
from asya_proxy.stores.capabilities import Operations, accepted
from asya_proxy.stores.s3_calls import S3Calls, conditions, unquoted

log = logging.getLogger(__name__)

OPERATIONS = Operations(put="PutObject", delete="DeleteObject", complete="CompleteMultipartUpload")


class Upload:
    """A multipart upload of one part, not yet complete."""

    def __init__(self, calls: S3Calls, where: Mapping[str, Any], tag: str) -> None:
        self._calls = calls
        self._where = where
        self._parts: dict[str, Any] = {"MultipartUpload": {"Parts": [{"PartNumber": 1, "ETag": tag}]}}

    async def complete(self, when: Precondition) -> str:
        send = partial(
            self._calls.sdk.slow.complete_multipart_upload,
            **self._where,
            **self._parts,
            **conditions(when),
        )
        answer = await self._calls.change("complete upload", send, when=when, pool=self._calls.large)
        return unquoted(answer["ETag"])

    async def abort(self) -> None:
        send = partial(self._calls.sdk.reads.abort_multipart_upload, **self._where)
        try:
            await self._calls.read("abort upload", send)
        except StoreError as error:  # its parts are the bucket's lifecycle rule's
            log.warning("an upload could not be aborted", extra={"cause": str(error)})


async def prepare(calls: S3Calls, name: str, data: bytes) -> Upload:
    place: dict[str, Any] = {"Bucket": calls.bucket, "Key": name}
    begun = await calls.read("begin upload", partial(calls.sdk.reads.create_multipart_upload, **place))
    where = {**place, "UploadId": begun["UploadId"]}
    send = partial(calls.sdk.reads.upload_part, **where, PartNumber=1, Body=data)
    try:
        return Upload(calls, where, (await calls.read("upload part", send))["ETag"])
    except StoreError:
        await Upload(calls, where, "").abort()
        raise


async def keeps_promises(calls: S3Calls, name: str, passed: bytes, stale: str | None) -> bool:
    """`InParts.keeps_promises`. The content of each write is its own, and so is its ETag."""
    try:
        # Whatever is refused from here on is refused over an object that is there: a server that answers 404 for a
        # missing key may ignore conditions all the same.
        first = await _put(calls, name, secrets.token_bytes(16), ANY)
        current = await _by_completion(calls, name, first, match(stale or _unwritten_etag()))
        if current is None:
            return False
        for when in (ABSENT, match(first)):
            if await accepted(_put(calls, name, secrets.token_bytes(16), when)):
                return False
        if await accepted(_delete(calls, name, match(first))):
            return False
        await _put(calls, name, passed, match(current))
    except StoreError:  # the slower test says what it was
        return False
    return True


async def _by_completion(calls: S3Calls, name: str, first: str, wrong: Precondition) -> str | None:
    """The version of an object that a completion wrote over `first`, after it was refused to create it and to write
    over a `wrong` version; None where it was not."""
    upload = await prepare(calls, name, secrets.token_bytes(16))
    try:
        for when in (ABSENT, wrong):
            if await accepted(upload.complete(when)):
                return None
        return await upload.complete(match(first))
    except StoreError:
        await upload.abort()
        raise


def _unwritten_etag() -> str:
    """An ETag as of some content that nobody wrote."""
    return secrets.token_hex(16)


async def _put(calls: S3Calls, name: str, data: bytes, when: Precondition) -> str:
    return unquoted((await calls.put(name, data, {}, when)).headers["ETag"])


async def _delete(calls: S3Calls, name: str, when: Precondition) -> None:
    await calls.delete(name, when)
