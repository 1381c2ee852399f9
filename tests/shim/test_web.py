"""Turns of people with a server of their own."""

# ruff: noqa: SIM115

import errno
import os
from collections.abc import Iterable
from typing import Any

import pytest

from asya_shim import StateConflictError, asgi, traceparent, wsgi
from support.state_proxy import State


async def call(app: Any, kind: str = "http") -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await asgi(app)({"type": kind}, receive, send)
    return sent


START = {"type": "http.response.start", "status": 200, "headers": []}


async def test_asgi_commits_before_the_answer(state: State) -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        f = open(state.path("f"), "w")
        f.write("left open")
        await send(START)
        await send({"type": "http.response.body", "body": b"ok"})

    assert [m["type"] for m in await call(app)] == ["http.response.start", "http.response.body"]
    assert state.get("f") == b"left open"


async def test_asgi_a_failed_commit_sends_nothing(cas: State) -> None:
    cas.put("f", b"1")

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        f = open(cas.path("f"), "w")
        f.write("mine")
        cas.put("f", b"2")
        await send(START)
        sent.append("reached")
        await send({"type": "http.response.body", "body": b"ok"})

    sent: list[str] = []
    with pytest.raises(StateConflictError):
        await call(app)
    assert sent == ["reached"]
    assert cas.get("f") == b"2"


async def test_asgi_discards_what_raises(state: State) -> None:
    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        f = open(state.path("f"), "w")
        f.write("x")
        raise KeyError

    with pytest.raises(KeyError):
        await call(app)
    assert state.get("f") is None


async def test_asgi_leaves_other_scopes_alone(state: State) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": scope["type"]})

    assert await call(app, "lifespan") == [{"type": "lifespan"}]


def answer(app: Any) -> list[bytes]:
    pieces = wsgi(app)({}, lambda *_: None)
    try:
        return list(pieces)
    finally:
        pieces.close()  # type: ignore[attr-defined]


def test_wsgi_commits_before_the_last_piece(state: State) -> None:
    def app(_environ: Any, _start: Any) -> Iterable[bytes]:
        f = open(state.path("f"), "w")
        f.write("left open")
        yield b"one"
        f.write(" and more")
        yield b"two"

    pieces = wsgi(app)({}, lambda *_: None)
    iterator = iter(pieces)
    assert next(iterator) == b"one"
    assert next(iterator) == b"two"
    assert state.get("f") == b"left open and more"
    assert list(iterator) == []
    pieces.close()  # type: ignore[attr-defined]


def test_wsgi_discards_what_raises_or_is_not_read(state: State) -> None:
    def raising(_environ: Any, _start: Any) -> Iterable[bytes]:
        f = open(state.path("f"), "w")
        f.write("x")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        answer(raising)

    def endless(_environ: Any, _start: Any) -> Iterable[bytes]:
        f = open(state.path("g"), "w")
        f.write("x")
        while True:
            yield b"piece"

    pieces = wsgi(endless)({}, lambda *_: None)
    next(iter(pieces))
    pieces.close()  # type: ignore[attr-defined]
    assert state.get("f") is None
    assert state.get("g") is None


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("given", [PARENT, "nonsense", None])
async def test_asgi_a_request_brings_its_trace(given: str | None) -> None:
    found = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        found.append(traceparent())
        await send(START)
        await send({"type": "http.response.body", "body": b"ok"})

    async def nothing(*_: Any) -> Any:
        return None

    headers = [] if given is None else [(b"traceparent", given.encode())]
    await asgi(app)({"type": "http", "headers": headers}, nothing, nothing)
    assert found == [PARENT if given == PARENT else None]
    assert traceparent() is None


@pytest.mark.parametrize("given", [PARENT, "nonsense", None])
def test_wsgi_a_request_brings_its_trace(given: str | None) -> None:
    found = []

    def app(_environ: Any, _start: Any) -> Iterable[bytes]:
        found.append(traceparent())
        yield b"ok"

    environ = {} if given is None else {"HTTP_TRACEPARENT": given}
    assert list(wsgi(app)(environ, lambda *_: None)) == [b"ok"]
    assert found == [PARENT if given == PARENT else None]
    assert traceparent() is None
