"""The server as HTTP: bounds, malformed requests, probes, what waits and what is refused."""

import json
import socket
import threading
from typing import Any

import pytest

from .conftest import eventually

ECHO = "def process(state): return state"


def raw(actor: Any, data: bytes) -> bytes:
    """Send bytes, close the sending side, and read to the end."""
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


@pytest.fixture
def actor(local: Any) -> Any:
    return local(lambda state: state, max_request_size=4096)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /readyz HTTP/2.0\r\n\r\n", 505),
        (b"GET /readyz HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /readyz HTTP/1.1\r\n folded: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n12\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"GET /readyz HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nContent-Length: 4097\r\n\r\n" + b"1" * 4097, 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1001\r\n" + b"1" * 4097 + b"\r\n0\r\n\r\n", 413),
    ],
)
def test_bad_requests_are_refused_and_end_their_connection(actor: Any, data: bytes, status: int) -> None:
    answer = raw(actor, data + b"GET /readyz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert body["error"] == "bad_request"
    assert body["details"]["message"]
    assert actor.post(1).json == 1


def test_too_large_names_limit_and_variable(actor: Any) -> None:
    answer = actor.post("x" * 5000)
    assert answer.status == 413
    assert "4096 bytes" in answer.json["details"]["message"]
    assert "ASYA_MAX_REQUEST_SIZE" in answer.json["details"]["message"]


def test_large_upload_gets_to_read_its_refusal(actor: Any) -> None:
    assert actor.call("POST", "/", b"1" * 3_000_000).status == 413


def test_chunked_body_with_trailer(actor: Any) -> None:
    answer = raw(
        actor,
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n[1\r\n1\r\n]\r\n0\r\nX-Sum: 1\r\n\r\n",
    )
    assert answer.endswith(b"\r\n\r\n[1]")


def test_expect_continue(actor: Any) -> None:
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"7")
        assert client.recv(1000).endswith(b"7")


def test_connection_is_kept_and_pipelined_requests_are_answered_in_order(actor: Any) -> None:
    one = b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n%d"
    answer = raw(actor, b"".join(one % n for n in range(3)))
    assert [part[:1] for part in answer.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("request_line", "kept"),
    [
        (b"GET /healthz HTTP/1.1\r\n", True),
        (b"GET /healthz HTTP/1.1\r\nConnection: close\r\n", False),
        (b"GET /healthz HTTP/1.0\r\n", False),
        (b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_keep_alive(actor: Any, request_line: bytes, kept: bool) -> None:
    answer = raw(actor, (request_line + b"\r\n") * 2)
    assert answer.count(b"HTTP/1.1 200 OK") == (2 if kept else 1)


def test_probes_and_paths(actor: Any) -> None:
    assert actor.call("GET", "/healthz").json == {"status": "alive"}
    assert actor.call("GET", "/readyz?verbose=1").json == {"status": "ready"}
    head = actor.call("HEAD", "/readyz")
    assert (head.status, head.body) == (200, b"")
    missing = actor.call("GET", "/nowhere")
    assert missing.status == 404
    assert "/invoke" in missing.json["details"]["message"]
    wrong = actor.call("GET", "/invoke")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


def test_client_that_leaves_in_the_middle_of_a_body_starts_no_turn(actor: Any) -> None:
    assert raw(actor, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n123") == b""
    assert actor.post(1).status == 200
    assert len(actor.turns) == 1


def test_client_that_leaves_does_not_end_an_ordinary_turn(local: Any) -> None:
    started, go, ended = threading.Event(), threading.Event(), threading.Event()

    def process(state: Any) -> Any:
        started.set()
        go.wait(20)
        ended.set()
        return state

    actor = local(process)
    with socket.create_connection(("127.0.0.1", actor.port), timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n1")
        assert started.wait(10)
    go.set()
    assert ended.wait(10)
    eventually(lambda: actor.turns[0].calls == ["commit"])


@pytest.mark.parametrize("concurrency", [1, 2])
def test_sixteen_times_as_many_wait_and_the_next_is_refused(local: Any, concurrency: int) -> None:
    gate = threading.Semaphore(0)
    running = threading.Semaphore(0)

    def process(state: Any) -> Any:
        running.release()
        gate.acquire(timeout=30)
        return state

    actor = local(process, concurrency=concurrency)
    calls = [actor.later(n) for n in range(17 * concurrency)]
    for _ in range(concurrency):
        assert running.acquire(timeout=10)
    eventually(lambda: actor.unfinished == 17 * concurrency)
    refused = actor.post("one more")
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json["error"] == "busy"
    assert not running.acquire(blocking=False)
    for _ in range(40 * concurrency):
        gate.release()
    assert sorted(call.get().json for call in calls) == list(range(17 * concurrency))
    assert actor.post("later").status == 200
