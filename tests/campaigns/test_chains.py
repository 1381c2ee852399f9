"""The audit itself: it counts what happened and finds what cannot have."""

from __future__ import annotations

from typing import Any

import pytest

from support.chains import audit


def history() -> list[dict[str, Any]]:
    """a, then b and c race, c wins; d's answer is lost and it landed, e's is lost and it did not; then f."""
    return [
        {"id": "a", "prev": "", "n": 1, "start": 0, "end": 1, "outcome": "done"},
        {"id": "b", "prev": "a", "n": 2, "start": 2, "end": 5, "outcome": "conflict"},
        {"id": "c", "prev": "a", "n": 2, "start": 2, "end": 3, "outcome": "done"},
        {"id": "d", "prev": "c", "n": 3, "start": 6, "end": 7, "outcome": "unknown"},
        {"id": "e", "prev": "d", "n": 4, "start": 8, "end": 9, "outcome": "unknown"},
        {"id": "f", "prev": "d", "n": 4, "start": 10, "end": 11, "outcome": "done"},
    ]


def test_what_happened_is_counted() -> None:
    found = audit(history(), "f", 4)
    assert (found.final, found.done, found.conflicts, found.unknown, found.unknown_landed) == (4, 3, 1, 2, 1)


@pytest.mark.parametrize(
    ("corrupt", "says"),
    [
        ({"id": "c", "outcome": "conflict"}, "and it landed"),
        ({"id": "f", "n": 5}, "one path"),
        ({"id": "f", "prev": "c", "n": 3}, "one path"),
        ({"id": "c", "prev": "zz"}, "nobody wrote it"),
        ({"id": "c", "prev": "f"}, "loop"),
        ({"id": "b", "prev": "f"}, "made up"),
        ({"id": "b", "end": 1.5}, "made up"),
        ({"id": "a", "start": 4, "end": 4.5}, "out of order"),
        ({"id": "b", "outcome": "done"}, "lost"),
    ],
)
def test_what_cannot_be_is_found(corrupt: dict[str, Any], says: str) -> None:
    records = [{**record, **corrupt} if record["id"] == corrupt["id"] else record for record in history()]
    with pytest.raises(AssertionError, match=says):
        audit(records, "f", 4)


def test_an_increment_that_vanished_is_found() -> None:
    records = history()
    with pytest.raises(AssertionError, match="lost"):
        audit(records, "d", 3)
