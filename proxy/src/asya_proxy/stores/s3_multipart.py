"""Multipart uploads by hand: the SDK's own transfer manager cannot carry a condition.

Parts are invisible until completion, which alone is conditional; whatever fails before it is aborted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from asya_proxy.errors import Conflict, KeyNotFound, Unavailable
from asya_proxy.stores.base import Precondition
from asya_proxy.stores.s3_calls import S3Calls, conditions, quoted
from asya_proxy.stores.spool import Part

log = logging.getLogger(__name__)

PART = 8 << 20
LATER_PART = 16 << 20
MAX_SIZE = 1000 * PART + 9000 * LATER_PART
"""Bytes that ten thousand parts hold (the limit of S3); 148 GiB."""

IN_FLIGHT = 3
"""Parts of all uploads of a store that are on their way at once."""
UPLOADS = 8
"""Uploads at once; each may have one part in memory that is not on its way."""
COPY_PART = 256 << 20

Job = Callable[[], Awaitable[None]]


def part_size(number: int) -> int:
    return PART if number <= 1000 else LATER_PART


class SourceMoved(Conflict):
    """The source of a copy is no longer at its version."""


class Origin(NamedTuple):
    """The source of a copy inside the backend."""

    name: str
    version: str
    size: int


@dataclass
class _Upload:
    name: str
    id: str
    tags: dict[int, str] = field(default_factory=dict)
    sealed: bool = False
    """Completion was asked for: from here on the outcome may be unknown."""


class Multipart:
    """The multipart uploads of one store."""

    def __init__(self, calls: S3Calls) -> None:
        self._calls = calls
        self._part_slots = asyncio.Semaphore(IN_FLIGHT)
        self._upload_slots = asyncio.Semaphore(UPLOADS)
        self._aborts: set[asyncio.Task[None]] = set()

    async def close(self, timeout: float) -> None:
        """Let aborts under way end."""
        if self._aborts:
            await asyncio.wait(self._aborts, timeout=timeout)

    async def put(
        self, name: str, content: AsyncIterator[Part], metadata: Mapping[str, str], when: Precondition
    ) -> tuple[Mapping[str, Any], int]:
        """Upload the parts and complete under `when`: the completion's answer, and the size."""
        size = 0

        async def jobs(upload: _Upload) -> AsyncIterator[Job]:
            nonlocal size
            async for part in content:
                size = part.offset + len(part.data)
                yield partial(self._send, upload, part)
                del part

        answer = await self._run(name, metadata, when, jobs)
        return answer, size

    async def copy(
        self,
        origin: Origin,
        name: str,
        metadata: Mapping[str, str],
        when: Precondition,
        tail: Part | None = None,
    ) -> Mapping[str, Any]:
        """Make `name` from `origin`, and from `tail` behind it, inside the backend. Raises SourceMoved, and what
        `when` demands."""

        async def jobs(upload: _Upload) -> AsyncIterator[Job]:
            number = 0
            for start in range(0, origin.size, COPY_PART):
                number += 1
                yield partial(self._copy, upload, number, origin, start)
            if tail is not None:
                yield partial(self._send, upload, tail._replace(number=number + 1))

        return await self._run(name, metadata, when, jobs)

    async def _run(
        self,
        name: str,
        metadata: Mapping[str, str],
        when: Precondition,
        jobs: Callable[[_Upload], AsyncIterator[Job]],
    ) -> Mapping[str, Any]:
        calls = self._calls
        async with self._upload_slots:
            begin = partial(
                calls.sdk.reads.create_multipart_upload, Bucket=calls.bucket, Key=name, Metadata=dict(metadata)
            )
            upload = _Upload(name, (await calls.read("begin upload", begin))["UploadId"])
            try:
                await self._fill(jobs(upload))
                return await self._complete(upload, when)
            except BaseException as error:
                self._clean_up(upload, error)
                raise

    async def _fill(self, jobs: AsyncIterator[Job]) -> None:
        """Run the jobs, as many at once as there are slots; the next is made only when there is one for it."""
        try:
            async with asyncio.TaskGroup() as group:
                async for job in jobs:
                    await self._part_slots.acquire()
                    task = group.create_task(_run_job(job))
                    task.add_done_callback(lambda _: self._part_slots.release())
                    del job
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _send(self, upload: _Upload, part: Part) -> None:
        calls = self._calls
        data: Any = part.data  # any buffer will do
        send = partial(
            calls.sdk.reads.upload_part,
            Bucket=calls.bucket,
            Key=upload.name,
            UploadId=upload.id,
            PartNumber=part.number,
            Body=data,
        )
        upload.tags[part.number] = (await calls.read("upload part", send, pool=calls.large))["ETag"]
        part.release()

    async def _copy(self, upload: _Upload, number: int, origin: Origin, start: int) -> None:
        calls = self._calls
        end = min(origin.size, start + COPY_PART)
        send = partial(
            calls.sdk.slow.upload_part_copy,
            Bucket=calls.bucket,
            Key=upload.name,
            UploadId=upload.id,
            PartNumber=number,
            CopySource={"Bucket": calls.bucket, "Key": origin.name},
            CopySourceIfMatch=quoted(origin.version),
            CopySourceRange=f"bytes={start}-{end - 1}",
        )
        try:
            answer = await calls.read("copy part", send, pool=calls.large)
        except (Conflict, KeyNotFound) as error:
            raise SourceMoved(str(error)) from error
        upload.tags[number] = answer["CopyPartResult"]["ETag"]

    async def _complete(self, upload: _Upload, when: Precondition) -> Mapping[str, Any]:
        calls = self._calls
        finish = partial(
            calls.sdk.slow.complete_multipart_upload,
            Bucket=calls.bucket,
            Key=upload.name,
            UploadId=upload.id,
            MultipartUpload={"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in sorted(upload.tags.items())]},
            **conditions(when),
        )
        upload.sealed = True
        answer: Mapping[str, Any] = await calls.change("complete upload", finish, when=when, pool=calls.large)
        return answer

    def _clean_up(self, upload: _Upload, error: BaseException) -> None:
        lost = isinstance(error, asyncio.CancelledError) or (isinstance(error, Unavailable) and error.ambiguous)
        if upload.sealed and lost:  # it may still be completed; its parts are the bucket's lifecycle rule's
            log.warning("no answer to the completion of an upload", extra={"object": upload.name, "upload": upload.id})
            return
        task = asyncio.get_running_loop().create_task(self._abort(upload))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _abort(self, upload: _Upload) -> None:
        calls = self._calls
        abort = partial(
            calls.sdk.reads.abort_multipart_upload, Bucket=calls.bucket, Key=upload.name, UploadId=upload.id
        )
        try:
            await calls.read("abort upload", abort)
        except Exception as error:
            where = {"object": upload.name, "upload": upload.id}
            log.warning("an upload could not be aborted", extra={**where, "cause": str(error)})


async def _run_job(job: Job) -> None:
    await job()
