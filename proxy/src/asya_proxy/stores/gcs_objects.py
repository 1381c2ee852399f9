"""The requests that nearly every operation is made of: GET, upload and DELETE of one small object, without the library.

Reads are the XML API's: one request brings content, generation and metadata, and its errors tell an absent object
from an absent bucket, which those of the JSON API do not. Changes are the JSON API's, as the library makes them. Tokens
are still the library's. Failures are `gcs_client.SDK_ERRORS`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import google_crc32c

from asya_proxy.stores import gcs_client
from asya_proxy.stores.http_link import Answer, HttpLink
from asya_proxy.stores.threads import Pool

SMALL = 512 << 10
"""Bytes of content that go up in one piece from the event loop."""
TYPE = "application/octet-stream"
_AGENT = {"User-Agent": "asya-state-proxy"}


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of `bucket` at `endpoint`, asked for with the token that `session` has; `fetch` fetches one where
    that has just ended."""

    link: HttpLink
    endpoint: str
    bucket: str
    session: Any
    """The library's, whose methods have no types."""
    threads: Pool
    fetch: gcs_client.Fetch

    async def get(self, name: str, headers: Mapping[str, str]) -> Answer:
        """200 or 206."""
        url = f"{self.endpoint}/{quote(self.bucket, safe='')}/{quote(name, safe='/~')}"
        # Without gzip in it, GCS would decompress what others stored compressed.
        return await self._send("GET", url, {"Accept-Encoding": "gzip", **headers})

    async def upload(
        self, name: str, data: bytes, metadata: Mapping[str, str], generation: int | None
    ) -> dict[str, Any]:
        """The object resource of what was written. `generation` is what must be there: 0 nothing, None anything."""
        url = f"{self.endpoint}/upload/storage/v1/b/{quote(self.bucket, safe='')}/o?uploadType=multipart"
        if generation is not None:
            url += f"&ifGenerationMatch={generation}"
        boundary = secrets.token_hex(16)
        resource = {"name": name, "contentType": TYPE, "metadata": dict(metadata), **_checksum(data)}
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(resource)}\r\n"
            f"--{boundary}\r\nContent-Type: {TYPE}\r\n\r\n"
        )
        body = b"".join((head.encode(), data, f"\r\n--{boundary}--".encode()))
        headers = {"Content-Type": f"multipart/related; boundary={boundary}"}
        found: dict[str, Any] = json.loads((await self._send("POST", url, headers, body)).data)
        return found

    async def delete(self, name: str, generation: int | None) -> None:
        url = f"{self.endpoint}/storage/v1/b/{quote(self.bucket, safe='')}/o/{quote(name, safe='')}"
        if generation is not None:
            url += f"?ifGenerationMatch={generation}"
        await self._send("DELETE", url, {})

    async def _send(self, method: str, url: str, headers: Mapping[str, str], data: bytes = b"") -> Answer:
        sent = {**_AGENT, **headers}
        credentials = self.session.credentials

        def authorise() -> None:
            credentials.before_request(self.fetch, method, url, sent)

        if credentials.valid:  # else a token is fetched first, which blocks
            authorise()
        else:
            await self.threads.run(authorise)
        answer = await self.link.send(method, url, sent, data)
        if answer.status >= 300:
            answer.close()
            raise gcs_client.refusal(answer.status, answer.data)
        return answer


def _checksum(data: bytes) -> dict[str, str]:
    """The field of the object resource with which the backend compares what arrives, as the library chooses it."""
    if google_crc32c.implementation == "c":
        return {"crc32c": base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()}
    return {"md5Hash": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}
