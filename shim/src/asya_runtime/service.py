"""What the runtime answers: `POST /invoke`, `POST /`, `GET /healthz`, `GET /readyz`, `GET /metrics`.

A generator answers `text/event-stream`: `downstream` carries a frame, `upstream` what the generator
sends back to whoever asked (it yields `("FLY", value)`), then comes `error` or `done`.
"""

import asyncio
from typing import Any, Dict, List, Optional, Tuple

from asya_contract.tracing import HEADER, checked
from asya_runtime import http1
from asya_runtime.admission import Admission, Unavailable
from asya_runtime.jobs import Event, Job
from asya_runtime.logs import log
from asya_runtime.messages import BadMessage, Message, describe, error_body, parse, raised
from asya_runtime.metrics import CONTENT_TYPE

_JSON = [("Content-Type", "application/json")]
_STREAM = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
_RETRY_AFTER = [("Retry-After", "1")]
_SMALL = 64 * 1024
"""Bodies up to this size are read before their request is refused: that keeps the connection."""
START_PATIENCE = 4.0
"""Seconds that a probe waits for the handler to be loaded, which spares a period of it; kubelet waits five."""
_KEEP, _CLOSE, _LINGER = "keep", "close", "linger"
_FIRST = asyncio.FIRST_COMPLETED
_MESSAGES = ("/invoke", "/")
_PATHS = {
    **dict.fromkeys(_MESSAGES, ("POST",)),
    **dict.fromkeys(("/healthz", "/readyz", "/metrics"), ("GET", "HEAD")),
}
_LEFT = "client_left"


class Answer(Exception):
    """An answer that is there at once: status, body, further header fields, and the error's code, if it is one."""

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        fields: Optional[List[Tuple[str, str]]] = None,
        code: str = "ok",
        kind: List[Tuple[str, str]] = _JSON,
    ) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.fields = fields or []
        self.code = code
        self.kind = kind


def _error(status: int, code: str, message: str, fields: Optional[List[Tuple[str, str]]] = None) -> Answer:
    return Answer(status, error_body(code, {"message": message}), fields, code)


def _failed(status: int, code: str, details: Dict[str, Any]) -> Answer:
    return Answer(status, error_body(code, details), code=code)


class Service:
    """Serves one connection after the other, each in a task of its own."""

    def __init__(self, admission: Admission, turn_timeout: float, max_body: int) -> None:
        self._admission = admission
        self._turn_timeout = turn_timeout
        self._max_body = max_body
        self._figures = admission.figures
        self.busy = 0
        """Requests that have not been answered yet."""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        then = _KEEP
        try:
            while then == _KEEP:
                head = await http1.read_head(reader)
                if head is None:
                    break
                self.busy += 1
                try:
                    then = await self._exchange(reader, writer, head)
                finally:
                    self.busy -= 1
        except http1.Refused as refusal:
            then = _LINGER
            await self._refuse(writer, refusal)
        except http1.Gone as gone:
            log("debug", "client left", cause=str(gone))
        finally:
            await http1.close(reader, writer, then == _LINGER)

    async def _refuse(self, writer: asyncio.StreamWriter, refusal: http1.Refused) -> None:
        log("warning", "request refused", status=refusal.status, error="bad_request", cause=str(refusal))
        self._figures.answered("bad_request", 0.0)
        try:
            await self._answer(writer, _error(refusal.status, "bad_request", str(refusal)), False)
        except http1.Gone as gone:
            log("debug", "client left", cause=str(gone))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: http1.Head) -> str:
        """Answer one request; what becomes of the connection then."""
        early = head.length is None or head.length > _SMALL
        began = asyncio.get_running_loop().time()
        try:
            if early:
                self._route(head)
                self._check()
            body = await http1.read_body(reader, writer, head, self._max_body)
            early = False
            if head.path == "/readyz":
                await self._admission.started(START_PATIENCE)
            self._route(head)
            self._check()
            outcome = await self._turn(reader, writer, head, body)
            self._count(head, outcome, began)
            return _CLOSE
        except http1.Gone:
            self._count(head, _LEFT, began)
            raise
        except Answer as answer:
            self._count(head, answer.code, began)
            keep = head.keep_alive and not early and self._admission.open_for_more
            await self._answer(writer, answer, keep, head.method == "HEAD")
            return _LINGER if early else (_KEEP if keep else _CLOSE)

    def _count(self, head: http1.Head, outcome: str, began: float) -> None:
        if head.path in _MESSAGES and outcome in self._figures.outcomes:
            self._figures.answered(outcome, asyncio.get_running_loop().time() - began)

    def _route(self, head: http1.Head) -> None:
        """Return where a turn is asked for; raises the Answer to everything else."""
        methods = _PATHS.get(head.path)
        if methods is None:
            raise _error(404, "not_found", f"{head.path}: expected one of {', '.join(sorted(_PATHS))}")
        if head.method not in methods:
            allowed = ", ".join(methods)
            text = f"{head.method} {head.path}: expected {allowed}"
            raise _error(405, "method_not_allowed", text, [("Allow", allowed)])
        if head.path == "/healthz":
            raise Answer(200, b'{"status": "alive"}')
        if head.path == "/metrics":
            raise Answer(200, self._admission.metrics(), kind=[("Content-Type", CONTENT_TYPE)])
        if head.path == "/readyz":
            if not self._admission.ready:
                raise _error(503, self._admission.state, f"the runtime is {self._admission.state}", _RETRY_AFTER)
            raise Answer(200, b'{"status": "ready"}')

    def _check(self) -> None:
        try:
            self._admission.check()
        except Unavailable as error:
            raise self._unavailable(error.code, str(error)) from None

    def _unavailable(self, code: str, message: str) -> Answer:
        log("warning", "request refused", status=503, error=code, cause=message)
        return _error(503, code, message, _RETRY_AFTER)

    async def _turn(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: http1.Head, body: bytes
    ) -> str:
        """Run one turn and answer with what it gives; how a stream ended. Raises Answer, Gone."""
        loop = asyncio.get_running_loop()
        try:
            message = parse(body, bare=head.path == "/")
        except BadMessage as error:
            log("warning", "message refused", status=400, error="msg_parsing_error", cause=str(error))
            raise _failed(400, "msg_parsing_error", describe(error)) from None
        job = Job(body, message, loop, _traceparent(head, message))
        self._admission.admit(job)
        first = await self._wait(job, self._turn_timeout)
        if first is None and not self._admission.refuse(job, "busy"):
            # It began at the very moment.
            first = await job.events.get()
        if first is None or first.name == "refused":
            code = "busy" if first is None else first.data.decode()
            raise self._unavailable(code, f"the request waited for its turn; the runtime is {code}")
        deadline = loop.time() + self._turn_timeout
        event = await self._wait(job, self._turn_timeout)
        if event is not None and event.name != "ended":
            return await self._stream(reader, writer, job, event, deadline)
        if event is None:
            raise _failed(504, "timeout", self._expire(job))
        outcome = job.outcome
        assert outcome is not None
        if outcome.failure is not None:
            raise _failed(500, "processing_error", outcome.failure)
        if outcome.streamed:
            return await self._stream(reader, writer, job, event, deadline)
        raise Answer(204) if outcome.body is None else Answer(200, outcome.body)

    async def _wait(self, job: Job, patience: float) -> Optional[Event]:
        """The job's next event, None where none comes within `patience` seconds."""
        try:
            return await asyncio.wait_for(job.events.get(), max(patience, 0.0))
        except asyncio.TimeoutError:
            return None

    def _expire(self, job: Job) -> Dict[str, Any]:
        """End a turn whose time is over; the error's details. Its slot is free only when its code ends."""
        turn = job.expire()
        text = f"the turn did not end within {self._turn_timeout:g} s (ASYA_TURN_TIMEOUT); it is discarded"
        log("error", "turn timed out", **job.told, error="timeout", seconds=self._turn_timeout)
        if turn is not None:
            # Discarding may ask the state, which this loop must not wait for.
            future = asyncio.get_running_loop().run_in_executor(None, turn.cancel)
            future.add_done_callback(lambda done: _report_cancel(done, job))
        return {"message": text}

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        job: Job,
        event: Event,
        deadline: float,
    ) -> str:
        """Answer with a generator's frames as they come; `ok` or an error's code. Raises Gone where the client left."""
        loop = asyncio.get_running_loop()
        # A client that waits for events has nothing to say: its end is that of the connection.
        left = loop.create_task(_until_end(reader))
        following: Optional[asyncio.Task[Event]] = None
        try:
            await http1.send(writer, http1.head(200, _STREAM, False))
            while event.name != "ended":
                await http1.send(writer, _sse(event.name, event.data), _left_until(deadline))
                assert event.taken is not None
                event.taken.set_result(True)
                following = loop.create_task(job.events.get())
                await asyncio.wait([left, following], timeout=deadline - loop.time(), return_when=_FIRST)
                if following.done():
                    event = following.result()
                elif left.done():
                    raise http1.Gone("closed while a generator ran")
                else:
                    details = self._expire(job)
                    await http1.send(writer, _sse("error", error_body("timeout", details)))
                    return "timeout"
            failure = job.outcome.failure if job.outcome is not None else None
            last = _sse("done", b"{}") if failure is None else _sse("error", error_body("processing_error", failure))
            await http1.send(writer, last)
            return "ok" if failure is None else "processing_error"
        except http1.Gone:
            if job.outcome is None and loop.time() >= deadline:
                self._expire(job)
            raise
        finally:
            job.abandon()
            left.cancel()
            if following is not None and not following.cancel() and not following.cancelled():
                event = following.result()
            if event.taken is not None and not event.taken.done():
                event.taken.set_result(False)

    async def _answer(self, writer: asyncio.StreamWriter, answer: Answer, keep: bool, bodyless: bool = False) -> None:
        fields = list(answer.fields)
        if answer.status != 204:
            fields += [*answer.kind, ("Content-Length", str(len(answer.body)))]
        await http1.send(writer, http1.head(answer.status, fields, keep) + (b"" if bodyless else answer.body))


def _traceparent(head: http1.Head, message: Message) -> Optional[str]:
    """The request's own, else the envelope's, which comes from an actor before this one."""
    given = head.headers.get(HEADER) or (message.headers or {}).get(HEADER)
    return checked(given) if isinstance(given, str) else None


def _left_until(deadline: float) -> float:
    """How long a client may take nothing: never beyond the turn's time."""
    return max(0.0, min(http1.PROGRESS, deadline - asyncio.get_running_loop().time()))


async def _until_end(reader: asyncio.StreamReader) -> None:
    """Return once the client has closed its side."""
    try:
        while await reader.read(4096):
            pass
    except OSError:
        return


def _sse(name: str, data: bytes) -> bytes:
    """One event (HTML standard section 9.2); our data is JSON on one line."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


def _report_cancel(done: "asyncio.Future[None]", job: Job) -> None:
    error = None if done.cancelled() else done.exception()
    if error is not None:
        log("error", "a timed-out turn could not be discarded", **job.told, **raised(describe(error)))
