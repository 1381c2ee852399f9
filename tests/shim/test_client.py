"""The client against a peer that follows a script: cuts, partial answers, chunks, restarts, refusals."""

import errno
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from asya_contract.env import Mount, ShimEnv
from asya_contract.errors import WIRE_ERRORS
from asya_shim.answers import version_of
from asya_shim.connection import Connection
from asya_shim.errors import StateConflictError, StateUnavailableError, from_wire, wire_code
from asya_shim.remote import Remote, Upload

OURS = b"X-Asya-Protocol: 1\r\nX-Asya-Consistency: cas\r\nX-Asya-Backend: memory\r\n"


def answer(status: int, body: bytes = b"", *headers: bytes, ours: bytes = OURS, length: int | None = None) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d X\r\n%s%sContent-Length: %d\r\n\r\n%s" % (status, ours, lines, size, body)


def failure(status: int, code: str, retryable: bool = False) -> bytes:
    body = b'{"error": "%s", "message": "because", "retryable": %s}' % (
        code.encode(),
        b"true" if retryable else b"false",
    )
    return answer(status, body)


FOUND = answer(200, b"hello", b'ETag: "v1"', b"Last-Modified: Tue, 24 Nov 2026 20:24:13 GMT")


class Peer:
    """Serves connections with `script(conversation)`, one thread each; records what it was sent."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.requests: list[bytes] = []
        self.connections = 0
        self.errors: list[BaseException] = []
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self, script: "Callable[[Conversation], None]") -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        thread = threading.Thread(target=self._accept, args=(self._listener, script))
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket, script: "Callable[[Conversation], None]") -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, script))
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, script: "Callable[[Conversation], None]") -> None:
        try:
            script(Conversation(self, connection))
        except (EOFError, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            connection.close()

    def stop(self) -> None:
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            os.unlink(self.path)
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(10)
        self._open.clear()
        self._threads.clear()


class Conversation:
    """One connection, from the peer's side."""

    def __init__(self, peer: Peer, connection: socket.socket) -> None:
        self.number = peer.connections
        self._peer = peer
        self._connection = connection
        self._stream = connection.makefile("rb")

    def head(self) -> bytes:
        lines = []
        while True:
            line = self._stream.readline()
            if not line:
                raise EOFError
            lines.append(line)
            if line == b"\r\n":
                return b"".join(lines)

    def request(self) -> bytes:
        """Read one request and its body, and record it."""
        head = self.head()
        low = head.lower()
        body = b""
        if b"content-length: " in low:
            body = self._stream.read(int(low.split(b"content-length: ")[1].split(b"\r\n")[0]))
        elif b"chunked" in low:
            while True:
                size = int(self._stream.readline(), 16)
                body += self._stream.read(size)
                self._stream.readline()
                if not size:
                    break
        self._peer.requests.append(head + body)
        return head + body

    def say(self, data: bytes) -> None:
        self._connection.sendall(data)

    def repeat(self, data: bytes) -> None:
        while True:
            self.request()
            self.say(data)

    def wait_for_end(self) -> None:
        while self._stream.read(1):
            pass


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path / "state.sock")
    yield peer
    peer.stop()
    assert not peer.errors


def remote_at(peer: Peer, timeout: float = 10.0) -> Remote:
    directory = os.path.dirname(peer.path)
    return Remote(Mount(), ShimEnv(socket_dir=directory, request_timeout=timeout, actor="ns/chat"))


@pytest.fixture
def remote(peer: Peer) -> Iterator[Remote]:
    remote = remote_at(peer)
    yield remote
    remote.close()


@pytest.fixture
def hasty(peer: Peer) -> Iterator[Remote]:
    remote = remote_at(peer, timeout=0.3)
    yield remote
    remote.close()


# What is asked and what is understood.


def test_read_tells_content_version_and_time(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(FOUND))
    assert remote.consistency == ""
    content = remote.read(b"a b/%\xff.json")
    assert content is not None
    assert (content.data, content.version, content.size) == (b"hello", "v1", 5)
    assert content.mtime_ns == 1795551853 * 10**9
    assert peer.requests[0].startswith(b"GET /keys/a%20b/%25%FF.json HTTP/1.1\r\n")
    assert (remote.consistency, remote.backend) == ("cas", "memory")


def test_exact_time_is_preferred(peer: Peer, remote: Remote) -> None:
    peer.start(
        lambda c: c.repeat(answer(200, b"", b'ETag: "v"', b"X-Is-File: true", b"X-Asya-Mtime: 1234567890123456789"))
    )
    info = remote.stat(b"k")
    assert info is not None
    assert info.mtime_ns == 1234567890123456789


def test_header_names_in_any_case(peer: Peer, remote: Remote) -> None:
    raw = b'HTTP/1.1 200 OK\r\nx-asya-protocol: 1\r\nETAG:"V1"\r\ncontent-length:5\r\n\r\nhello'
    peer.start(lambda c: c.repeat(raw))
    content = remote.read(b"k")
    assert content is not None
    assert (content.data, content.version) == (b"hello", "V1")


@pytest.mark.parametrize("status", [200, 204, 412])
def test_every_answer_tells_its_etag(peer: Peer, status: int) -> None:
    """Also where the shim keeps heads without it, which differ by nothing else."""
    peer.start(lambda c: c.repeat(answer(status, b"", b'ETag: "v1"')))
    connection = Connection(peer.path, 10.0, time.monotonic)
    try:
        connection.send_all(b"GET / HTTP/1.1\r\nHost: state\r\n\r\n")
        response = connection.receive(False)
    finally:
        connection.close()
    assert response.header(b"etag") == b'"v1"'
    assert response.header(b"x-asya-protocol") == b"1"
    assert response.header(b"x-base-etag") == b""
    assert version_of(response) == "v1"


def test_head_ignores_the_length_of_what_it_does_not_carry(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(200, b"", b'ETag: "v1"', b"X-Is-File: true", length=77)))
    for _ in range(3):
        info = remote.stat(b"k")
        assert info is not None
        assert (info.is_file, info.size, info.version) == (True, 77, "v1")
    assert peer.connections == 1


def test_head_of_a_directory(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(200, b"", b"X-Is-File: false")))
    info = remote.stat(b"d")
    assert info is not None
    assert (info.is_file, info.version) == (False, "")


@pytest.mark.parametrize(
    ("status", "kind", "number"),
    [
        (403, PermissionError, errno.EACCES),
        (409, NotADirectoryError, errno.ENOTDIR),
        (414, OSError, errno.ENAMETOOLONG),
        (500, StateUnavailableError, errno.EIO),
    ],
)
def test_head_without_a_body_is_judged_by_status(
    peer: Peer, hasty: Remote, status: int, kind: type, number: int
) -> None:
    peer.start(lambda c: c.repeat(answer(status)))
    with pytest.raises(kind) as caught:
        hasty.stat(b"k")
    assert caught.value.errno == number


def test_only_key_not_found_is_absence(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(failure(404, "key_not_found")))
    assert remote.read(b"k") is None


def test_head_that_finds_nothing(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(404)))
    assert remote.stat(b"k") is None


def test_a_404_of_another_kind_is_an_outage(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(404, b"404: Not Found")))
    with pytest.raises(StateUnavailableError):
        remote.read(b"k")


def test_range_and_pinned_version(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(206, b"ell", b'ETag: "v1"', b"Content-Range: bytes 1-3/5")))
    content = remote.read(b"k", 1, 4, version="v1")
    assert content is not None
    assert (content.data, content.size) == (b"ell", 5)
    assert b"\r\nRange: bytes=1-3\r\n" in peer.requests[0]
    assert b'\r\nIf-Match: "v1"\r\n' in peer.requests[0]


def test_write_carries_condition_and_write_id(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(204, b"", b'ETag: "v2"')))
    assert remote.write(b"k", b"data", if_version="v1") == "v2"
    assert remote.write(b"k", memoryview(b"data")[::2], if_absent=True, write_id="mine") == "v2"
    first, second = peer.requests
    assert b'\r\nIf-Match: "v1"\r\n' in first
    assert first.endswith(b"\r\n\r\ndata")
    written = first.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]
    assert len(bytes.fromhex(written.decode())) * 8 >= 96
    assert b"\r\nIf-None-Match: *\r\n" in second
    assert b"\r\nIdempotency-Key: mine\r\n" in second
    assert second.endswith(b"\r\n\r\ndt")


def test_append_tells_what_it_was_added_to(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say(answer(204, b"", b'ETag: "v1"'))
        c.request()
        c.say(answer(204, b"", b'ETag: "v2"', b'X-Base-ETag: "v1"'))

    peer.start(script)
    assert remote.append(b"log", b"1") == ("v1", None)
    assert remote.append(b"log", b"2") == ("v2", "v1")


def test_rename_names_both_in_the_error(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(failure(412, "conflict")))
    with pytest.raises(StateConflictError) as caught:
        remote.rename(b"a", b"b", if_version="v", source_version="w")
    assert (caught.value.filename, caught.value.filename2) == ("/state/a", "/state/b")
    assert peer.requests[0].startswith(b"POST /keys/a?rename_to=b HTTP/1.1\r\n")
    assert b'\r\nX-Copy-Source-If-Match: "w"\r\n' in peer.requests[0]


def test_listing_is_paged_and_merged(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say(
            answer(
                200,
                b'{"keys": [{"key": "d/a%FF", "size": 3, "mtime_ns": 7, "etag": "v"}, '
                b'{"key": "d/c", "size": 1, "mtime_ns": 8, "etag": "w"}], "prefixes": ["d/b/"], "next": "d/c"}',
            )
        )
        c.request()
        c.say(answer(200, b'{"keys": [], "prefixes": ["d/e/"]}'))

    peer.start(script)
    names = list(remote.list(b"d/"))
    assert [(n.key, n.is_file) for n in names] == [(b"d/a\xff", True), (b"d/b", False), (b"d/c", True), (b"d/e", False)]
    assert names[0].version == "v"
    assert b"&after=d/c&" in peer.requests[1]


# Framing.


def test_answer_in_single_bytes(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        for byte in FOUND:
            c.say(bytes([byte]))

    peer.start(script)
    content = remote.read(b"k")
    assert content is not None
    assert content.data == b"hello"


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 3_000_000])
def test_bodies_of_any_size(peer: Peer, remote: Remote, size: int) -> None:
    body = os.urandom(size)
    peer.start(lambda c: c.repeat(answer(200, body, b'ETag: "v"')))
    for _ in range(2):
        content = remote.read(b"k")
        assert content is not None
        assert content.data == body
    assert remote.write(b"k", body) == "v"
    assert peer.requests[-1].endswith(b"\r\n\r\n" + body)
    assert peer.connections == 1


@pytest.mark.parametrize("trailer", [b"\r\n", b"X-Sum: 1\r\n\r\n"])
def test_chunked_answer(peer: Peer, remote: Remote, trailer: bytes) -> None:
    big = os.urandom(200_000)
    raw = b'HTTP/1.1 200 OK\r\n%sETag: "v"\r\nTransfer-Encoding: chunked\r\n\r\n' % OURS
    raw += b"5;x=y\r\nhello\r\n%x\r\n%s\r\n0\r\n%s" % (len(big), big, trailer)
    peer.start(lambda c: c.repeat(raw))
    for _ in range(2):
        content = remote.read(b"k")
        assert content is not None
        assert content.data == b"hello" + big
    assert peer.connections == 1


def test_answer_that_ends_with_the_connection(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say(b'HTTP/1.1 200 OK\r\n%sETag: "v"\r\nConnection: close\r\n\r\nto the end' % OURS)

    peer.start(script)
    for _ in range(2):
        content = remote.read(b"k")
        assert content is not None
        assert content.data == b"to the end"
    assert peer.connections == 2


def test_more_bytes_than_announced_are_never_taken_for_the_next_answer(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say((FOUND + FOUND) if c.number == 1 else FOUND)
        c.repeat(FOUND)

    peer.start(script)
    assert remote.read(b"k") is not None
    assert peer.connections == 2


def test_streamed_upload(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(answer(204, b"", b'ETag: "v"')))
    big = os.urandom(1_000_000)
    upload = remote.upload(b"k", if_version="u")
    upload.send(b"one")
    upload.send(b"")
    upload.send(bytearray(big))
    assert upload.finish() == "v"
    assert peer.requests[0].startswith(b"HEAD /keys/ HTTP/1.1\r\n")
    head, _, body = peer.requests[1].partition(b"\r\n\r\n")
    assert body == b"one" + big
    assert b'If-Match: "u"' in head
    assert b"Idempotency-Key: " in head
    assert remote.upload(b"k").finish() == "v"
    assert peer.connections == 1


def test_aborted_upload_never_ends_its_body(peer: Peer, remote: Remote) -> None:
    ended = threading.Event()

    def script(c: Conversation) -> None:
        c.request()
        c.say(answer(200))
        c.head()
        try:
            c.wait_for_end()
        finally:
            ended.set()

    peer.start(script)
    upload = remote.upload(b"k")
    upload.send(b"half")
    upload.abort()
    upload.abort()
    assert ended.wait(10)
    assert len(peer.requests) == 1


def send_much(upload: Upload) -> None:
    for _ in range(100):
        upload.send(bytes(100_000))


def test_refusal_before_the_body_is_read(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        if c.head().startswith(b"HEAD"):
            c.say(answer(200))
            c.head()
        c.say(failure(413, "too_large"))

    peer.start(script)
    with pytest.raises(OSError, match="because") as caught:
        remote.write(b"k", bytes(5_000_000))
    assert caught.value.errno == errno.EFBIG
    upload = remote.upload(b"k")
    with pytest.raises(OSError, match="because") as caught:
        send_much(upload)
    assert caught.value.errno == errno.EFBIG


# Failures.


@pytest.mark.parametrize("code", sorted(WIRE_ERRORS))
def test_every_code_becomes_its_exception(peer: Peer, hasty: Remote, code: str) -> None:
    row = WIRE_ERRORS[code]
    peer.start(lambda c: c.repeat(failure(row.status, code)))
    with pytest.raises(OSError, match="because") as caught:
        hasty.write(b"d/k", b"x")
    error = caught.value
    assert type(error).__name__ == row.raises
    assert error.errno == row.errno
    assert error.filename == "/state/d/k"
    assert error.strerror == "because (actor ns/chat, backend memory)"
    assert wire_code(error) == code
    assert len(peer.requests) == 1


def test_conflict_is_a_file_exists_error() -> None:
    assert issubclass(StateConflictError, FileExistsError)


@pytest.mark.parametrize("code", [*sorted(WIRE_ERRORS), "from_the_future"])
def test_errors_cross_processes(code: str) -> None:
    error = from_wire(code, "text", actor="a/b", backend="s3", filename="/state/x", filename2="/state/y")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.errno, again.strerror, again.filename, again.filename2) == (
        error.errno,
        error.strerror,
        "/state/x",
        "/state/y",
    )
    assert wire_code(again) == code


def test_no_socket_is_unavailable_after_the_deadline(peer: Peer, hasty: Remote) -> None:
    with pytest.raises(StateUnavailableError) as caught:
        hasty.stat(b"k")
    text = str(caught.value)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == "/state/k"
    for part in (peer.path, "ns/chat", "0.3 s", "asya-state-proxy", "No such file"):
        assert part in text
    assert wire_code(caught.value) == "unavailable"


def test_proxy_that_comes_late_is_waited_for(peer: Peer, remote: Remote) -> None:
    first_try = threading.Event()
    real = remote.client._sleep

    def sleep(seconds: float) -> None:
        first_try.set()
        real(seconds)

    remote.client._sleep = sleep

    def start() -> None:
        assert first_try.wait(10)
        peer.start(lambda c: c.repeat(FOUND))

    starter = threading.Thread(target=start)
    starter.start()
    assert remote.read(b"k") is not None
    starter.join()


def test_silent_peer_is_given_up(peer: Peer, hasty: Remote) -> None:
    peer.start(lambda c: c.wait_for_end())
    with pytest.raises(StateUnavailableError, match="no answer in time") as caught:
        hasty.read(b"k")
    assert wire_code(caught.value) == "unavailable"
    with pytest.raises(StateUnavailableError) as caught:
        hasty.write(b"k", b"x")
    assert wire_code(caught.value) == "unknown_outcome"


def test_slow_progress_is_not_a_failure(peer: Peer, hasty: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say(answer(200, b"", b'ETag: "v"', length=6))
        for _ in range(6):
            time.sleep(0.1)
            c.say(b"x")

    peer.start(script)
    content = hasty.read(b"k")
    assert content is not None
    assert content.data == b"xxxxxx"


@pytest.mark.parametrize("cut", [0, 1, 20, len(FOUND) - 1])
def test_cut_answers_are_asked_for_again(peer: Peer, remote: Remote, cut: int) -> None:
    def script(c: Conversation) -> None:
        c.request()
        if c.number < 3:
            c.say(FOUND[:cut])
        else:
            c.say(FOUND)

    peer.start(script)
    content = remote.read(b"k")
    assert content is not None
    assert content.data == b"hello"
    assert len(peer.requests) == 3


def test_change_is_repeated_with_its_write_id(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        if c.number == 3:
            c.say(answer(204, b"", b'ETag: "v"', b'X-Base-ETag: "u"'))

    peer.start(script)
    assert remote.append(b"k", b"line") == ("v", "u")
    assert len(peer.requests) == 3
    assert len(set(peer.requests)) == 1
    assert b"Idempotency-Key: " in peer.requests[0]


@pytest.mark.parametrize(
    ("code", "there", "version", "raises"),
    [
        ("key_not_found", False, None, None),
        ("key_not_found", False, "v", StateUnavailableError),
        ("conflict", False, "v", StateUnavailableError),
        ("conflict", True, "v", StateConflictError),
    ],
)
def test_delete_whose_answer_was_lost(
    peer: Peer, remote: Remote, code: str, there: bool, version: str | None, raises: type[OSError] | None
) -> None:
    def script(c: Conversation) -> None:
        c.request()
        if len(peer.requests) > 1:
            c.say(failure(404 if code == "key_not_found" else 412, code))
            c.repeat(answer(200 if there else 404, b"", b'ETag: "theirs"'))

    peer.start(script)
    with pytest.raises(raises) if raises else nullcontext():
        remote.delete(b"k", if_version=version)
    assert peer.requests[0] == peer.requests[1]


def test_delete_of_what_is_not_there(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(failure(404, "key_not_found")))
    with pytest.raises(FileNotFoundError):
        remote.delete(b"k")
    with pytest.raises(FileNotFoundError):
        remote.remove_directory(b"k")


def test_retryable_answers_are_asked_for_again(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        for refusal in (failure(503, "unavailable", True), failure(429, "busy", True), failure(504, "timeout", True)):
            c.request()
            c.say(refusal)
        c.request()
        c.say(FOUND)

    peer.start(script)
    assert remote.read(b"k") is not None
    assert len(peer.requests) == 4
    assert peer.connections == 1


def test_last_refusal_counts_at_the_deadline(peer: Peer, hasty: Remote) -> None:
    peer.start(lambda c: c.repeat(failure(429, "busy", True)))
    with pytest.raises(BlockingIOError):
        hasty.read(b"k")
    assert len(peer.requests) > 1


@pytest.mark.parametrize(("status", "code"), [(503, "unavailable"), (504, "timeout"), (429, "busy")])
def test_an_outage_after_a_lost_answer_leaves_the_outcome_unknown(
    peer: Peer, hasty: Remote, status: int, code: str
) -> None:
    """The change may have landed: who takes this for "not done" appends twice, or conflicts with itself."""

    def script(c: Conversation) -> None:
        c.request()
        if c.number > 1:
            c.say(failure(status, code, True))
            c.repeat(failure(status, code, True))

    peer.start(script)
    with pytest.raises(StateUnavailableError) as caught:
        hasty.append(b"k", b"line")
    assert wire_code(caught.value) == "unknown_outcome"
    assert len(set(peer.requests)) == 1


def test_a_rename_that_lost_its_answer_and_finds_no_source(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        if c.number > 1:
            c.say(failure(404, "key_not_found"))

    peer.start(script)
    with pytest.raises(StateUnavailableError) as caught:
        remote.rename(b"a", b"b")
    assert wire_code(caught.value) == "unknown_outcome"


def test_restart_of_the_proxy_is_not_noticed(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(FOUND))
    assert remote.read(b"k") is not None
    peer.stop()
    peer.start(lambda c: c.repeat(FOUND))
    assert remote.read(b"k") is not None
    upload_answer = answer(204, b"", b'ETag: "v"')
    peer.stop()
    peer.start(lambda c: c.repeat(upload_answer))
    upload = remote.upload(b"k")
    upload.send(b"x")
    assert upload.finish() == "v"


def test_upload_that_is_cut_is_not_repeated(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        c.request()
        c.say(answer(200))
        c.request()

    peer.start(script)
    upload = remote.upload(b"k")
    upload.send(b"x")
    with pytest.raises(StateUnavailableError, match="cannot be repeated") as caught:
        upload.finish()
    assert wire_code(caught.value) == "unknown_outcome"
    assert len(peer.requests) == 2


def test_upload_waits_for_a_proxy_that_is_not_ready(peer: Peer, remote: Remote) -> None:
    def script(c: Conversation) -> None:
        for status in (503, 503, 200):
            c.request()
            c.say(answer(status))
        c.repeat(answer(204, b"", b'ETag: "v"'))

    peer.start(script)
    upload = remote.upload(b"k")
    upload.send(b"x")
    assert upload.finish() == "v"
    assert [request[:4] for request in peer.requests] == [b"HEAD"] * 3 + [b"PUT "]


@pytest.mark.parametrize(
    ("ours", "says"),
    [(b"X-Asya-Protocol: 2\r\n", "speaks protocol 2, this shim speaks protocol 1"), (b"", "is no state proxy")],
)
def test_another_protocol_is_refused_in_one_line(peer: Peer, remote: Remote, ours: bytes, says: str) -> None:
    peer.start(lambda c: c.repeat(answer(200, b"hello", ours=ours)))
    with pytest.raises(StateUnavailableError, match=says) as caught:
        remote.read(b"k")
    assert "\n" not in str(caught.value)
    assert len(peer.requests) == 1


def test_not_http_at_all(peer: Peer, hasty: Remote) -> None:
    peer.start(lambda c: c.repeat(b"-ERR unknown command\r\n\r\n"))
    with pytest.raises(StateUnavailableError, match="not an HTTP answer"):
        hasty.read(b"k")


# Connections and who may use them.


def test_idle_connections_are_bounded(peer: Peer, remote: Remote) -> None:
    together = threading.Barrier(12)

    def script(c: Conversation) -> None:
        c.request()
        together.wait(10)
        c.say(FOUND)
        c.repeat(FOUND)

    peer.start(script)
    threads = [threading.Thread(target=remote.read, args=(b"k",)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert peer.connections == 12
    assert len(remote.client._idle) == 8


def test_more_of_a_large_body_may_be_on_its_way_than_the_kernel_lets_by_itself(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(FOUND))
    assert remote.read(b"k") is not None
    with socket.socket(socket.AF_UNIX) as plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert remote.client._idle[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > usual


def test_interrupted_call_gives_its_connection_up(peer: Peer, remote: Remote) -> None:
    """An alarm's TimeoutError is an OSError, and still the program's own: neither retried nor changed."""
    asked = threading.Event()

    def script(c: Conversation) -> None:
        if c.number == 1:
            c.request()
            asked.set()
            c.wait_for_end()
        else:
            c.repeat(FOUND)

    class Alarm(TimeoutError):
        pass

    def on_alarm(number: int, frame: object) -> None:
        raise Alarm("the program's own")

    peer.start(script)
    before = signal.signal(signal.SIGUSR1, on_alarm)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        assert asked.wait(10)
        signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(Alarm):
            remote.read(b"k")
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(peer.requests) == 1
    content = remote.read(b"k")
    assert content is not None
    assert content.data == b"hello"


def test_forked_child_uses_connections_of_its_own(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(FOUND))
    assert remote.read(b"k") is not None
    upload = remote.upload(b"k")
    upload.send(b"x")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        verdict = b"bad"
        try:
            try:
                upload.send(b"from the child")
            except StateUnavailableError:
                if remote.read(b"k") is not None:
                    verdict = b"good"
        finally:
            os.write(writer, verdict)
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    assert os.read(reader, 10) == b"good"
    os.close(reader)
    assert remote.read(b"k") is not None
    upload.send(b"y")
    upload.finish()
    assert peer.requests[-1].endswith(b"\r\n\r\nxy")


def test_default_timeout_of_the_program_is_not_ours(peer: Peer, remote: Remote) -> None:
    peer.start(lambda c: c.repeat(FOUND))
    socket.setdefaulttimeout(0.000001)
    try:
        assert remote.read(b"k") is not None
    finally:
        socket.setdefaulttimeout(None)
