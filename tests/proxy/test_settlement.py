"""The verdicts on lost answers, one by one."""

from __future__ import annotations

import pytest

from asya_proxy.settlement import Fate, Seen, bounded, judge, judge_delete
from asya_proxy.stores.base import ABSENT, ANY, Past, Precondition, Stat, match


def stat(version: str, *history: tuple[str, str | None]) -> Stat:
    return Stat(version, 0, 0, tuple(Past(*past) for past in history))


@pytest.mark.parametrize(
    ("found", "when", "fate"),
    [
        (stat("v2", ("me", "v1")), match("v1"), Fate.LANDED),
        (stat("v3", ("other", "v2"), ("me", "v1")), match("v1"), Fate.OVERTAKEN),
        (stat("v1", ("first", None)), match("v1"), Fate.NOT_LANDED),
        (stat("v2", ("other", "v1")), match("v1"), Fate.LOST),
        (stat("v3", ("third", "v2"), ("other", "v1")), match("v1"), Fate.LOST),
        (stat("v9", ("third", "v8")), match("v1"), Fate.UNKNOWN),
        (stat("v9"), match("v1"), Fate.UNKNOWN),
        (None, match("v1"), Fate.UNKNOWN),
        (None, ABSENT, Fate.NOT_LANDED),
        (stat("v1", ("me", None)), ABSENT, Fate.LANDED),
        (stat("v1", ("other", None)), ABSENT, Fate.LOST),
        (stat("v1"), ABSENT, Fate.UNKNOWN),
        (stat("v1", ("other", None)), ANY, Fate.NOT_LANDED),
        (None, ANY, Fate.NOT_LANDED),
    ],
)
def test_writes(found: Stat | None, when: Precondition, fate: Fate) -> None:
    assert judge(found, "me", when).fate is fate


@pytest.mark.parametrize(
    ("found", "when", "fate"),
    [
        (None, ANY, Fate.LANDED),
        (stat("v1"), ANY, Fate.NOT_LANDED),
        (None, match("v1"), Fate.UNKNOWN),
        (stat("v1"), match("v1"), Fate.NOT_LANDED),
        (stat("v2", ("other", "v1")), match("v1"), Fate.LOST),
        (stat("v2", ("other", None)), match("v1"), Fate.UNKNOWN),
    ],
)
def test_deletes(found: Stat | None, when: Precondition, fate: Fate) -> None:
    assert judge_delete(found, when) is fate


def test_a_history_is_cut_at_its_oldest() -> None:
    history = tuple(Past(f"{n:016}", f"{n:032}") for n in range(100))
    kept = bounded(history, "x" * 16, "y" * 32)
    assert kept == history[: len(kept)]
    assert len(kept) == 1024 // 50 - 1


def test_what_was_seen_is_a_bounded_hint() -> None:
    seen = Seen(size=2)
    for key in (b"a", b"b", b"c"):
        seen.note(key, stat(key.decode(), ("id", None)))
    assert (b"a" in seen, b"b" in seen, b"c" in seen) == (False, True, True)
    assert seen.history(b"b", "b") == (Past("id", None),)
    assert seen.history(b"b", "other") is None
    seen.note(b"b", None)
    assert b"b" not in seen
