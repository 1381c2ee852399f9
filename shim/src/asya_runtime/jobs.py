"""A request's way from the server's thread to the turn and back.

Everything that crosses threads crosses here. The server's side lives on the server's event loop; the
turn's side may be called from any thread or loop. A job is claimed by exactly one: by a worker, which
runs it, or by the server, which refuses it.
"""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any, Callable, Dict, NamedTuple, Optional

from asya_contract.tracing import trace_id
from asya_runtime.messages import Message, parse
from asya_runtime.turns import Turn


class Event(NamedTuple):
    """What a turn tells the server. `name` is started, downstream, upstream, ended or refused."""

    name: str
    data: bytes = b""
    taken: "Optional[Future[bool]]" = None


class Outcome(NamedTuple):
    """How a turn ended: `failure` with its details, or the body of the answer (None: nothing to answer)."""

    body: Optional[bytes] = None
    failure: Optional[Dict[str, Any]] = None
    streamed: bool = False


class Job:
    """One request that becomes a turn."""

    def __init__(
        self, body: bytes, message: Message, loop: asyncio.AbstractEventLoop, traceparent: Optional[str] = None
    ) -> None:
        self.message = message
        self.traceparent = traceparent
        self.told: Dict[str, Any] = {"id": message.id, "trace_id": trace_id(traceparent)}
        """What the log says of it in each line."""
        self.outcome: Optional[Outcome] = None
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        """Bounded by the turn, which waits for each of its frames to be taken."""
        self.abandoned = False
        """Nobody waits for the answer any more."""
        self.sent = False
        self.conflicts = 0
        self.reruns = 0
        self.on_end: Callable[[], None] = lambda: None
        """Called on the server's loop when the turn's code has ended, whoever still waits."""
        self._body = body
        self._first = True
        self._loop = loop
        self._lock = threading.Lock()
        self._claimed = False
        self._turn: Optional[Turn] = None
        self._interrupt: Optional[Callable[[], None]] = None
        self._expired = False

    @property
    def claimed(self) -> bool:
        """Whether it has begun, or was refused."""
        return self._claimed

    # The turn's side.

    def claim(self) -> bool:
        """Take the job; False where the other side was first."""
        with self._lock:
            first, self._claimed = not self._claimed, True
            return first

    def payload(self) -> Any:
        """The payload, decoded anew for every attempt but the first."""
        if self._first:
            self._first = False
            return self.message.payload
        return parse(self._body, bare=self.message.route is None).payload

    def begin(self, turn: Turn, interrupt: Optional[Callable[[], None]] = None) -> None:
        """Name the turn that runs it, and what ends its code early where that is possible."""
        with self._lock:
            self._turn, self._interrupt = turn, interrupt
            late = self._expired
        if late:
            turn.cancel()

    def committing(self) -> None:
        """From here on the turn's code is not interrupted."""
        with self._lock:
            self._interrupt = None

    @property
    def expired(self) -> bool:
        return self._expired

    def tell(self, event: Event) -> None:
        """Hand an event to the server; a frame's `taken` becomes False where nobody takes it."""
        try:
            self._loop.call_soon_threadsafe(self._arrive, event)
        except RuntimeError:
            # The server has ended.
            if event.taken is not None:
                event.taken.set_result(False)

    def send(self, name: str, data: bytes) -> "Future[bool]":
        """Send a frame; the future tells whether the client took it."""
        taken: Future[bool] = Future()
        self.sent = True
        self.tell(Event(name, data, taken))
        return taken

    def end(self, outcome: Outcome) -> None:
        """The turn's code has ended."""
        self.outcome = outcome
        self.tell(Event("ended"))

    # The server's side.

    def _arrive(self, event: Event) -> None:
        if event.name == "ended":
            self.on_end()
        if self.abandoned and event.taken is not None:
            event.taken.set_result(False)
        else:
            self.events.put_nowait(event)

    def abandon(self) -> None:
        """The client has left, or has been answered: frames are taken by nobody from now on."""
        self.abandoned = True
        while not self.events.empty():
            taken = self.events.get_nowait().taken
            if taken is not None:
                taken.set_result(False)

    def expire(self) -> Optional[Turn]:
        """The turn's time is over: end its code where that is possible; the turn, which is to be cancelled."""
        with self._lock:
            self._expired = True
            turn, interrupt = self._turn, self._interrupt
        if interrupt is not None:
            interrupt()
        self.abandon()
        return turn
