"""Whether a backend keeps what it promises: probes, one after the other.

Some servers accept a condition and ignore it. What CAS then lacks is refused by name; in LWW the traits are
lowered, so that create-only, append and no-replace rename raise instead of lying. What only shows when many
write at once is `asya_proxy.races`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from asya_contract.names import RESERVED_SEGMENT
from asya_contract.wire import PROTOCOL
from asya_proxy.errors import Busy, Conflict, KeyNotFound, StoreError, Unsupported
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Precondition, Reading, Store, Traits, match
from asya_proxy.stores.capabilities import InParts, Operations, accepted

DAY = 86_400.0
PROBES = 2
"""What is asked here, as a number: raise it with the probes, so that no record of lesser ones is believed."""
PATIENCE = 5
"""How often a write is repeated that came too soon after another one of its key."""
PAUSE = 1.1
"""Seconds before that; backends that limit writes of one key allow one a second."""

IGNORES_ABSENT = "ignores If-None-Match"
LACKS_ABSENT = "takes no If-None-Match"
IGNORES_MATCH = "ignores If-Match"
REFUSES_CURRENT = "refuses a current If-Match"
LACKS_MATCH = "takes no If-Match"
LACKS_BOTH = "takes no conditions"

_ROOT = RESERVED_SEGMENT.encode()
_RECORD = _ROOT + b"/promises"
_LOSSES = frozenset({"conditional_put", "conditional_delete"})
"""The traits that a probe may find missing."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that is not kept: what an operation does, and the trait that is then missing."""

    operation: str
    fault: str
    trait: str = "conditional_put"

    def __str__(self) -> str:
        return f"{self.operation} {self.fault}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Broken promises."""

    broken: tuple[Broken, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(str(broken) for broken in self.broken)

    @property
    def fatal(self) -> tuple[str, ...]:
        """Those without which there is no CAS. A missing conditional delete only makes deletes raise."""
        return tuple(str(broken) for broken in self.broken if broken.trait == "conditional_put")

    def lower(self, traits: Traits) -> Traits:
        """What may still be claimed."""
        lost: dict[str, bool] = {broken.trait: False for broken in self.broken}
        return replace(traits, **lost)


async def at_start(store: Store) -> Verdict:
    """The verdict of the last day, where no promise of CAS was broken, else that of the probes, the quick ones first.

    Raises what a probe raised for other reasons: no permission, no answer.
    """
    reading = await store.get(_RECORD)
    found = None if reading is None else await _recorded(reading)
    if found is not None:
        return found
    stale = None if reading is None else reading.stat.version
    if isinstance(store, InParts) and await store.keeps_promises(_RECORD, _record(Verdict()), stale):
        return Verdict()
    return await probe(store)


async def _recorded(reading: Reading) -> Verdict | None:
    data = reading.data if reading.data is not None else await Body(stream=reading.stream).read()
    if time.time() - reading.stat.mtime_ns / 1e9 > DAY:
        return None
    try:
        found = json.loads(data)
        if (found["protocol"], found["probes"]) != (PROTOCOL, PROBES):
            return None
        verdict = _verdict(found["broken"])
    except (ValueError, TypeError, KeyError, RecursionError):  # somebody else's
        return None
    return None if verdict.fatal else verdict


def _verdict(broken: Any) -> Verdict:
    """Raises TypeError and ValueError where that is no list of broken promises that this release knows."""
    if not isinstance(broken, list):
        raise TypeError
    for fields in broken:
        texts = dict(fields)
        if not all(isinstance(text, str) for text in texts.values()) or texts.get("trait") not in _LOSSES:
            raise ValueError
    return Verdict(tuple(Broken(**fields) for fields in broken))


def _record(verdict: Verdict) -> bytes:
    """A record like no other, so that its version is none that was there before."""
    broken = [asdict(broken) for broken in verdict.broken]
    return json.dumps({"protocol": PROTOCOL, "probes": PROBES, "broken": broken, "test": secrets.token_hex(8)}).encode()


async def probe(store: Store) -> Verdict:
    """Ask for what must be refused, on a fresh key, and leave a record unless CAS is out of the question. At most seven
    calls of the store, and five more of one that writes large content by an operation of its own.

    Raises what a probe raised for other reasons: no permission, no answer.
    """
    key = fresh()
    names = store.operations if isinstance(store, InParts) else Operations()
    try:
        first = await _soon(lambda: store.put(key, Body(b"one"), _change(ABSENT)))
    except Unsupported:
        return Verdict((Broken(names.put, LACKS_ABSENT),))
    broken = await _probe_put(store, names.put, key, first.version)
    if not broken:
        # Else `first` is no stale version to go on with.
        if isinstance(store, InParts):
            broken += await _probe_completion(store, key, first.version)
        broken += await _probe_delete(store, names.delete, key, first.version)
    await remove(store, key)
    verdict = Verdict(tuple(broken))
    if not verdict.fatal:
        await _soon(lambda: store.put(_RECORD, Body(_record(verdict)), _change(ANY)))
    return verdict


async def _probe_put(store: Store, name: str, key: bytes, version: str) -> list[Broken]:
    try:
        if await accepted(put(store, key, b"two", ABSENT)):
            return [Broken(name, IGNORES_ABSENT)]
        if not await accepted(put(store, key, b"three", match(version))):
            return [Broken(name, REFUSES_CURRENT)]
        if await accepted(put(store, key, b"four", match(version))):
            return [Broken(name, IGNORES_MATCH)]
    except Unsupported:
        return [Broken(name, LACKS_MATCH)]
    return []


async def _probe_completion(store: InParts, key: bytes, stale: str) -> list[Broken]:
    name = store.operations.complete
    upload = await store.prepare(key, b"in parts")
    try:
        if await accepted(upload.complete(ABSENT)):
            return [Broken(name, IGNORES_ABSENT)]
        if await accepted(upload.complete(match(stale))):
            return [Broken(name, IGNORES_MATCH)]
    except Unsupported:
        await upload.abort()
        return [Broken(name, LACKS_BOTH)]
    await upload.abort()
    return []


async def _probe_delete(store: Store, name: str, key: bytes, stale: str) -> list[Broken]:
    try:
        await store.delete(key, _change(match(stale)))
    except Conflict:
        return []
    except Unsupported:
        return [Broken(name, LACKS_MATCH, "conditional_delete")]
    return [Broken(name, IGNORES_MATCH, "conditional_delete")]


async def put(store: Store, key: bytes, data: bytes, when: Precondition) -> str:
    return (await _soon(lambda: store.put(key, Body(data), _change(when)))).version


async def _soon(work: Callable[[], Awaitable[_T]]) -> _T:
    """`work`, again where the backend limits how often one key is written."""
    for _ in range(PATIENCE):
        try:
            return await work()
        except Busy:
            await asyncio.sleep(PAUSE)
    return await work()


async def remove(store: Store, key: bytes) -> None:
    try:
        await _soon(lambda: store.delete(key, _change(ANY)))
    except KeyNotFound:  # by a delete that should have been refused
        pass


def fresh() -> bytes:
    return _ROOT + b"/selftest/" + secrets.token_hex(12).encode()


def _change(when: Precondition) -> Change:
    return Change(secrets.token_urlsafe(16), when)


class BrokenPromise(StoreError):
    """CAS is asked of a backend that cannot keep it."""

    code = "unsupported"

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(
            f"this backend cannot do cas: {'; '.join(names)}. Use consistency lww, or a backend that keeps conditions"
        )
