"""Whether a backend keeps what it promises: probes one after the other at start, races on demand.

Some servers accept a condition and ignore it. What CAS then lacks is refused by name; in LWW the traits are
lowered, so that create-only, append and no-replace rename raise instead of lying.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import dataclass, replace

from asya_contract.names import RESERVED_SEGMENT
from asya_contract.wire import PROTOCOL
from asya_proxy.errors import Conflict, Exists, StoreError, Unavailable, Unsupported
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Precondition, Store, Traits, match

DAY = 86_400.0
RACERS = 16
CREATE_ROUNDS = 20
MATCH_ROUNDS = 40

_ROOT = RESERVED_SEGMENT.encode()
_RECORD = _ROOT + b"/promises"

PUT_CREATES_TWICE = "put ignores If-None-Match"
PUT_REFUSES_CURRENT = "put refuses a current If-Match"
PUT_IGNORES_MATCH = "put ignores If-Match"
DELETE_IGNORES_MATCH = "delete ignores If-Match"
DELETE_LACKS_MATCH = "delete takes no If-Match"
CREATE_RACE = "racing creates have more than one winner"
MATCH_RACE = "racing writes over one version have more than one winner"

_OF_PUT = frozenset({PUT_CREATES_TWICE, PUT_REFUSES_CURRENT, PUT_IGNORES_MATCH, CREATE_RACE, MATCH_RACE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Broken promises by name."""

    broken: tuple[str, ...]

    @property
    def fatal(self) -> tuple[str, ...]:
        """Those without which there is no CAS. A missing conditional delete only makes deletes raise."""
        return tuple(name for name in self.broken if name in _OF_PUT)

    def lower(self, traits: Traits) -> Traits:
        """What may still be claimed."""
        if self.fatal:
            traits = replace(traits, conditional_put=False)
        if {DELETE_IGNORES_MATCH, DELETE_LACKS_MATCH} & set(self.broken):
            traits = replace(traits, conditional_delete=False)
        return traits


async def recorded(store: Store) -> Verdict | None:
    """The verdict of the last day, where all was well. One request."""
    reading = await store.get(_RECORD)
    if reading is None or time.time() - reading.stat.mtime_ns / 1e9 > DAY:
        return None
    try:
        data = reading.data if reading.data is not None else await Body(stream=reading.stream).read()
        record = json.loads(data)
        return Verdict(()) if record == _passed() else None
    except ValueError:
        return None


async def probe(store: Store) -> Verdict:
    """Ask for what must be refused, on a fresh key. At most 7 requests, the record of success included.

    Raises what a probe raised for other reasons: no permission, no answer.
    """
    key = _ROOT + b"/selftest/" + secrets.token_hex(12).encode()
    broken: list[str] = []
    first = await store.put(key, Body(b"one"), _change(ABSENT))
    if await _accepted(store, key, b"two", ABSENT):
        broken.append(PUT_CREATES_TWICE)
    elif not await _accepted(store, key, b"three", match(first.version)):
        broken.append(PUT_REFUSES_CURRENT)
    if broken:
        # `first` is no stale version to go on with.
        await store.delete(key, _change(ANY))
        return Verdict(tuple(broken))
    if await _accepted(store, key, b"four", match(first.version)):
        broken.append(PUT_IGNORES_MATCH)
    deleted = False
    try:
        await store.delete(key, _change(match(first.version)))
        deleted = True
        broken.append(DELETE_IGNORES_MATCH)
    except Conflict:
        pass
    except Unsupported:
        broken.append(DELETE_LACKS_MATCH)
    if not deleted:
        await store.delete(key, _change(ANY))
    if not broken:
        await store.put(_RECORD, Body(json.dumps(_passed()).encode()), _change(ANY))
    return Verdict(tuple(broken))


async def races(store: Store) -> Verdict:
    """What no serial probe can see: `RACERS` at once, exactly one may win each round."""
    broken: list[str] = []
    for _ in range(CREATE_ROUNDS):
        key = _ROOT + b"/selftest/" + secrets.token_hex(12).encode()
        if await _winners(store, key, ABSENT) != 1:
            broken.append(CREATE_RACE)
            break
    key = _ROOT + b"/selftest/" + secrets.token_hex(12).encode()
    current = await store.put(key, Body(b"0"), _change(ABSENT))
    for _ in range(MATCH_ROUNDS):
        if await _winners(store, key, match(current.version), remove=False) != 1:
            broken.append(MATCH_RACE)
            break
        stat = await store.head(key)
        if stat is None:
            raise Unavailable("the file of the races is gone; do not run two of them on one prefix")
        current = stat
    await store.delete(key, _change(ANY))
    return Verdict(tuple(broken))


async def _winners(store: Store, key: bytes, when: Precondition, *, remove: bool = True) -> int:
    racers = (_accepted(store, key, b"racer %d" % number, when) for number in range(RACERS))
    won = await asyncio.gather(*racers)
    if remove:
        await store.delete(key, _change(ANY))
    return sum(won)


async def _accepted(store: Store, key: bytes, data: bytes, when: Precondition) -> bool:
    try:
        await store.put(key, Body(data), _change(when))
    except (Conflict, Exists):
        return False
    return True


def _change(when: Precondition) -> Change:
    return Change(secrets.token_urlsafe(16), when)


def _passed() -> dict[str, str]:
    return {"protocol": PROTOCOL, "verdict": "all promises kept"}


class BrokenPromise(StoreError):
    """CAS is asked of a backend that cannot keep it."""

    code = "unsupported"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(
            f"this backend cannot do cas: {'; '.join(names)}. Use consistency lww, or a backend that keeps conditions"
        )
