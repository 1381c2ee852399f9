"""The audit of a file that every writer links to what it replaced: `{"n": value, "id": who, "prev": id}`.

Linear in the number of writes, for any number of clients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Audit:
    """What a run of writers came to, in numbers of writes."""

    final: int
    done: int
    conflicts: int
    unknown: int
    unknown_landed: int

    def __str__(self) -> str:
        return (
            f"final {self.final} = {self.done} acknowledged + {self.unknown_landed} of {self.unknown} unknown; "
            f"{self.conflicts} conflicts, none false"
        )


def audit(records: Sequence[Record], last: str, final: int) -> Audit:
    """Follow the chain back from `last`, the id in the file at the end, whose value is `final`.

    AssertionError where a write is lost, doubled or out of order, or a conflict was made up.
    """
    by_id = {record["id"]: record for record in records}
    assert len(by_id) == len(records), "write ids are unique"
    chain: list[Record] = []
    at = last
    while at:
        assert at in by_id, f"{at!r} is in the file and nobody wrote it"
        chain.append(by_id[at])
        assert len(chain) <= len(records), "the chain has a loop"
        at = chain[-1]["prev"]
    chain.reverse()
    assert [record["n"] for record in chain] == list(range(1, final + 1)), "the values are not those of one path"
    on_chain = {record["id"] for record in chain}
    outcomes = Counter(record["outcome"] for record in records)
    for record in records:
        if record["outcome"] == "done":
            assert record["id"] in on_chain, f"lost: {record}"
        elif record["outcome"] in ("conflict", "exists"):
            assert record["id"] not in on_chain, f"a conflict, and it landed: {record}"
    _check_conflicts(records, chain)
    _check_order(chain)
    landed = sum(record["outcome"] == "unknown" for record in chain)
    assert final == outcomes["done"] + landed
    refused = outcomes["conflict"] + outcomes["exists"]
    return Audit(final, outcomes["done"], refused, outcomes["unknown"], landed)


def _check_conflicts(records: Sequence[Record], chain: Sequence[Record]) -> None:
    """Whoever lost was right to lose: what it relied on was replaced by a write begun before it was told so."""
    successor = {record["prev"]: record for record in chain}
    for record in records:
        if record["outcome"] in ("conflict", "exists"):
            winner = successor.get(record["prev"])
            assert winner is not None, f"made up: nothing replaced {record['prev']!r}: {record}"
            assert winner["start"] < record["end"], f"made up: told before the winner began: {record}"


def _check_order(chain: Sequence[Record]) -> None:
    """No write stands before one that was over before it began."""
    latest = 0.0
    for record in chain:
        if record["outcome"] == "done":
            assert record["end"] >= latest, f"out of order: {record}"
        latest = max(latest, record["start"])
