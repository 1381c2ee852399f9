"""Process 1 of a container: starts the real work as a child, forwards signals to it, reaps orphans.

The kernel gives process 1 no default action for signals and all orphans of the container; a Python
program that is process 1 itself would ignore SIGTERM and collect zombies.
"""

import os
import signal
from types import FrameType
from typing import Optional, Set

# Not to be caught, or about this process itself.
_OWN: "Set[int]" = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE}
_FAULTS: "Set[int]" = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def stand_in() -> None:
    """As process 1: returns in the child that does the work. Otherwise returns at once."""
    if os.getpid() == 1:
        supervise()


def supervise() -> None:
    """Fork; returns in the child. The parent ends with the child's status (128 + n after signal n)."""
    forwarded = {int(number) for number in signal.valid_signals()} - _OWN - _FAULTS
    # Held back until there is a child to send them to.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, forwarded)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return

    def forward(number: int, frame: Optional[FrameType]) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            # It has ended already; the wait below is about to learn it.
            return

    for number in sorted(forwarded):
        try:
            signal.signal(number, forward)
        except (OSError, ValueError):
            # The C library keeps some real-time signals to itself.
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
