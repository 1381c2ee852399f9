"""A client of the proxy's socket for tests: one connection, raw bytes in and parsed answers out."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from asya_contract.wire import H_WRITE_ID

TIMEOUT = 10.0


@dataclass(frozen=True)
class Reply:
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers["etag"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"])


class WireClient:
    """`ask` builds a request; `send` and `reply` are its halves, for everything irregular."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: str) -> Self:
        return cls(*await asyncio.open_unix_connection(path, limit=1 << 20))

    async def close(self) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def end(self) -> None:
        """Close the sending side."""
        self._writer.write_eof()

    async def reply(self, method: str = "GET") -> Reply:
        async with asyncio.timeout(TIMEOUT):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            status = int(first.split(" ")[1])
            if status == 100:
                return await self.reply(method)
            bodyless = method == "HEAD" or status in (204, 304)
            body = b"" if bodyless else await self._reader.readexactly(int(headers["content-length"]))
            return Reply(status, headers, body)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(TIMEOUT):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def ask(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request with these headers and, for changes, a fresh write id."""
        all_headers = {"Host": "test", **(headers or {})}
        if method in ("PUT", "PATCH", "DELETE", "POST"):
            all_headers.setdefault(H_WRITE_ID, secrets.token_urlsafe(16))
        if body is not None:
            all_headers["Content-Length"] = str(len(body))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in all_headers.items()) + "\r\n"
        await self.send(head.encode("latin-1") + (body or b""))
        return await self.reply(method)

    async def get(self, key: str, **headers: str) -> Reply:
        return await self.ask("GET", f"/keys/{key}", headers=_spelled(headers))

    async def head(self, key: str, **headers: str) -> Reply:
        return await self.ask("HEAD", f"/keys/{key}", headers=_spelled(headers))

    async def put(self, key: str, body: bytes = b"", **headers: str) -> Reply:
        return await self.ask("PUT", f"/keys/{key}", body, _spelled(headers))

    async def append(self, key: str, body: bytes, **headers: str) -> Reply:
        return await self.ask("PATCH", f"/keys/{key}", body, _spelled(headers))

    async def delete(self, key: str, **headers: str) -> Reply:
        return await self.ask("DELETE", f"/keys/{key}", headers=_spelled(headers))

    async def rename(self, key: str, to: str, **headers: str) -> Reply:
        return await self.ask("POST", f"/keys/{key}?rename_to={to}", headers=_spelled(headers))

    async def list(self, query: str = "") -> Any:
        reply = await self.ask("GET", f"/keys/?{query}")
        assert reply.status == 200, reply
        return reply.json


def _spelled(headers: Mapping[str, str]) -> dict[str, str]:
    """`if_match` is If-Match."""
    return {"-".join(part.capitalize() for part in name.split("_")): value for name, value in headers.items()}
