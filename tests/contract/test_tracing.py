"""The form of a traceparent."""

import pytest

from asya_contract.tracing import checked, trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("text", [GOOD, f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01-later"])
def test_what_is_one(text: str) -> None:
    assert checked(text) == text
    assert trace_id(checked(text)) == TRACE


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "00",
        GOOD.upper(),
        GOOD[:-1],
        f"{GOOD}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-001",
        f"01-{TRACE}-{SPAN}-01-a b",
        f"01-{TRACE}-{SPAN}-01-\r\nX: y",
        f"01-{TRACE}-{SPAN}-01-{'x' * 100}",
    ],
)
def test_what_is_none(text: str | None) -> None:
    assert checked(text) is None
    assert trace_id(None) is None
