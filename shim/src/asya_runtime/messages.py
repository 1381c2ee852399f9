"""Messages as values: envelopes in, frames and error bodies out. No I/O.

An envelope carries a payload and its route through several actors; a bare message is the payload
alone, for people with curl. Both give a `Message`, and the answer has the form of the question.
"""

import json
import traceback
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional

UPSTREAM = "FLY"
"""A generator that yields `("FLY", value)` sends `value` back to whoever asked, not on along the route."""


class BadMessage(ValueError):
    """The request's body is not a message; the text names the field, what it holds and what it should."""


class NotJson(TypeError):
    """What the handler returned or yielded cannot be written as JSON."""


class Route(NamedTuple):
    """Where a message comes from, where it is, and where it goes."""

    prev: List[str]
    curr: str
    next: List[str]

    def advanced(self) -> "Route":
        """The route behind this actor."""
        return Route(self.prev + ([self.curr] if self.curr else []), self.next[0] if self.next else "", self.next[1:])


class Message(NamedTuple):
    """A message as it came. `route` is None for a bare payload."""

    payload: Any
    id: Optional[str] = None
    route: Optional[Route] = None
    headers: Optional[Dict[str, Any]] = None

    def frame(self, result: Any) -> bytes:
        """One result on its way on: a frame, or the bare result. Raises NotJson."""
        if self.route is None:
            return encode(result)
        return encode({"payload": result, "route": self.route.advanced()._asdict(), "headers": self.headers or {}})

    def answer(self, frame: bytes) -> bytes:
        """The body of the answer that consists of one frame."""
        return frame if self.route is None else b'{"frames": [' + frame + b"]}"


def parse(body: bytes, *, bare: bool) -> Message:
    """Read a request's body as a bare payload or as an envelope. Raises BadMessage."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"the body is not JSON: {error}") from error
    return Message(document) if bare else _envelope(document)


def _envelope(document: Any) -> Message:
    if not isinstance(document, dict):
        raise BadMessage(f"the body is {_kind(document)}: expected an object with route and payload")
    for name in ("route", "payload"):
        if name not in document:
            raise BadMessage(
                f"{name} is missing: expected "
                '{"id"?, "route": {"prev": [], "curr": "", "next": []}, "headers"?, "payload"}'
            )
    route = document["route"]
    if not isinstance(route, dict):
        raise BadMessage(f"route is {_kind(route)}: expected an object with prev, curr and next")
    unknown = sorted(set(route) - {"prev", "curr", "next"})
    if unknown:
        raise BadMessage(f"route.{unknown[0]} is not known: expected prev, curr and next")
    curr = route.get("curr", "")
    if not isinstance(curr, str):
        raise BadMessage(f"route.curr is {_kind(curr)}: expected a string")
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise BadMessage(f"id is {_kind(identifier)}: expected a string")
    headers = document.get("headers")
    if headers is not None and not isinstance(headers, dict):
        raise BadMessage(f"headers is {_kind(headers)}: expected an object")
    stops = Route(_names(route, "prev"), curr, _names(route, "next"))
    return Message(document["payload"], identifier, stops, headers)


def _names(route: Dict[str, Any], field: str) -> List[str]:
    names = route.get(field, [])
    if not isinstance(names, list):
        raise BadMessage(f"route.{field} is {_kind(names)}: expected a list of strings")
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise BadMessage(f"route.{field}[{position}] is {_kind(name)}: expected a string")
    return names


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return kinds.get(type(value), "a number")


def encode(value: Any) -> bytes:
    """`value` as JSON. Raises NotJson, naming the type that stands in the way."""
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"the handler's result is not JSON: {error} (result of type {_name(type(value))})") from error


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def describe(error: BaseException) -> Dict[str, Any]:
    """What an error body says of an exception: message, type, the classes above it, and the traceback."""
    return {
        "message": _text(error),
        "type": _name(type(error)),
        "mro": [_name(kind) for kind in type(error).__mro__[1:] if kind not in (BaseException, object)],
        "traceback": "".join(traceback.format_exception(type(error), error, _theirs(error.__traceback__), chain=True)),
    }


def raised(said: Dict[str, Any]) -> Dict[str, Any]:
    """What `describe` says, by the keys of the log."""
    return {"cause": said["message"], "type": said["type"], "mro": said["mro"], "exception": said["traceback"]}


def _text(error: BaseException) -> str:
    """What an exception says; a `__str__` that fails must not take the turn's answer with it."""
    try:
        return str(error)
    except Exception as failure:
        return f"str() of it raised {type(failure).__name__}"


def _theirs(trace: Optional[TracebackType]) -> Optional[TracebackType]:
    """The traceback without the runtime's own frames at its top, all of it where there are no others."""
    own = __package__ or "asya_runtime"
    part = trace
    while part is not None and str(part.tb_frame.f_globals.get("__package__")) == own:
        part = part.tb_next
    return part or trace


def error_body(code: str, details: Dict[str, Any]) -> bytes:
    """`{"error": code, "details": {...}}`."""
    return json.dumps({"error": code, "details": details}).encode()
