"""A strict S3 in memory, for what the real test server gets wrong and for answers that are lost.

Follows the S3 user guide on conditional requests to the letter, conditional DELETE included, decides and
publishes in one step of its event loop, and can be told to fail: `Fault`. Signatures are not verified;
access key, region and bucket are. It is checked by the same tests as the real server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

from aiohttp import web

from support.loops import deafen, hang_up

BUCKET = "asya-state"
ACCESS_KEY = "asyaasya"
REGION = "us-east-1"
MIN_PART = 5 << 20
NAME_LIMIT = 1024
CHECKSUM = "x-amz-checksum-crc32"


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "", **more: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.more = status, code, message or code, more

    def response(self, head: bool) -> web.Response:
        more = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in self.more.items())
        xml = f"<Error><Code>{self.code}</Code><Message>{escape(self.message)}</Message>{more}</Error>"
        return web.Response(status=self.status, body=b"" if head else xml.encode(), content_type="application/xml")


@dataclass
class Object:
    data: bytes
    etag: str
    metadata: dict[str, str]
    time: float = field(default_factory=time.time)
    checksum: str = ""
    """CRC-32, where the writer gave it."""


@dataclass
class Upload:
    key: str
    metadata: dict[str, str]
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)


@dataclass
class Fault:
    """What happens to the next request of one operation (`PutObject`).

    `answer` refuses with this status and code, without acting; `drop` closes the connection without acting;
    `lose` acts and then closes it. `hold` waits for `release` first; `reached` tells that it does.
    """

    operation: str
    answer: tuple[int, str] | None = None
    drop: bool = False
    lose: bool = False
    hold: bool = False
    cut: int = -1
    """Of a GET: end the body after so many bytes."""
    damage: bool = False
    """Of a GET: another last byte."""
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


class FakeS3:
    """`with FakeS3() as fake`: serves on a loopback port from a thread of its own."""

    def __init__(
        self,
        *,
        min_part: int = MIN_PART,
        region: str = REGION,
        ignores: frozenset[str] = frozenset(),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`ignores`: the operations that take conditions and do not keep them, as some servers do; or one condition
        of one of them (`PutObject If-Match`). If-Match on a missing key is answered 404 even then."""
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[str] = []
        """Names of the operations, in order."""
        self.faults: list[Fault] = []
        self._min_part = min_part
        self._region = region
        self._ignores = ignores
        self._tls = tls
        self._count = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-s3", daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    bucket = BUCKET

    @property
    def environ(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": self._region,
        }

    def fault(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def __enter__(self) -> FakeS3:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *exc: object) -> None:
        for fault in self.faults:
            fault.release.set()
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(10)

    async def _start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        self._socket = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(self._runner, self._socket, ssl_context=self._tls).start()
        self._port = self._socket.getsockname()[1]

    async def _stop(self) -> None:
        await deafen(self._socket)
        await self._runner.cleanup()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await hang_up()

    # One request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("Expect") == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query_string = request.raw_path.partition("?")
        if path.startswith("http://"):  # it is asked as the forward proxy of another server
            path = "/" + path.removeprefix("http://").partition("/")[2]
        bucket, _, key = path.lstrip("/").partition("/")
        query = dict(parse_qsl(query_string, keep_blank_values=True))
        call = _Call(request, unquote(bucket), unquote(key), query, await request.content.read())
        operation = _operation(call)
        self.requests.append(operation)
        fault = self._fault_of(operation)
        if fault is not None and fault.hold:
            fault.reached.set()
            await asyncio.to_thread(fault.release.wait, 30)
        if fault is not None and fault.drop:
            return _gone(request)
        try:
            if fault is not None and fault.answer is not None:
                raise Refused(*fault.answer)
            self._check(call)
            act: Callable[[_Call], web.Response] = getattr(self, f"_{operation}")
            answer = act(call)
        except Refused as refused:
            answer = refused.response(request.method == "HEAD")
        answer.headers["x-amz-request-id"] = str(len(self.requests))
        if fault is not None and fault.lose:
            return _gone(request)
        if fault is not None and fault.damage and isinstance(answer.body, bytes):
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])
        if fault is not None and fault.cut >= 0:
            return await _cut(request, answer, fault.cut)
        return answer

    def _fault_of(self, operation: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation == operation:
                self.faults.remove(fault)
                return fault
        return None

    def _check(self, call: _Call) -> None:
        scope = call.headers.get("Authorization", "").partition("Credential=")[2].partition(",")[0].split("/")
        if len(scope) < 3:
            raise Refused(403, "AccessDenied")
        if scope[0] != ACCESS_KEY:
            raise Refused(403, "InvalidAccessKeyId", "The key does not exist in our records.")
        if scope[2] != self._region:
            message = f"The region '{scope[2]}' is wrong; expecting '{self._region}'"
            raise Refused(400, "AuthorizationHeaderMalformed", message, Region=self._region)
        if call.bucket != BUCKET:
            raise Refused(404, "NoSuchBucket")
        if len(call.key.encode()) > NAME_LIMIT:
            raise Refused(400, "KeyTooLongError")

    # Conditions

    def _demand(self, call: _Call, key: str) -> None:
        """The conditions of a write."""
        operation = _operation(call)
        if operation in self._ignores:
            return
        found = self.objects.get(key)
        none, match = call.headers.get("If-None-Match"), call.headers.get("If-Match")
        if none is not None and none != "*":
            raise Refused(501, "NotImplemented", "If-None-Match takes nothing but *")
        if none == "*" and found is not None and f"{operation} If-None-Match" not in self._ignores:
            raise Refused(412, "PreconditionFailed")
        if match is not None:
            if found is None:
                raise Refused(404, "NoSuchKey")
            if match.strip('"') != found.etag and f"{operation} If-Match" not in self._ignores:
                raise Refused(412, "PreconditionFailed")

    def _found(self, call: _Call) -> Object:
        found = self.objects.get(call.key)
        if found is None:
            raise Refused(404, "NoSuchKey")
        match = call.headers.get("If-Match")
        if match is not None and match.strip('"') != found.etag:
            raise Refused(412, "PreconditionFailed")
        return found

    # Operations

    def _GetObject(self, call: _Call) -> web.Response:  # noqa: N802
        found = self._found(call)
        headers = {
            "ETag": f'"{found.etag}"',
            "Last-Modified": formatdate(found.time, usegmt=True),
            "Accept-Ranges": "bytes",
            **{f"x-amz-meta-{name}": value for name, value in found.metadata.items()},
        }
        span = call.headers.get("Range")
        if span is None:
            if found.checksum and call.headers.get("x-amz-checksum-mode") == "ENABLED":
                headers[CHECKSUM] = found.checksum
            return web.Response(body=found.data, headers=headers)
        start, end = _range(span, len(found.data))
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(found.data)}"
        return web.Response(status=206, body=found.data[start:end], headers=headers)

    _HeadObject = _GetObject

    def _PutObject(self, call: _Call) -> web.Response:  # noqa: N802
        self._demand(call, call.key)
        checksum = call.headers.get(CHECKSUM, "")
        if checksum and base64.b64decode(checksum) != zlib.crc32(call.body).to_bytes(4, "big"):
            raise Refused(400, "BadDigest")
        made = Object(call.body, hashlib.md5(call.body).hexdigest(), call.metadata, checksum=checksum)
        self.objects[call.key] = made
        return web.Response(headers={"ETag": f'"{made.etag}"'})

    def _DeleteObject(self, call: _Call) -> web.Response:  # noqa: N802
        self._demand(call, call.key)
        self.objects.pop(call.key, None)
        return web.Response(status=204)

    def _CreateMultipartUpload(self, call: _Call) -> web.Response:  # noqa: N802
        self._count += 1
        name = f"upload{self._count}"
        self.uploads[name] = Upload(call.key, call.metadata)
        return _xml(f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>")

    def _upload(self, call: _Call) -> Upload:
        upload = self.uploads.get(call.query["uploadId"])
        if upload is None or upload.key != call.key:
            raise Refused(404, "NoSuchUpload")
        return upload

    def _UploadPart(self, call: _Call) -> web.Response:  # noqa: N802
        tag = hashlib.md5(call.body).hexdigest()
        self._upload(call).parts[int(call.query["partNumber"])] = (tag, call.body)
        return web.Response(headers={"ETag": f'"{tag}"'})

    def _UploadPartCopy(self, call: _Call) -> web.Response:  # noqa: N802
        upload = self._upload(call)
        source = self.objects.get(unquote(call.headers["x-amz-copy-source"]).removeprefix(f"{BUCKET}/"))
        if source is None:
            raise Refused(404, "NoSuchKey")
        match = call.headers.get("x-amz-copy-source-if-match")
        if match is not None and match.strip('"') != source.etag:
            raise Refused(412, "PreconditionFailed")
        span = call.headers.get("x-amz-copy-source-range")
        start, end = _range(span, len(source.data)) if span else (0, len(source.data))
        data = source.data[start:end]
        tag = hashlib.md5(data).hexdigest()
        upload.parts[int(call.query["partNumber"])] = (tag, data)
        return _xml(f"<CopyPartResult><ETag>&quot;{tag}&quot;</ETag></CopyPartResult>")

    def _CompleteMultipartUpload(self, call: _Call) -> web.Response:  # noqa: N802
        upload = self._upload(call)
        parts = [upload.parts[number] for number in sorted(upload.parts)]
        if any(len(data) < self._min_part for _, data in parts[:-1]):
            raise Refused(400, "EntityTooSmall")
        self._demand(call, call.key)
        data = b"".join(data for _, data in parts)
        digest = hashlib.md5(b"".join(bytes.fromhex(tag) for tag, _ in parts)).hexdigest()
        made = Object(data, f"{digest}-{len(parts)}", upload.metadata)
        self.objects[call.key] = made
        del self.uploads[call.query["uploadId"]]
        return _xml(
            f"<CompleteMultipartUploadResult><ETag>&quot;{made.etag}&quot;</ETag></CompleteMultipartUploadResult>"
        )

    def _AbortMultipartUpload(self, call: _Call) -> web.Response:  # noqa: N802
        self._upload(call)
        del self.uploads[call.query["uploadId"]]
        return web.Response(status=204)

    def _ListObjectsV2(self, call: _Call) -> web.Response:  # noqa: N802
        query = call.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(1000, int(query.get("max-keys", "1000")))
        token = query.get("continuation-token")
        after = token if token is not None else query.get("start-after", "")
        names: list[str] = []
        items: list[str] = []
        truncated = False
        for key in sorted(self.objects):
            slash = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key if slash < 0 else key[: slash + 1]
            # A token stands behind a whole prefix; StartAfter does not, as on AWS.
            if not key.startswith(prefix) or key <= after or name in names[-1:] or (token == name and slash >= 0):
                continue
            if len(names) == limit:
                truncated = True
                break
            names.append(name)
            items.append(_listed(name, None if slash >= 0 else self.objects[key]))
        more = f"<NextContinuationToken>{quote(names[-1])}</NextContinuationToken>" if truncated and names else ""
        return _xml(
            "<ListBucketResult><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{more}{''.join(items)}</ListBucketResult>"
        )


@dataclass(frozen=True)
class _Call:
    request: web.BaseRequest
    bucket: str
    key: str
    query: dict[str, str]
    body: bytes

    @property
    def headers(self) -> Any:
        return self.request.headers

    @property
    def metadata(self) -> dict[str, str]:
        prefix = "x-amz-meta-"
        return {
            name.lower()[len(prefix) :]: value
            for name, value in self.headers.items()
            if name.lower().startswith(prefix)
        }


def _operation(call: _Call) -> str:
    method, query = call.request.method, call.query
    if not call.key:
        return "ListObjectsV2"
    if method == "POST":
        return "CreateMultipartUpload" if "uploads" in query else "CompleteMultipartUpload"
    if method == "PUT" and "uploadId" in query:
        return "UploadPartCopy" if "x-amz-copy-source" in call.headers else "UploadPart"
    if method == "DELETE" and "uploadId" in query:
        return "AbortMultipartUpload"
    return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}[method]


def _range(span: str, size: int) -> tuple[int, int]:
    first, _, last = span.removeprefix("bytes=").partition("-")
    start = max(0, size - int(last)) if not first else int(first)
    end = size if not first or not last else min(size, int(last) + 1)
    if start >= size:
        raise Refused(416, "InvalidRange")
    return start, end


def _listed(name: str, found: Object | None) -> str:
    if found is None:
        return f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(found.time))
    return (
        f"<Contents><Key>{quote(name)}</Key><LastModified>{stamp}</LastModified>"
        f"<ETag>&quot;{found.etag}&quot;</ETag><Size>{len(found.data)}</Size></Contents>"
    )


def _xml(text: str) -> web.Response:
    return web.Response(text=f'<?xml version="1.0" encoding="UTF-8"?>{text}', content_type="application/xml")


def _gone(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _cut(request: web.BaseRequest, answer: web.Response, size: int) -> web.StreamResponse:
    body = answer.body if isinstance(answer.body, bytes) else b""
    begun = web.StreamResponse(status=answer.status, headers=answer.headers)
    begun.content_length = len(body)
    await begun.prepare(request)
    await begun.write(body[:size])
    _gone(request)
    return begun
