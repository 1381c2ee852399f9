"""Turns for people with a server of their own: one per request, committed before the answer leaves."""

from typing import Any, Awaitable, Callable, Dict, Iterable, Iterator, List, MutableMapping, Optional

from asya_contract import tracing
from asya_shim import traces
from asya_shim.turns import Turn

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_Application = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


def asgi(app: _Application) -> _Application:
    """Wrap an ASGI application: each HTTP request is a turn.

    The last message of the answer waits until everything is stored; a failure to store raises out of
    the application instead of it (before any message, for answers of one piece), so that the server
    answers 500. A request that raises is discarded, so is one whose client has left.
    """

    async def wrapped(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        turn = Turn()
        traces.follow(turn, _header(scope))
        held: List[_Message] = []

        async def send_when_stored(message: _Message) -> None:
            if message["type"] == "http.response.start":
                held.append(message)
                return
            if message["type"] == "http.response.body" and not message.get("more_body"):
                turn.commit()
            while held:
                await send(held.pop(0))
            await send(message)

        with turn:
            try:
                await app(scope, receive, send_when_stored)
            except BaseException as error:
                turn.discard(error)
                raise
            turn.commit()

    return wrapped


def _header(scope: MutableMapping[str, Any]) -> Optional[str]:
    found = (value for name, value in scope.get("headers", ()) if name == tracing.HEADER.encode())
    return next((value.decode("latin-1") for value in found), None)


_StartResponse = Callable[..., Any]
_WSGIApplication = Callable[[Dict[str, Any], _StartResponse], Iterable[bytes]]


def wsgi(app: _WSGIApplication) -> _WSGIApplication:
    """Wrap a WSGI application: each request is a turn.

    The last piece of the answer waits until everything is stored; a failure to store raises out of the
    application instead of it. A request that raises, or whose answer is not read to its end, is discarded.
    """

    def wrapped(environ: Dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        turn = Turn()
        traces.follow(turn, environ.get("HTTP_TRACEPARENT"))
        with turn:
            try:
                pieces = app(environ, start_response)
            except BaseException as error:
                turn.discard(error)
                raise
        return _Answer(turn, pieces)

    return wrapped


class _Answer:
    """The pieces of an answer, the last one held back until the turn is committed."""

    def __init__(self, turn: Turn, pieces: Iterable[bytes]) -> None:
        self._turn = turn
        self._pieces = pieces
        self._done = False

    def __iter__(self) -> Iterator[bytes]:
        turn = self._turn
        iterator = iter(self._pieces)
        last: List[bytes] = []
        while True:
            with turn:
                try:
                    piece = next(iterator)
                except StopIteration:
                    break
                except BaseException as error:
                    turn.discard(error)
                    self._done = True
                    raise
            yield from last
            last = [piece]
        self._end()
        yield from last

    def _end(self) -> None:
        self._done = True
        with self._turn:
            self._close_pieces()
            self._turn.commit()

    def _close_pieces(self) -> None:
        close = getattr(self._pieces, "close", None)
        self._pieces = ()
        if close is not None:
            close()

    def close(self) -> None:
        """The server is done with the answer."""
        if not self._done:
            self._done = True
            with self._turn:
                # Before the pieces go: a generator's own files would be stored when they are collected.
                self._turn.discard()
                try:
                    self._close_pieces()
                finally:
                    self._turn.discard()
