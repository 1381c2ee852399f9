"""The trace that a turn belongs to, and its header in the turn's requests for state.

A process that has never met one pays a look at `met` for each request, and nothing else.
"""

from __future__ import annotations

from asya_contract import tracing
from asya_shim import scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

met = False
"""Whether any turn of this process has been part of a trace."""


def follow(turn: scopes.Scope, traceparent: Optional[str]) -> None:
    """Let the requests of `turn` carry `traceparent`, which may be anything that somebody sent."""
    global met
    checked = tracing.checked(traceparent)
    if checked is not None:
        turn.traceparent = checked
        met = True


def with_header(head: bytes) -> bytes:
    """`head`, a request's to its empty line, with the header of the running code's turn, if that has one."""
    own = scopes.traceparent()
    if own is None:
        return head
    return b"%b%b: %b\r\n\r\n" % (head[:-2], tracing.HEADER.encode(), own.encode("ascii"))


def traceparent() -> Optional[str]:
    """The `traceparent` of the running turn, None where it came without one, and outside turns."""
    return scopes.traceparent() or tracing.incoming.get()
