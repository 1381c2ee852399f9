"""W3C trace context (https://www.w3.org/TR/trace-context/): the one header that ties a turn to its requests for state.

Only its form and where the current one is kept: nobody here makes spans.
"""

from __future__ import annotations

from _contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

HEADER = "traceparent"
_DIGITS = "0123456789abcdef"

incoming: ContextVar[Optional[str]] = ContextVar("asya_traceparent", default=None)
"""The `traceparent` of the request that the running code answers, checked; None where it came without."""


def checked(text: Optional[str]) -> Optional[str]:
    """`text` if it is a traceparent, None otherwise: a bad one is as good as none (section 3.2.2.5)."""
    if text is None or not 55 <= len(text) <= 128:
        return None
    version, *rest = text.split("-")
    if len(rest) < 3 or (version == "00" and len(rest) > 3) or version == "ff":
        return None
    for part, size in ((version, 2), (rest[0], 32), (rest[1], 16), (rest[2], 2)):
        if len(part) != size or part.strip(_DIGITS):
            return None
    # What follows belongs to a later version, and is passed on; it must fit in a header.
    if not rest[0].strip("0") or not rest[1].strip("0") or not (text.isascii() and text.isprintable()) or " " in text:
        return None
    return text


def trace_id(traceparent: Optional[str]) -> Optional[str]:
    """The id of the trace, 32 hex digits, of a `traceparent` that was checked."""
    return None if traceparent is None else traceparent[3:35]
