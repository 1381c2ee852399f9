"""A small client of the socket, for `ls` and `cat`: it speaks like any other."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import quote

from asya_contract.wire import H_PROTOCOL, KEYS, PROTOCOL, decode_key, encode_key

TIMEOUT = 30.0
_PIECE = 1 << 18


class ClientError(Exception):
    """The proxy refused or could not be reached; the message says why."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("asya", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One mount, by its socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def names(self, directory: bytes = b"") -> Iterator[tuple[bytes, int | None]]:
        """Names below `directory` (ends with `/`, or empty), each with its size, None for empty directories."""
        after: str | None = ""
        while after is not None:
            query = f"?detail=1&prefix={encode_key(directory)}&after={quote(after, safe='/%')}"
            answer = json.loads(b"".join(self._get(KEYS + query)))
            if not answer["exists"]:
                raise ClientError(f"no such directory: {_shown(directory)}")
            names = [(decode_key(e["key"]), e["size"]) for e in answer["keys"]]
            names.extend((decode_key(name), None) for name in answer["prefixes"])
            yield from sorted(names, key=lambda name: name[0])
            after = answer.get("next")

    def content(self, key: bytes) -> Iterator[bytes]:
        """The bytes of a file, piece by piece."""
        return self._get(KEYS + encode_key(key))

    def size(self, key: bytes) -> int | None:
        """Bytes of a file; None where there is no such file."""
        connection = self._ask("HEAD", KEYS + encode_key(key))
        try:
            answer = connection.getresponse()
            if answer.status == 200 and answer.headers.get("X-Is-File") == "true":
                return int(answer.headers["Content-Length"])
            return None
        finally:
            connection.close()

    def _get(self, target: str) -> Iterator[bytes]:
        connection = self._ask("GET", target)
        try:
            answer = connection.getresponse()
            if answer.status != 200:
                raise ClientError(_message(answer.read()))
            while piece := answer.read(_PIECE):
                yield piece
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"{self._path}: {error}") from error
        finally:
            connection.close()

    def _ask(self, method: str, target: str) -> http.client.HTTPConnection:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, target, headers={H_PROTOCOL: PROTOCOL})
        except OSError as error:
            raise ClientError(f"no proxy answers on {self._path}: {error.strerror}; set STATE_SOCKET") from error
        return connection


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:200]


def _shown(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
