"""One change of a store until its fate is known, whatever becomes of its answers.

A store does one attempt and tells the truth about it. Here reads are repeated until they are answered, changes as
long as they certainly did not happen, and a change whose answer was lost is looked up by its write id. What a change
is made of, and what may be asked for at all, is told elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Busy, Conflict, Exists, KeyNotFound, StoreError, Unavailable, UnknownOutcome
from asya_proxy.metrics import MountMetrics
from asya_proxy.settlement import Fate, Seen, bounded, is_superseded, judge, judge_delete, overtaken
from asya_proxy.stores.base import ANY, Body, Change, Page, Past, Precondition, Reading, Stat, Store, Traits

_T = TypeVar("_T")

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


class Wish(NamedTuple):
    """A change as a client wants it. `named` tells that the write id is the client's own: only then may the
    change be sent again after an answer was lost."""

    id: str
    when: Precondition = ANY
    named: bool = True

    @staticmethod
    def unnamed(when: Precondition = ANY) -> Wish:
        return Wish(secrets.token_urlsafe(16), when, False)

    def part(self, name: str, when: Precondition) -> Wish:
        """A change that is a step of this one, with an id of its own that is the same each time."""
        return Wish(f"{self.id}-{name}", when, self.named)


class Patience:
    """The time of one request, and the pauses between its attempts."""

    __slots__ = ("_attempts", "_pause", "_until")

    def __init__(self, attempts: Attempts, began: float | None = None) -> None:
        self._attempts = attempts
        self._until = (attempts.deadlines.now() if began is None else began) + attempts.request_timeout
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        return max(0.0, self._until - self._attempts.deadlines.now())

    async def pause(self, failure: StoreError) -> None:
        """Wait before the next attempt; raises `failure` where no time is left for one."""
        pause = self._pause * random.uniform(0.5, 1.5)  # noqa: S311
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        if pause >= self.left:
            # Made uncounted, for the case that a further attempt settles it.
            self._attempts.figures.unknown_outcomes += isinstance(failure, UnknownOutcome)
            raise failure
        self._attempts.figures.retries += 1
        await asyncio.sleep(pause)


class Attempts:
    """A store, and what this process knows of it. `traits` may claim less than the store does."""

    def __init__(
        self,
        store: Store,
        figures: MountMetrics,
        deadlines: Deadlines,
        *,
        cas: bool,
        request_timeout: float = 25.0,
    ) -> None:
        self.store = store
        self.figures = figures
        self.deadlines = deadlines
        self.cas = cas
        self.request_timeout = request_timeout
        self.traits: Traits = store.traits
        self.seen = Seen()

    # Reading: repeated until it is answered.

    async def head(self, key: bytes) -> Stat | None:
        try:
            stat = await self.store.head(key)
        except (Unavailable, Busy) as failure:
            stat = await self._again(failure, lambda: self.store.head(key))
        self.note(key, stat)
        return stat

    async def get(
        self, key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None
    ) -> Reading | None:
        if is_superseded(version):
            raise Conflict("the file has been written over since")
        try:
            reading = await self.store.get(key, start=start, end=end, version=version)
        except (Unavailable, Busy) as failure:
            reading = await self._again(failure, lambda: self.store.get(key, start=start, end=end, version=version))
        self.note(key, None if reading is None else reading.stat)
        return reading

    async def list(self, prefix: bytes, *, delimiter: bool = False, after: bytes = b"", limit: int = 1000) -> Page:
        try:
            return await self.store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        except (Unavailable, Busy) as failure:
            return await self._again(
                failure, lambda: self.store.list(prefix, delimiter=delimiter, after=after, limit=limit)
            )

    async def _again(self, failure: StoreError, work: Callable[[], Awaitable[_T]]) -> _T:
        patience = Patience(self)
        while True:
            await patience.pause(failure)
            try:
                return await work()
            except (Unavailable, Busy) as again:
                failure = again

    def note(self, key: bytes, stat: Stat | None) -> None:
        """What a key was seen to be."""
        # A store that is both idempotent and a tree needs neither histories nor known names.
        if not (self.traits.idempotent and self.traits.tree):
            self.seen.note(key, stat)

    # Changing.

    async def put_settled(
        self, key: bytes, body: Body, wish: Wish, patience: Patience, failed: StoreError | None = None
    ) -> Stat:
        """Write the whole file. `failed` is what a first attempt raised."""

        def attempt(change: Change) -> Awaitable[Stat]:
            return self.store.put(key, body, change)

        return await self.settled(key, wish, patience, attempt, replayable=body.replayable, failed=failed)

    async def settled(
        self,
        key: bytes,
        wish: Wish,
        patience: Patience,
        attempt: Callable[[Change], Awaitable[Stat]],
        *,
        replayable: bool = True,
        absence_tells: bool = False,
        failed: StoreError | None = None,
    ) -> Stat:
        """Attempt a change of `key` until its fate is known or the time is up. `absence_tells`: the caller finds out
        what became of a lost attempt where the next one says KeyNotFound. `failed` is what a first one raised."""
        history: tuple[Past, ...] = ()
        if not self.traits.idempotent:
            history = await self._ancestry(key, wish)
        change = Change(wish.id, wish.when, history)
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                if failed is not None:
                    first, failed = failed, None
                    raise first
                stat = await attempt(change)
                self.note(key, stat)
                return stat
            except (Exists, Conflict) as refusal:
                return await self._refused(key, wish, refusal, lost)
            except Busy as busy:
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                if unavailable.ambiguous:
                    lost = unavailable
                    settled = await self._settle(key, wish, lost)
                    if settled is not None:
                        return settled
            except StoreError as refusal:
                if lost is None or (absence_tells and isinstance(refusal, KeyNotFound)):
                    raise
                raise self.unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and replayable):
                raise self.unknown(lost, wish)
            if not replayable:
                raise failure
            await patience.pause(self.unknown(lost, wish, count=False) if lost is not None else failure)

    async def _refused(self, key: bytes, wish: Wish, refusal: StoreError, lost: Unavailable | None) -> Stat:
        """The store says the precondition does not hold. Maybe because the change is there already: this proxy's
        lost attempt, or that of a proxy that died between commit and answer."""
        if self.traits.idempotent or not (wish.named or lost):
            self.figures.conflicts += 1
            raise refusal
        try:
            stat = await self.head(key)
        except StoreError as error:
            if lost is None:
                raise
            raise self.unknown(lost, wish) from error
        verdict = judge(stat, wish.id, wish.when)
        if stat is not None and verdict.fate is Fate.LANDED:
            return stat
        if stat is not None and verdict.fate is Fate.OVERTAKEN:
            return overtaken(stat, wish.id)
        if lost is not None and not self._certain(verdict.fate, wish):
            raise self.unknown(lost, wish)
        self.figures.conflicts += 1
        raise refusal

    async def _settle(self, key: bytes, wish: Wish, lost: Unavailable) -> Stat | None:
        """Look a lost change up: its outcome, or None where it did not land (yet)."""
        if self.traits.idempotent:
            return None
        try:
            stat = await self.head(key)
        except StoreError as error:
            raise self.unknown(lost, wish) from error
        verdict = judge(stat, wish.id, wish.when)
        if stat is not None and verdict.fate is Fate.LANDED:
            return stat
        if stat is not None and verdict.fate is Fate.OVERTAKEN:
            return overtaken(stat, wish.id)
        if verdict.fate is Fate.NOT_LANDED:
            return None
        if self._certain(verdict.fate, wish):
            self.figures.conflicts += 1
            raise Exists("the name is taken") if wish.when.absent else Conflict("another writer came first")
        raise self.unknown(lost, wish)

    def _certain(self, fate: Fate, wish: Wish) -> bool:
        # An unconditional write also records no base; only in CAS does that mean that the file was absent.
        return fate is Fate.LOST and (self.cas or not wish.when.absent)

    def unknown(self, lost: Unavailable, wish: Wish, *, count: bool = True) -> UnknownOutcome:
        """The error for a change that may have landed. Where the id still settles it, asking again can help."""
        if count:
            self.figures.unknown_outcomes += 1
        error = UnknownOutcome(f"the answer was lost ({lost}); the change may or may not have landed")
        error.retryable = wish.named and self.traits.idempotent
        error.__cause__ = lost
        return error

    async def _ancestry(self, key: bytes, wish: Wish) -> tuple[Past, ...]:
        """The ids to store beside a change: those of what it replaces, as far as known or asked for."""
        when = wish.when
        if when.absent:
            return ()
        known = self.seen.history(key, when.version)
        if known is None and when.version is not None:
            stat = await self.head(key)
            known = stat.history if stat is not None and stat.version == when.version else ()
        return bounded(known or (), wish.id, when.version)

    async def delete_settled(self, key: bytes, wish: Wish, patience: Patience) -> None:
        """Remove the file, by a comparison before where the store cannot compare."""
        weak = not wish.when.any and not self.traits.conditional_delete
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                if weak:
                    await self.compare(key, wish.when)
                await self.store.delete(key, Change(wish.id, ANY if weak else wish.when))
                self.seen.note(key, None)
                return
            except KeyNotFound:
                self.seen.note(key, None)
                if lost is None:
                    raise
                if not wish.when.any:  # somebody else may have written it anew and removed it
                    raise self.unknown(lost, wish) from None
                return
            except Conflict as refusal:
                if lost is None or self.traits.idempotent:
                    self.figures.conflicts += 1
                    raise
                await self._deleted(key, wish, lost, refusal)
                failure = refusal
            except Busy as busy:
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                if unavailable.ambiguous:
                    lost = unavailable
                    gone = Conflict("another writer came first")
                    if not self.traits.idempotent and await self._deleted(key, wish, lost, gone):
                        self.seen.note(key, None)
                        return
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self.unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not wish.named:
                raise self.unknown(lost, wish)
            await patience.pause(self.unknown(lost, wish, count=False) if lost is not None else failure)

    async def _deleted(self, key: bytes, wish: Wish, lost: Unavailable, refusal: Conflict) -> bool:
        """True: it is gone as asked. False: it is not, and may be tried again. Raises what else is known."""
        try:
            stat = await self.head(key)
        except StoreError as error:
            raise self.unknown(lost, wish) from error
        fate = judge_delete(stat, wish.when)
        if fate is Fate.LOST:
            self.figures.conflicts += 1
            raise refusal
        if fate is Fate.UNKNOWN:
            raise self.unknown(lost, wish)
        return fate is Fate.LANDED

    async def compare(self, key: bytes, when: Precondition) -> None:
        """Raises Conflict unless the file is at exactly that version now."""
        stat = await self.store.head(key)
        if stat is None or stat.version != when.version:
            raise Conflict("the file is gone" if stat is None else "the file is at another version")
