"""Uploads in several requests, by hand: the library pulls from a blocking file, and the bytes come from the loop.

The precondition travels with the session and is enforced when the last part arrives; until then nothing is
visible, and parts whose answer was lost are sent again from where the session stands
(cloud.google.com/storage/docs/resumable-uploads).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests
from google.cloud.storage import Blob

from asya_proxy.errors import Unavailable
from asya_proxy.stores import gcs_client
from asya_proxy.stores.base import Precondition
from asya_proxy.stores.gcs_calls import GcsCalls, generation_of
from asya_proxy.stores.spool import Part

log = logging.getLogger(__name__)

PART = 8 << 20
"""Bytes from which on a file goes up in parts, and of each; a multiple of 256 KiB."""
UPLOADS = 8
"""Uploads at once; each has a part in memory, and for a moment another one."""
TRIES = 3
"""How often one part is sent."""
PAUSE = 0.1


@dataclass
class _Session:
    url: str
    name: str
    sealed: bool = False
    """Its last part was sent: from here on the outcome may be unknown."""


class Resumable:
    """The resumable uploads of one store."""

    def __init__(self, calls: GcsCalls) -> None:
        self._calls = calls
        self._slots = asyncio.Semaphore(UPLOADS)
        self._ends: set[asyncio.Task[None]] = set()

    async def close(self, timeout: float) -> None:
        """Let cancellations under way end."""
        if self._ends:
            await asyncio.wait(self._ends, timeout=timeout)

    async def put(self, blob: Blob, content: AsyncIterator[Part], when: Precondition) -> Mapping[str, Any]:
        """Upload `content` as `blob`, which has its metadata: the object resource of what was written."""
        calls = self._calls
        begin = partial(
            blob.create_resumable_upload_session,
            content_type="application/octet-stream",
            timeout=calls.timeout,
            checksum=None,
            retry=None,
            if_generation_match=generation_of(when, calls.where("put")),
        )
        async with self._slots:
            session = _Session(await calls.change("begin upload", begin, when=when), blob.name)
            try:
                async for part in content:
                    if part.last:
                        return await self._finish(session, part, when)
                    await self._send(session, part)
                    part.release()
                    del part
                raise AssertionError("content ends with a last part")
            except BaseException as error:
                self._clean_up(session, error)
                raise

    async def _finish(self, session: _Session, part: Part, when: Precondition) -> Mapping[str, Any]:
        """The part that makes the object, never empty: sent once, its answer is the change's."""
        end = part.offset + len(part.data)
        send = partial(self._put, session.url, part.data, f"bytes {part.offset}-{end - 1}/{end}")
        session.sealed = True
        answer = await self._calls.change("finish upload", send, when=when, pool=self._calls.large)
        if answer.status_code == 308:
            raise Unavailable(f"{self._calls.where('put')}: the upload session lost bytes", ambiguous=False)
        resource: Mapping[str, Any] = json.loads(answer.content)
        return resource

    async def _send(self, session: _Session, part: Part) -> None:
        """A part that is not the last, again from where the session stands after an answer that was lost."""
        end, start = part.offset + len(part.data), part.offset
        failure: Unavailable | None = None
        for attempt in range(TRIES):
            if failure is not None:
                await asyncio.sleep(PAUSE * 2**attempt)
            try:
                if failure is not None:
                    start = await self._persisted(session)
                if not part.offset <= start < end:
                    break
                rest = part.data if start == part.offset else part.data[start - part.offset :]
                send = partial(self._put, session.url, rest, f"bytes {start}-{end - 1}/*")
                start = _persisted(await self._calls.read("upload part", send, pool=self._calls.large))
                if start == end:
                    return
                failure = Unavailable(f"{self._calls.where('put')}: a part was taken in pieces", ambiguous=False)
            except Unavailable as unavailable:
                failure = unavailable
        if start != end:
            raise failure or Unavailable(f"{self._calls.where('put')}: the session stands at {start}", ambiguous=False)

    async def _persisted(self, session: _Session) -> int:
        ask = partial(self._put, session.url, b"", "bytes */*")
        return _persisted(await self._calls.read("look at upload", ask, pool=self._calls.large))

    def _put(self, url: str, data: bytes | bytearray, span: str) -> requests.Response:
        answer = self._calls.link.session.put(
            url, data=data, headers={"Content-Range": span}, timeout=self._calls.slow_timeout, allow_redirects=False
        )
        if answer.status_code not in (200, 201, 308):
            raise gcs_client.refusal_of(answer)
        return answer

    def _clean_up(self, session: _Session, error: BaseException) -> None:
        lost = isinstance(error, asyncio.CancelledError) or (isinstance(error, Unavailable) and error.ambiguous)
        if session.sealed and lost:  # it may still be made; an abandoned session ends by itself in a week
            log.warning("no answer to the last part of an upload", extra={"object": session.name})
            return
        task = asyncio.get_running_loop().create_task(self._cancel(session))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _cancel(self, session: _Session) -> None:
        def cancel() -> None:
            self._calls.link.session.delete(session.url, timeout=self._calls.timeout).close()

        try:
            await self._calls.read("cancel upload", cancel)
        except Exception as error:
            log.warning("an upload could not be cancelled", extra={"object": session.name, "cause": str(error)})


def _persisted(answer: requests.Response) -> int:
    """How many bytes the session has, from the `Range` of a 308."""
    last = answer.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last else 0
