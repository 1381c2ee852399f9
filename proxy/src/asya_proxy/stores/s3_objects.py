"""The requests that nearly every operation is made of: GET, PUT and DELETE of one object, without the SDK around them.

Where an object lies, the credentials, the signature, the checksums and the words of a refusal are still the SDK's
(`s3_client`); what is saved are its parameter validation, endpoint rules, events and threads, three quarters of a
small request's processor time. Failures are the SDK's exceptions and `http_link.ERRORS`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial
from urllib.parse import quote

from botocore import httpchecksum

from asya_proxy.errors import Unavailable
from asya_proxy.stores import s3_client
from asya_proxy.stores.http_link import ERRORS, Answer, HttpLink
from asya_proxy.stores.s3_client import ObjectPlace
from asya_proxy.stores.threads import Pool

READ_TRIES = 3
"""How often a read is sent."""
PAUSE = 0.02

_PREFIX = "x-amz-checksum-"
_ALGORITHMS: Mapping[str, Callable[[], httpchecksum.BaseChecksum]] = {
    "crc32": httpchecksum.Crc32Checksum,
    "sha1": httpchecksum.Sha1Checksum,
    "sha256": httpchecksum.Sha256Checksum,
}


class Objects:
    """`threads` is where credentials are fetched."""

    def __init__(self, place: ObjectPlace, link: HttpLink, threads: Pool) -> None:
        self._place = place
        self._link = link
        self._threads = threads

    async def close(self) -> None:
        await self._link.close()

    async def get(self, name: str, headers: Mapping[str, str]) -> Answer:
        """200 or 206; sent again where there was no answer, or one of 5xx."""
        headers = {**self._place.read_headers, **headers}
        for left in reversed(range(READ_TRIES)):
            try:
                answer = await self._send("GET", name, headers)
                if answer.status == 200:  # of a range there is none
                    _verify(answer)
                return answer
            except s3_client.SDK_ERRORS as error:
                if not left or (not isinstance(error, ERRORS) and s3_client.status_of(error) < 500):
                    raise
            await asyncio.sleep(random.uniform(0, PAUSE))  # noqa: S311
        raise AssertionError("the last try returns or raises")

    async def put(self, name: str, data: bytes, headers: Mapping[str, str]) -> Answer:
        """Small content: all of it is hashed and sent at once."""
        headers = {**self._place.write_headers, **headers}
        if self._place.checksums:
            headers[s3_client.CHECKSUM] = httpchecksum.Crc32Checksum().handle(data)
        answer = await self._send("PUT", name, headers, data)
        if "ETag" not in answer.headers:
            raise OSError("the answer to a PUT names no ETag")
        return answer

    async def delete(self, name: str, headers: Mapping[str, str]) -> None:
        await self._send("DELETE", name, {**self._place.write_headers, **headers})

    async def _send(self, method: str, name: str, headers: Mapping[str, str], data: bytes = b"") -> Answer:
        place = self._place
        url = place.base + quote(name, safe="/~")
        sign = partial(place.sign, method, url, headers, data)
        signed = await self._threads.run(sign) if place.credentials_are_old() else sign()
        answer = await self._link.send(method, url, signed, data)
        if answer.status >= 300:
            answer.close()
            raise s3_client.refusal(method, answer.status, answer.headers, answer.data)
        return answer


def _verify(answer: Answer) -> None:
    """Compare the content with its checksum, if there is one, as it is read. Raises Unavailable where they differ."""
    for algorithm, make in _ALGORITHMS.items():
        wanted = answer.headers.get(_PREFIX + algorithm, "-")
        if "-" not in wanted:  # else it is that of a multipart upload, made of its parts' checksums
            check = partial(_compare, make(), wanted)
            if answer.stream is None:
                check(answer.data, True)
            else:
                answer.stream.check = check
            return


def _compare(checksum: httpchecksum.BaseChecksum, wanted: str, piece: bytes, last: bool) -> None:
    checksum.update(piece)
    if last and checksum.b64digest() != wanted:
        raise Unavailable("s3: the content does not match its checksum", ambiguous=False)
