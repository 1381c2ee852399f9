"""HTTP/1.1 over a Unix socket for one peer, the state proxy: what `http.client` does, at a tenth of its cost.

A call is one `sendall` and one `recv` on a pooled connection. The room knows deadlines,
retries and who may use which connection; it knows nothing of files, actors and error classes (`remote` does).

`timeout` seconds without a byte of progress end a call.
"""

from __future__ import annotations

import errno
import os
import time
from _weakref import ref

from asya_contract.wire import H_BACKEND, H_CONSISTENCY, H_PROTOCOL, PROTOCOL
from asya_shim import connection as connections
from asya_shim import traces
from asya_shim.connection import NOSIGNAL, Connection, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from types import TracebackType
    from typing import Dict, List, Optional

    from asya_shim.connection import Buffer

MAX_IDLE = 8
"""Connections kept open between calls, per mount and process."""
JOIN = 64 * 1024
"""Up to this size a body is copied behind its head, so that one `sendall` carries both."""
_PAUSE = 0.005
_MAX_PAUSE = 0.2
_NO_ANSWER = "no answer in time"
_RETRYABLE = (429, 503, 504)

_PROTOCOL_NAME = H_PROTOCOL.lower().encode()
_CONSISTENCY_NAME = H_CONSISTENCY.lower().encode()
_BACKEND_NAME = H_BACKEND.lower().encode()


class Unanswered(Exception):
    """No answer within the deadline. `lost`: a change was sent, so it may have been done."""

    def __init__(self, reason: str, *, lost: bool) -> None:
        super().__init__(reason)
        self.lost = lost


class WrongPeer(Exception):
    """Whoever answers on the socket does not speak our protocol; asking again cannot help."""


class Broken(Exception):
    """One attempt failed; another may not. `sent`: the peer may have understood the request."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Client:
    """Calls to the proxy behind one socket. Safe for threads and signal handlers; a forked child starts with none.

    `consistency` and `backend` are "" until the first answer.
    """

    def __init__(self, path: str, timeout: float, *, max_idle: int = MAX_IDLE) -> None:
        self.path = path
        self.timeout = timeout
        self.consistency = ""
        self.backend = ""
        self._max_idle = max_idle
        # A list's append and pop are atomic; last in, first out keeps few connections warm.
        self._idle: List[Connection] = []
        # Kept on the object: test suites replace `time` in modules.
        self._clock = time.monotonic
        self._sleep = time.sleep
        identity, clients = id(self), _clients
        # No name of this module: at the interpreter's end those are gone before the last client.
        clients[identity] = ref(self, lambda _: clients.pop(identity, None))

    def close(self) -> None:
        """Close what lies idle. The client stays usable."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def __del__(self) -> None:
        for connection in getattr(self, "_idle", ()):
            connection.close()

    def request(self, head: bytes, body: Buffer = b"", *, bodyless: bool = False, change: bool = False) -> Response:
        """Send `head` (request line and headers with the empty line) and `body`, and read the answer.

        Repeats it, byte for byte, until `timeout` seconds have passed without progress: `body` is at hand, and
        a `change` carries its write id. Answers with another status than a retryable one are returned.

        Raises:
            Unanswered: nobody answered in time.
            WrongPeer: an answer of another protocol.
        """
        if traces.met:
            head = traces.with_header(head)
        size = len(body)
        message: Optional[Buffer] = head if not size else (head + body if size <= JOIN else None)
        began = self._clock()
        # Made when something fails: a warm connection and a peer that answers need no book-keeping.
        call: Optional[_Call] = None
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                call = call or _Call(self, change, began)
                connection = self._connect(call)
            if call is not None and call.attempts:
                connection.wait_at_most(max(call.remaining(), 0.001))
            try:
                try:
                    if message is not None:
                        connection.sock.sendall(message, NOSIGNAL)
                    else:
                        connection.sock.sendall(head, NOSIGNAL)
                        connection.send_all(body)
                except OSError as error:
                    response = self.refusal(connection, error, bodyless)
                except BaseException:
                    connection.close()
                    raise
                else:
                    response = self.receive(connection, bodyless)
            except Broken as failure:
                call = call or _Call(self, change, began)
                call.failed(failure, connection)
                continue
            if response.status in _RETRYABLE:
                call = call or _Call(self, change, began)
                if call.again(response, bodyless):
                    continue
            if call is not None:
                response.repeated = call.lost
            return response

    def take(self) -> Optional[Connection]:
        """A connection of the caller's own that has answered before and is alive, None where there is none idle."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    def open(self) -> Connection:
        """A new connection of the caller's own. Raises Unanswered."""
        return self._connect(_Call(self, False, self._clock()))

    def receive(self, connection: Connection, bodyless: bool = False) -> Response:
        """Read the answer on `connection` and take it back into the pool; closes it where that fails.

        Raises Broken and WrongPeer.
        """
        try:
            response = connection.receive(bodyless)
        except (OSError, EOFError, ValueError) as error:
            connection.close()
            raise self._broken(error, sent=True) from None
        except BaseException:
            connection.close()
            raise
        if not connection.proven:
            self._prove(connection, response)
        idle = self._idle
        if response.head.keep and len(idle) < self._max_idle:
            if connection.patience != self.timeout:
                connection.wait_at_most(self.timeout)
            if connection.moved:
                connection.moved = 0
            idle.append(connection)
        else:
            connection.close()
        return response

    def refusal(self, connection: Connection, error: OSError, bodyless: bool = False) -> Response:
        """The answer of a peer that stopped reading a request to refuse it. Closes `connection`.

        Raises Broken where there is none; the request was not sent whole then, so nothing was done.
        """
        try:
            broken = self._broken(error, sent=False)
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise broken from None
            try:
                response = connection.receive(bodyless)
            except (OSError, EOFError, ValueError):
                raise broken from None
            if not connection.proven:
                self._prove(connection, response)
            return response
        finally:
            connection.close()

    def _prove(self, connection: Connection, response: Response) -> None:
        """Check, once per connection, that the peer is a proxy of our protocol."""
        spoken = response.header(_PROTOCOL_NAME).decode("latin-1")
        if spoken != PROTOCOL:
            connection.close()
            what = f"speaks protocol {spoken}" if spoken else f"is no state proxy (no {H_PROTOCOL} in its answer)"
            raise WrongPeer(
                f"the peer at {self.path} {what}, this shim speaks protocol {PROTOCOL}: "
                "use shim and proxy of one release (asya-state-proxy install)"
            )
        connection.proven = True
        self.consistency = response.header(_CONSISTENCY_NAME).decode("latin-1")
        self.backend = response.header(_BACKEND_NAME).decode("latin-1") or self.backend

    def _connect(self, call: _Call) -> Connection:
        while True:
            try:
                return Connection(
                    self.path, max(call.remaining(), 0.001) if call.attempts else self.timeout, self._clock
                )
            except OSError as error:
                call.failed(self._broken(error, sent=False), None)

    def _broken(self, error: Exception, *, sent: bool) -> Broken:
        """What a failure of the socket means; raises `error` itself where it is not the socket's."""
        if isinstance(error, OSError):
            if not _from_here(error.__traceback__):
                # A signal handler's own exception, such as the TimeoutError of an alarm.
                raise error
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                return Broken(_NO_ANSWER, sent=sent)
        return Broken(getattr(error, "strerror", None) or str(error), sent=sent)


class _Call:
    """How long one call goes on: its deadline, its pauses, and whether a change of it got lost on the way."""

    __slots__ = ("_change", "_client", "_deadline", "_farthest", "_pause", "_reason", "attempts", "lost")

    def __init__(self, client: Client, change: bool, began: float) -> None:
        self._client = client
        self._change = change
        self._deadline = began + client.timeout
        self._farthest = 0
        self._pause = 0.0
        self._reason = ""
        self.attempts = 0
        self.lost = False

    def remaining(self) -> float:
        return self._deadline - self._client._clock()

    def failed(self, failure: Broken, connection: Optional[Connection]) -> None:
        """Note a failed attempt and wait for the next; raises Unanswered where there is no time for one."""
        self.lost = self.lost or (self._change and failure.sent)
        if connection is not None and connection.moved > self._farthest:
            # Only bytes beyond what any attempt moved are progress, else a peer could keep us forever.
            self._farthest = connection.moved
            self._deadline = connection.moved_at + self._client.timeout
        self.attempts += 1
        if connection is not None and connection.proven:
            # It died while idle, and its sisters with it: ask again at once, on a new one.
            self._client.close()
            if self.attempts == 1:
                return
        # The last attempt has the least time: what an earlier one met tells more.
        if not self._reason or str(failure) != _NO_ANSWER:
            self._reason = str(failure)
        self._wait()

    def again(self, response: Response, bodyless: bool) -> bool:
        """Whether a retryable answer is to be asked for anew; waits then. The last answer counts at the end."""
        if not bodyless and not response.error()[2]:
            return False
        self.attempts += 1
        if self.remaining() <= 0:
            return False
        self._pause_once()
        return True

    def _wait(self) -> None:
        if self.remaining() <= 0:
            raise Unanswered(
                f"the state proxy at {self._client.path} did not answer within {self._client.timeout:g} s "
                f"({self._reason}, {self.attempts} attempts)",
                lost=self.lost,
            ) from None
        self._pause_once()

    def _pause_once(self) -> None:
        self._pause = min(self._pause * 2 or _PAUSE, _MAX_PAUSE)
        self._client._sleep(max(0.0, min(self._pause, self.remaining())))


def _from_here(traceback: Optional[TracebackType]) -> bool:
    """Whether an exception was raised by a call of this room itself, not by a signal handler that ran in it."""
    last = None
    while traceback is not None:
        last, traceback = traceback, traceback.tb_next
    return last is not None and any(last.tb_frame.f_globals is room for room in (globals(), vars(connections)))


_clients: Dict[int, weakref.ref[Client]] = {}


def _forget_after_fork() -> None:
    """The sockets stay the parent's: the child closes its copies, which the peer does not notice."""
    for client in [reference() for reference in list(_clients.values())]:
        if client is not None:
            client.close()


os.register_at_fork(after_in_child=_forget_after_fork)
