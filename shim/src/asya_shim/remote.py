"""One mount as operations on state files: keys in, versions and exceptions out.

The room knows the wire protocol (targets, headers, error codes) and turns what goes wrong into the
exceptions of `errors`. It keeps no state of its own: tokens and turns are the callers'. Keys are
paths below the mount as bytes (`os.fsencode`), without a leading slash.
"""

from __future__ import annotations

import os

from asya_contract.wire import (
    H_ERROR,
    H_PROTOCOL,
    H_SOURCE_IF_MATCH,
    H_WRITE_ID,
    PROTOCOL,
    encode_key,
)
from asya_shim.answers import Content, Info, Listed, facts, info, known_body, moved_of, page_of, version_of
from asya_shim.caches import lru_cache
from asya_shim.client import Client, Unanswered, WrongPeer
from asya_shim.connection import Connection, Response, flat
from asya_shim.errors import from_wire
from asya_shim.uploads import Upload

__all__ = ["Content", "Info", "Listed", "Remote", "Upload", "new_write_id"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, NoReturn, Optional, Tuple, Union

    from asya_contract.env import Mount, ShimEnv
    from asya_shim.connection import Buffer
    from asya_shim.environment import Environment
    from asya_shim.environment import Mount as ShimMount

PAGE = 1000
"""Names asked for in one listing request."""

_TAIL = f" HTTP/1.1\r\nHost: asya\r\n{H_PROTOCOL}: {PROTOCOL}\r\n".encode()
_READ_TAIL = _TAIL + b"\r\n"
_WRITE_ID = f"{H_WRITE_ID}: ".encode()
_SOURCE_IF_MATCH = f"{H_SOURCE_IF_MATCH}: ".encode()
# What an answer without a body (to HEAD) means by its status alone.
_BY_STATUS = {
    400: "bad_request",
    403: "permission_denied",
    404: "key_not_found",
    409: "not_directory",
    412: "conflict",
    414: "name_too_long",
    416: "range",
    429: "busy",
    501: "unsupported",
    503: "unavailable",
    504: "timeout",
}
_PROTOCOL_NAME = H_PROTOCOL.lower().encode()
_ERROR = H_ERROR.lower().encode()


@lru_cache(1024)
def _target(key: bytes) -> bytes:
    return encode_key(key).encode("ascii")


@lru_cache(1024)
def _write_head(key: bytes) -> bytes:
    """Up to the write id."""
    return b"PUT /keys/" + encode_key(key).encode("ascii") + _TAIL + _WRITE_ID


@lru_cache(1024)
def _stat_head(key: bytes) -> bytes:
    return b"HEAD /keys/" + encode_key(key).encode("ascii") + _READ_TAIL


@lru_cache(1024)
def _read_head(key: bytes, start: int, end: Optional[int]) -> bytes:
    """Without the empty line."""
    head = b"GET /keys/" + encode_key(key).encode("ascii") + _TAIL
    if not start and end is None:
        return head
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"range {start}..{end}: expected 0 <= start < end")
    return head + b"Range: bytes=%d-%s\r\n" % (start, b"" if end is None else b"%d" % (end - 1))


def _quoted(version: str) -> bytes:
    return b'"' + version.encode("latin-1") + b'"\r\n'


def _condition(if_version: Optional[str], if_absent: bool) -> bytes:
    if if_version is not None:
        return b"If-Match: " + _quoted(if_version)
    return b"If-None-Match: *\r\n" if if_absent else b""


def _write_id(write_id: Optional[str] = None) -> bytes:
    return _WRITE_ID + (write_id or new_write_id()).encode("ascii") + b"\r\n"


def new_write_id() -> str:
    """A name for one change, made once by whoever wants it: 128 random bits."""
    return os.urandom(16).hex()


class Remote:
    """The state proxy's side of one mount. Safe for threads, signal handlers and forks.

    Every method raises the exceptions of `asya_shim.errors`, with the path below the mount as
    `filename`; StateUnavailableError only after `ASYA_STATE_REQUEST_TIMEOUT` without an answer.
    """

    def __init__(self, mount: Union[Mount, ShimMount], env: Union[ShimEnv, Environment]) -> None:
        self.mount = mount
        self._actor = env.actor
        self.client = Client(os.path.join(env.socket_dir, f"{mount.name}.sock"), env.request_timeout)

    @property
    def consistency(self) -> str:
        """`lww` or `cas`; "" until the first answer."""
        return self.client.consistency

    @property
    def backend(self) -> str:
        """The proxy's backend; "" until the first answer."""
        return self.client.backend

    def close(self) -> None:
        """Close idle connections; the next call opens new ones."""
        self.client.close()

    def stat(self, key: bytes) -> Optional[Info]:
        """What is at `key`; None only when the proxy says that nothing is."""
        try:
            response = self.client.request(_stat_head(key), bodyless=True)
        except (Unanswered, WrongPeer) as failure:
            self._unavailable(failure, key)
        if response.status == 200:
            return info(response.head)
        by_status = _BY_STATUS.get(response.status, "") if response.header(_PROTOCOL_NAME) else ""
        code, error = self._error(response, key, by_status=by_status)
        if code == "key_not_found":
            return None
        raise error

    def read(
        self, key: bytes, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> Optional[Content]:
        """Bytes `start` to `end` (exclusive; None: to the end) of `key`; None when the proxy says it is absent.

        Raises StateConflictError where `version` is given and no longer the current one, IsADirectoryError.
        """
        head = _read_head(key, start, end)
        if version is not None:
            head += b"If-Match: " + _quoted(version)
        try:
            response = self.client.request(head + b"\r\n")
        except (Unanswered, WrongPeer) as failure:
            self._unavailable(failure, key)
        if response.status == 206:
            found, mtime_ns, total = response.head.facts or facts(response.head)
            return Content(response.body, found, total, mtime_ns)
        if response.status == 200:
            found, mtime_ns, _ = facts(response.head)
            return Content(response.body, found, len(response.body), mtime_ns)
        if response.status == 416 and start == 0:
            # RFC 9110 section 14.1.1: no range can be satisfied in an empty file.
            return self.read(key, version=version)
        code, error = self._error(response, key)
        if code == "key_not_found":
            return None
        raise error

    def write(
        self,
        key: bytes,
        data: Buffer,
        *,
        if_version: Optional[str] = None,
        if_absent: bool = False,
        write_id: Optional[str] = None,
    ) -> str:
        """Replace the content of `key`, only over `if_version` or only where absent if asked; the new version.

        Raises StateConflictError, FileExistsError (`if_absent`).
        """
        if type(data) is not bytes and type(data) is not bytearray:
            data = flat(data)
        head = b"%b%b\r\n%bContent-Length: %d\r\n\r\n" % (
            _write_head(key),
            (write_id or new_write_id()).encode("ascii"),
            _condition(if_version, if_absent) if if_absent or if_version is not None else b"",
            len(data),
        )
        try:
            response = self.client.request(head, data, change=True)
        except (Unanswered, WrongPeer) as error:
            self._unavailable(error, key)
        if response.status // 100 == 2:
            return response.etag.decode("latin-1") or version_of(response)
        raise self._error(response, key)[1]

    def upload(self, key: bytes, *, if_version: Optional[str] = None, if_absent: bool = False) -> Upload:
        """Begin to replace the content of `key` by a stream of unknown length; nothing is stored before `finish`."""
        head = b"PUT /keys/" + _target(key) + _TAIL + _condition(if_version, if_absent) + _write_id()
        return Upload(self, key, head + b"Transfer-Encoding: chunked\r\n\r\n")

    def append(self, key: bytes, data: Buffer) -> Tuple[str, Optional[str]]:
        """Add `data` at the end, creating the file if need be: `(new version, version it was added to)`.

        The second is None where the file was created.
        """
        data = flat(data)
        head = b"PATCH /keys/" + _target(key) + _TAIL + _write_id() + b"Content-Length: %d\r\n\r\n" % len(data)
        response = self._call(key, head, data, change=True)
        if response.status // 100 == 2:
            base = version_of(response, b"x-base-etag")
            return version_of(response), base or None
        raise self._error(response, key)[1]

    def delete(self, key: bytes, *, if_version: Optional[str] = None) -> None:
        """Delete the file. Raises FileNotFoundError, StateConflictError.

        A deleted file has no place for a write id. So where an earlier attempt's answer was lost and the
        file is gone, that is what was asked for, or with `if_version` an unknown outcome: whether it was
        this one that deleted it, nobody can tell.
        """
        head = b"DELETE /keys/" + _target(key) + _TAIL + _condition(if_version, False) + _write_id() + b"\r\n"
        self._remove(key, head, conditional=if_version is not None)

    def make_directory(self, key: bytes) -> None:
        """Make an empty directory. Raises FileExistsError."""
        self._change(key, b"PUT /keys/" + _target(key) + b"/" + _TAIL + _write_id() + b"Content-Length: 0\r\n\r\n")

    def remove_directory(self, key: bytes) -> None:
        """Remove an empty directory. Raises FileNotFoundError, NotADirectoryError, OSError(ENOTEMPTY)."""
        self._remove(key, b"DELETE /keys/" + _target(key) + b"/" + _TAIL + _write_id() + b"\r\n")

    def rename(
        self,
        source: bytes,
        target: bytes,
        *,
        if_version: Optional[str] = None,
        if_absent: bool = False,
        source_version: Optional[str] = None,
    ) -> str:
        """Move `source` over `target`; the target's new version.

        `if_version` and `if_absent` are conditions on the target, `source_version` on the source.
        """
        head = (
            b"POST /keys/"
            + _target(source)
            + b"?rename_to="
            + _target(target)
            + _TAIL
            + _condition(if_version, if_absent)
            + (b"" if source_version is None else _SOURCE_IF_MATCH + _quoted(source_version))
            + _write_id()
        )
        return version_of(self._renamed(source, target, head))

    def rename_directory(self, source: bytes, target: bytes, known: Dict[bytes, Optional[str]]) -> Dict[bytes, str]:
        """Move a directory with all that is below it.

        `known` are files by their names from there, with the version they are thought to be at, or None for any. The
        result are the new versions of those that were moved so, of as many of them as one request can ask for.
        """
        head = b"POST /keys/%s/?rename_to=%s/" % (_target(source), _target(target)) + _TAIL + _write_id()
        return moved_of(self._renamed(source, target, head, known_body(known)).body)

    def _renamed(self, source: bytes, target: bytes, head: bytes, body: bytes = b"") -> Response:
        """The answer to a rename; `head` lacks Content-Length and the empty line."""
        head += b"Content-Length: %d\r\n\r\n" % len(body)
        response = self._call(source, head, body, change=True, target=target)
        if response.status // 100 == 2:
            return response
        code, error = self._error(response, source, target)
        if response.repeated and code == "key_not_found":
            error = self.failure(
                "unknown_outcome", "the source is gone, perhaps by this call, whose answer was lost", source, target
            )
        raise error

    def list(
        self, prefix: bytes, *, recursive: bool = False, limit: Optional[int] = None, after: bytes = b""
    ) -> Iterator[Listed]:
        """Names that start with `prefix` (a directory's ends with a slash), in byte order, beyond `after`.

        One level with directories folded into one name each, or everything below if `recursive`. At
        most `limit` names. Asks for the next page only when it is reached.
        """
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            response = self._call(
                prefix,
                b"GET /keys/?prefix=%s&delimiter=%s&limit=%d&after=%s&detail=1"
                % (_target(prefix), b"" if recursive else b"%2F", size, _target(after))
                + _READ_TAIL,
            )
            if response.status != 200:
                raise self._error(response, prefix)[1]
            page, following = page_of(response.body)
            yield from page
            if following is None:
                return
            if left is not None:
                left -= len(page)
            after = following

    def get_attr(self, key: bytes, name: str) -> Optional[str]:
        """The value of one attribute of a file, None where it has no such attribute."""
        response = self._call(key, b"GET /meta/" + _target(key) + b"?attr=" + _attr(name) + _READ_TAIL)
        if response.status == 200:
            import json

            return str(json.loads(response.body)["value"])
        code, error = self._error(response, key)
        if code == "key_not_found" and name not in self.list_attrs(key):
            return None
        raise error

    def set_attr(self, key: bytes, name: str, value: str, *, if_version: Optional[str] = None) -> str:
        """Set one attribute; the file's new version ("" where the backend keeps the old one)."""
        import json

        body = json.dumps({"attr": name, "value": value}).encode()
        head = (
            b"PUT /meta/" + _target(key) + b"?attr=" + _attr(name) + _TAIL + _condition(if_version, False) + _write_id()
        )
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        return self._change(key, head, body)

    def remove_attr(self, key: bytes, name: str, *, if_version: Optional[str] = None) -> str:
        """Remove one attribute; the file's new version ("" where the backend keeps the old one)."""
        head = b"DELETE /meta/" + _target(key) + b"?attr=" + _attr(name) + _TAIL + _condition(if_version, False)
        return self._change(key, head + _write_id() + b"\r\n")

    def list_attrs(self, key: bytes) -> List[str]:
        """The names of a file's attributes."""
        response = self._call(key, b"GET /meta/" + _target(key) + _READ_TAIL)
        if response.status == 200:
            import json

            return [str(name) for name in json.loads(response.body)["attrs"]]
        raise self._error(response, key)[1]

    def _change(self, key: bytes, head: bytes, body: Buffer = b"") -> str:
        response = self._call(key, head, body, change=True)
        if response.status // 100 == 2:
            return version_of(response)
        raise self._error(response, key)[1]

    def _remove(self, key: bytes, head: bytes, conditional: bool = False) -> None:
        response = self._call(key, head, change=True)
        if response.status // 100 == 2:
            return
        code, error = self._error(response, key)
        if response.repeated and (code == "key_not_found" or (code == "conflict" and self.stat(key) is None)):
            if not conditional:
                return
            error = self.failure(
                "unknown_outcome", "the file is gone, perhaps by this call, whose answer was lost", key
            )
        raise error

    def _call(
        self,
        key: bytes,
        head: bytes,
        body: Buffer = b"",
        *,
        bodyless: bool = False,
        change: bool = False,
        target: Optional[bytes] = None,
    ) -> Response:
        try:
            return self.client.request(head, body, bodyless=bodyless, change=change)
        except (Unanswered, WrongPeer) as error:
            self._unavailable(error, key, target)

    def _unavailable(self, error: Exception, key: bytes, target: Optional[bytes] = None) -> NoReturn:
        lost = isinstance(error, Unanswered) and error.lost
        text = str(error)
        if isinstance(error, Unanswered):
            text += "; look at the log of container asya-state-proxy and at its /readyz"
        raise self.failure("unknown_outcome" if lost else "unavailable", text, key, target) from None

    def _stream(self, key: bytes) -> Connection:
        """A connection for a body that cannot be sent twice, to a proxy that is known to be ready."""
        connection = self.client.take()
        if connection is not None:
            return connection
        response = self._call(key, b"HEAD /keys/" + _READ_TAIL, bodyless=True)
        if response.status >= 400:
            raise self._error(response, key, by_status=_BY_STATUS.get(response.status, ""))[1]
        try:
            return self.client.take() or self.client.open()
        except Unanswered as error:
            self._unavailable(error, key)

    def failure(self, code: str, message: str, key: bytes, target: Optional[bytes] = None) -> OSError:
        """The exception for a wire error code, about `key` (and `target`, of a rename)."""
        return from_wire(
            code,
            message,
            actor=self._actor,
            backend=self.backend,
            filename=self._path(key),
            filename2=None if target is None else self._path(target),
        )

    def _path(self, key: bytes) -> str:
        return f"{self.mount.path}/{os.fsdecode(key)}" if key else self.mount.path

    def _error(
        self, response: Response, key: bytes, target: Optional[bytes] = None, by_status: str = ""
    ) -> Tuple[str, OSError]:
        """The code an answer stands for and its exception; `by_status` is what its status means without a body."""
        code, message, _ = response.error()
        if not code:
            code = response.header(_ERROR).decode("latin-1") or by_status
        if not code:
            code, message = "unavailable", f"the state proxy answered status {response.status} without saying why"
        if response.repeated and code in ("unavailable", "timeout", "busy"):
            # An earlier attempt's answer was lost, and the later ones did not settle what became of it.
            code = "unknown_outcome"
        if code in ("range", "precondition_required"):
            # Nothing a handler did can cause these.
            import logging

            logging.getLogger("asya.shim").error("state proxy: %s: %s, key=%r", code, message, key)
        return code, self.failure(code, message, key, target)


def _attr(name: str) -> bytes:
    return encode_key(os.fsencode(name)).replace("/", "%2F").encode("ascii")
