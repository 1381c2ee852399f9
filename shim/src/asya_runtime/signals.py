"""SIGTERM and SIGINT: the first drains, the second exits.

The interpreter writes each signal to a socket the moment it arrives (`signal.set_wakeup_fd`), which
the server's thread reads: a handler deep in C code delays a Python signal handler, not the drain.
The Python handler counts too, for programs that take the wake-up descriptor for themselves.
"""

import os
import signal
import socket
import threading
from types import FrameType
from typing import Any, Callable, Dict, Optional

from asya_runtime.logs import log

_STOP = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Installed by the main thread. `drain` may be called from either thread and more than once."""

    def __init__(self, drain: Callable[[], None]) -> None:
        self._drain = drain
        self._seen: Dict[str, int] = {"woken": 0, "handled": 0}
        self.starting = True
        """Nothing to drain yet: a signal ends the process as it would any other."""
        self.reader, self._writer = socket.socketpair()
        self.reader.setblocking(False)
        self._writer.setblocking(False)

    def install(self) -> None:
        """Take over both signals; a forked child gets back what was there before."""
        before: Dict[int, Any] = {number: signal.signal(number, self._handle) for number in _STOP}
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        masks = threading.local()

        def hold() -> None:
            # A child that is signalled before it has let go of our socket would signal us.
            masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)

        def release() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

        def restore() -> None:
            for number, handler in before.items():
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, handler)
            current = signal.set_wakeup_fd(-1)
            if current not in (-1, self._writer.fileno()):
                signal.set_wakeup_fd(current)
            release()

        os.register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)

    def woken(self, numbers: bytes) -> None:
        """On the server's thread, with the numbers of the signals that arrived."""
        self._count("woken", sum(numbers.count(number) for number in _STOP))

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        self._count("handled", 1)

    def _count(self, who: str, number: int) -> None:
        if not number:
            return
        self._seen[who] += number
        if self.starting or self._seen[who] > 1:
            # Not by an exception: it would rise in the handler's code, which may catch it.
            log("warning", "signal, exiting at once", starting=self.starting)
            os._exit(128 + signal.SIGTERM)
        self._drain()
