"""What a reader and a writer may rely on, whatever the store: last write wins, or compare and set.

A store does one attempt and tells the truth about it. This layer repeats what certainly did not happen, finds
out what became of a change whose answer was lost, and makes up what a store cannot do in one step (append,
rename). It knows keys and versions, not directories, and no HTTP.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import (
    BadRequest,
    Busy,
    Conflict,
    Exists,
    KeyNotFound,
    StoreError,
    Unavailable,
    UnknownOutcome,
    Unsupported,
)
from asya_proxy.metrics import MountMetrics
from asya_proxy.order import Order
from asya_proxy.settlement import (
    Fate,
    Seen,
    bounded,
    find,
    is_superseded,
    judge,
    judge_delete,
    overtaken,
    superseded,
)
from asya_proxy.stores.base import (
    ABSENT,
    ANY,
    Appended,
    Body,
    Change,
    Page,
    Past,
    Precondition,
    Reading,
    Stat,
    Store,
    Traits,
    match,
)

_T = TypeVar("_T")

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
WHOLE = 8 << 20
"""Files up to this many bytes are held in memory where content must be read to be written anew."""


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

    __slots__ = ("_layer", "_pause", "_until")

    def __init__(self, layer: Consistency, began: float | None = None) -> None:
        self._layer = layer
        self._until = (layer.deadlines.now() if began is None else began) + layer.request_timeout
        self._pause = FIRST_PAUSE

    @property
    def left(self) -> float:
        return max(0.0, self._until - self._layer.deadlines.now())

    async def pause(self, failure: StoreError) -> None:
        """Wait before the next attempt; raises `failure` where no time is left for one."""
        pause = self._pause * random.uniform(0.5, 1.5)  # noqa: S311
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        if pause >= self.left:
            # Made uncounted, for the case that a further attempt settles it.
            self._layer.figures.unknown_outcomes += isinstance(failure, UnknownOutcome)
            raise failure
        self._layer.figures.retries += 1
        await asyncio.sleep(pause)


class Consistency:
    """The operations of a store, each with its promise. `traits` may claim less than the store does."""

    def __init__(
        self,
        store: Store,
        figures: MountMetrics,
        deadlines: Deadlines,
        *,
        cas: bool,
        request_timeout: float = 25.0,
        weak_delete: bool = False,
    ) -> None:
        self.store = store
        self.figures = figures
        self.deadlines = deadlines
        self.cas = cas
        self.request_timeout = request_timeout
        self.weak_delete = weak_delete
        self.traits: Traits = store.traits
        self.seen = Seen()
        self._order = Order(deadlines)

    # Reading: repeated until it is answered.

    async def head(self, key: bytes) -> Stat | None:
        try:
            stat = await self.store.head(key)
        except (Unavailable, Busy) as failure:
            stat = await self._again(failure, lambda: self.store.head(key))
        self._note(key, stat)
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
        self._note(key, None if reading is None else reading.stat)
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

    def _note(self, key: bytes, stat: Stat | None) -> None:
        # A store that is both idempotent and a tree needs neither histories nor known names.
        if not (self.traits.idempotent and self.traits.tree):
            self.seen.note(key, stat)

    # Changes of one key.

    async def put(self, key: bytes, body: Body, wish: Wish) -> Stat:
        """Write the whole file. Raises Exists, Conflict, UnknownOutcome and what the store refuses."""
        if wish.when is not ANY:
            self._demand(wish.when)
        began = self.deadlines.now()
        if body.data is None:
            # Never repeated, so nothing can land late: an upload that takes long need not hold up others.
            return await self._put(key, body, wish, Patience(self, began))
        if not self._order.enter_now(key):
            await self._order.enter(key, Patience(self, began).left)
        try:
            if not self.traits.idempotent:
                return await self._put(key, body, wish, Patience(self, began))
            # The usual case first, without the book-keeping of repeats.
            try:
                stat = await self.store.put(key, body, Change(wish.id, wish.when))
            except (Exists, Conflict, Busy, Unavailable) as failure:
                return await self._put(key, body, wish, Patience(self, began), failure)
            self._note(key, stat)
            return stat
        finally:
            self._order.leave(key)

    def _put(
        self, key: bytes, body: Body, wish: Wish, patience: Patience, failed: StoreError | None = None
    ) -> Awaitable[Stat]:
        """`failed` is what a first attempt raised."""

        def attempt(change: Change) -> Awaitable[Stat]:
            nonlocal failed
            if failed is not None:
                failure, failed = failed, None
                raise failure
            return self.store.put(key, body, change)

        return self._settled(key, wish, patience, attempt, replayable=body.replayable)

    async def delete(self, key: bytes, wish: Wish) -> None:
        """Remove the file. Raises KeyNotFound, Conflict, Unsupported, UnknownOutcome."""
        self._demand(wish.when, delete=True)
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            await self._delete(key, wish, patience)
        finally:
            self._order.leave(key)

    async def append(self, key: bytes, body: Body, wish: Wish) -> Appended:
        """Add at the end, exactly once; the file is created if it is absent."""
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            if self.traits.append:
                return await self._append(key, body, wish, patience)
            self._demand(ABSENT)
            return await self._append_by_put(key, body, wish, patience)
        finally:
            self._order.leave(key)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], wish: Wish) -> Stat:
        """Replace the attributes of a file, at exactly the version `wish.when` names."""
        if not self.traits.attributes:
            raise Unsupported("this backend has no attributes that change atomically")
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            return await self._settled(key, wish, patience, lambda change: self.store.set_attrs(key, attrs, change))
        finally:
            self._order.leave(key)

    async def rename(self, source: bytes, target: bytes, wish: Wish, when_source: Precondition = ANY) -> Stat:
        """Give a file another name: a write of the target, then a removal of the source, in one step where the
        store can. Raises KeyNotFound without a source."""
        self._demand(wish.when)
        if is_superseded(when_source.version):
            raise Conflict("the file has been written over since")
        patience = Patience(self)
        first, second = sorted((source, target))
        if first == second:
            raise BadRequest("a file cannot be renamed to itself")
        await self._order.enter(first, patience.left)
        try:
            await self._order.enter(second, patience.left)
            try:
                if self.traits.rename:
                    return await self._rename(source, target, wish, when_source, patience)
                return await self._rename_by_copy(source, target, wish, when_source, patience)
            finally:
                self._order.leave(second)
        finally:
            self._order.leave(first)

    async def rename_tree(self, source: bytes, target: bytes, wish: Wish) -> int:
        """Move all below `source` in one step of the store (`Traits.rename_tree`)."""
        patience = Patience(self)
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                return await self.store.rename_tree(source, target, Change(wish.id))
            except Busy as busy:
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                lost = unavailable if unavailable.ambiguous else lost
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self._unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and self.traits.idempotent):
                raise self._unknown(lost, wish)
            await patience.pause(self._unknown(lost, wish, count=False) if lost is not None else failure)

    def _demand(self, when: Precondition, *, delete: bool = False) -> None:
        """Refuse a precondition that the store cannot keep, and one that can no longer hold."""
        if when is ANY or when.any:
            return
        if is_superseded(when.version):
            self.figures.conflicts += 1
            raise Conflict("the file has been written over since")
        if delete:
            if not (self.traits.conditional_delete or self.weak_delete):
                raise Unsupported(
                    "this backend cannot delete on a condition; STATE_WEAK_DELETE=1 compares first and then deletes"
                )
        elif not self.traits.conditional_put:
            raise Unsupported("this backend cannot write on a condition, so not create-only, append or compare")

    # Settling.

    async def _settled(
        self,
        key: bytes,
        wish: Wish,
        patience: Patience,
        attempt: Callable[[Change], Awaitable[Stat]],
        *,
        replayable: bool = True,
        absence_tells: bool = False,
    ) -> Stat:
        """Attempt a change of `key` until its fate is known or the time is up. `absence_tells`: the caller finds out
        what became of a lost attempt where the next one says KeyNotFound."""
        history: tuple[Past, ...] = ()
        if not self.traits.idempotent:
            history = await self._ancestry(key, wish)
        change = Change(wish.id, wish.when, history)
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                stat = await attempt(change)
                self._note(key, stat)
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
                raise self._unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and replayable):
                raise self._unknown(lost, wish)
            if not replayable:
                raise failure
            await patience.pause(self._unknown(lost, wish, count=False) if lost is not None else failure)

    async def _refused(self, key: bytes, wish: Wish, refusal: StoreError, lost: Unavailable | None) -> Stat:
        """The store says the precondition does not hold. Maybe because the change is there already: this proxy's
        lost attempt, or that of a proxy that died between commit and answer."""
        if self.traits.idempotent or not (wish.named or lost):
            self.figures.conflicts += 1
            raise refusal
        stat = await self.head(key)
        verdict = judge(stat, wish.id, wish.when)
        if stat is not None and verdict.fate is Fate.LANDED:
            return stat
        if stat is not None and verdict.fate is Fate.OVERTAKEN:
            return overtaken(stat, wish.id)
        if lost is not None and not self._certain(verdict.fate, wish):
            raise self._unknown(lost, wish)
        self.figures.conflicts += 1
        raise refusal

    async def _settle(self, key: bytes, wish: Wish, lost: Unavailable) -> Stat | None:
        """Look a lost change up: its outcome, or None where it did not land (yet)."""
        if self.traits.idempotent:
            return None
        try:
            stat = await self.head(key)
        except StoreError as error:
            raise self._unknown(lost, wish) from error
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
        raise self._unknown(lost, wish)

    def _certain(self, fate: Fate, wish: Wish) -> bool:
        # An unconditional write also records no base; only in CAS does that mean that the file was absent.
        return fate is Fate.LOST and (self.cas or not wish.when.absent)

    def _unknown(self, lost: Unavailable, wish: Wish, *, count: bool = True) -> UnknownOutcome:
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

    # Delete, append, rename.

    async def _delete(self, key: bytes, wish: Wish, patience: Patience) -> None:
        weak = not wish.when.any and not self.traits.conditional_delete
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                if weak:
                    await self._compare(key, wish.when)
                await self.store.delete(key, Change(wish.id, ANY if weak else wish.when))
                self.seen.note(key, None)
                return
            except KeyNotFound:
                self.seen.note(key, None)
                if lost is not None:
                    return
                raise
            except Conflict as refusal:
                if lost is None or self.traits.idempotent:
                    self.figures.conflicts += 1
                    raise
                self._judge_delete(await self.head(key), wish, lost, refusal)
                failure = refusal
            except Busy as busy:
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                if unavailable.ambiguous:
                    lost = unavailable
                    if not self.traits.idempotent and await self._deleted(key, wish, lost):
                        self.seen.note(key, None)
                        return
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self._unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not wish.named:
                raise self._unknown(lost, wish)
            await patience.pause(self._unknown(lost, wish, count=False) if lost is not None else failure)

    async def _deleted(self, key: bytes, wish: Wish, lost: Unavailable) -> bool:
        try:
            stat = await self.head(key)
        except StoreError as error:
            raise self._unknown(lost, wish) from error
        return self._judge_delete(stat, wish, lost, Conflict("another writer came first"))

    def _judge_delete(self, stat: Stat | None, wish: Wish, lost: Unavailable, refusal: Conflict) -> bool:
        """True: it is gone as asked. False: it is not, and may be tried again. Raises what else is known."""
        fate = judge_delete(stat, wish.when)
        if fate is Fate.LOST:
            self.figures.conflicts += 1
            raise refusal
        if fate is Fate.UNKNOWN:
            raise self._unknown(lost, wish)
        return fate is Fate.LANDED

    async def _compare(self, key: bytes, when: Precondition) -> None:
        stat = await self.store.head(key)
        if stat is None or stat.version != when.version:
            raise Conflict("the file is gone" if stat is None else "the file is at another version")

    async def _append(self, key: bytes, body: Body, wish: Wish, patience: Patience) -> Appended:
        """Append in one step of the store."""
        change = Change(wish.id, ANY, self.seen.history(key, None) or ())
        if wish.named and not self.traits.idempotent:
            done = self._appended(await self.head(key), wish)
            if done is not None:
                return done
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                appended = await self.store.append(key, body, change)
                self._note(key, appended.stat)
                return appended
            except (Busy, Conflict) as busy:
                # A conflict inside an unconditional append is the store's own race with another writer.
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                lost = unavailable if unavailable.ambiguous else lost
                if unavailable.ambiguous and not self.traits.idempotent:
                    done = await self._append_settled(key, wish, unavailable)
                    if done is not None:
                        return done
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self._unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and body.replayable):
                raise self._unknown(lost, wish)
            if not body.replayable:
                raise failure
            await patience.pause(self._unknown(lost, wish, count=False) if lost is not None else failure)

    async def _append_settled(self, key: bytes, wish: Wish, lost: Unavailable) -> Appended | None:
        """The outcome of a lost append; None where it certainly did not land."""
        before = self.seen.history(key, None)
        known = key in self.seen
        previous = self.seen.version(key)
        try:
            stat = await self.head(key)
        except StoreError as error:
            raise self._unknown(lost, wish) from error
        done = self._appended(stat, wish)
        if done is not None:
            return done
        if stat is None:
            return None
        linked = any(past.base == previous for past in stat.history)
        if known and before is not None and (stat.version == previous or linked):
            return None
        if stat.history and stat.history[-1].base is None and self.cas:
            return None
        raise self._unknown(lost, wish)

    @staticmethod
    def _appended(stat: Stat | None, wish: Wish) -> Appended | None:
        """The outcome of `wish` where it stands in the file's history."""
        found = None if stat is None else find(stat.history, wish.id)
        if stat is None or found is None:
            return None
        age, own = found
        return Appended(stat if age == 0 else overtaken(stat, wish.id), own.base)

    async def _append_by_put(self, key: bytes, tail: Body, wish: Wish, patience: Patience) -> Appended:
        """Append as read, then write over exactly what was read, until nobody comes in between."""
        while True:
            reading = await self.get(key)
            if reading is None:
                stat, when, body = None, ABSENT, tail
            else:
                stat = reading.stat
                done = self._appended(stat, wish)
                if done is not None:
                    await _dispose(reading)
                    return done
                when, body = match(stat.version), await _joined(reading, tail)
            step = Wish(wish.id, when, wish.named)
            try:
                written = await self._put(key, body, step, patience)
            except (Conflict, Exists) as race:
                busy = Busy(f"too many writers at once ({race})")
                if not tail.replayable:
                    raise busy from race
                await patience.pause(busy)
                continue
            return Appended(written, when.version)

    async def _rename(
        self, source: bytes, target: bytes, wish: Wish, when_source: Precondition, patience: Patience
    ) -> Stat:
        """Rename in one step of the store."""
        try:
            stat = await self._settled(
                target,
                wish,
                patience,
                lambda change: self.store.rename(source, target, change, when_source),
                absence_tells=True,
            )
        except KeyNotFound:
            stat = await self._moved_before(target, wish)
        self.seen.note(source, None)
        return stat

    async def _moved_before(self, target: bytes, wish: Wish) -> Stat:
        """The source is gone: maybe because this very change took it. Raises KeyNotFound otherwise."""
        if wish.named and not self.traits.idempotent:
            stat = await self.head(target)
            found = None if stat is None else find(stat.history, wish.id)
            if stat is not None and found is not None:
                return stat if found[0] == 0 else overtaken(stat, wish.id)
        if wish.named and self.traits.idempotent and not (self.traits.rename or self.traits.copy):
            # A repeat is answered with its first outcome; on a version that never was, nothing else succeeds.
            try:
                return await self.store.put(target, Body(b""), Change(wish.id, match(superseded(wish.id))))
            except Conflict:
                pass
        raise KeyNotFound("no such file")

    async def _rename_by_copy(
        self, source: bytes, target: bytes, wish: Wish, when_source: Precondition, patience: Patience
    ) -> Stat:
        """Copy on the target's condition, then delete exactly what was copied."""
        origin = await self.head(source)
        if origin is None:
            return await self._moved_before(target, wish)
        if when_source.version is not None and origin.version != when_source.version:
            # The copy may have landed, and the source been written anew, before this repeat.
            self.figures.conflicts += 1
            raise Conflict("the file to be renamed is at another version")
        pinned = match(origin.version)
        if self.traits.copy:
            stat = await self._settled(
                target, wish, patience, lambda change: self.store.copy(source, target, change, pinned)
            )
        else:
            stat = await self._copy_through(source, target, origin, wish, patience)
        await self._remove_origin(source, wish, pinned, patience)
        return stat

    async def _copy_through(self, source: bytes, target: bytes, origin: Stat, wish: Wish, patience: Patience) -> Stat:
        async def attempt(change: Change) -> Stat:
            reading = await self.store.get(source, version=origin.version)
            if reading is None:
                raise KeyNotFound("no such file")
            body = Body(reading.data, stream=reading.stream, size=origin.size)
            return await self.store.put(target, body, Change(change.id, change.when, change.history, origin.attrs))

        return await self._settled(target, wish, patience, attempt)

    async def _remove_origin(self, source: bytes, wish: Wish, pinned: Precondition, patience: Patience) -> None:
        conditional = self.traits.conditional_delete
        step = wish.part("source", pinned if conditional else ANY)
        try:
            if not conditional:
                await self._compare(source, pinned)
            await self._delete(source, step, patience)
        except (KeyNotFound, Conflict):
            # Gone already, or written anew since it was copied: that newer file stays.
            self.seen.note(source, None)
        except UnknownOutcome as error:
            error.retryable = wish.named
            raise


async def _joined(reading: Reading, tail: Body) -> Body:
    """The content of `reading` with `tail` behind it, in memory while it is small."""
    size = None if tail.size is None else reading.stat.size + tail.size

    async def pieces() -> AsyncIterator[bytes]:
        if reading.data is not None:
            yield reading.data
        elif reading.stream is not None:
            async for piece in reading.stream:
                yield piece
        async for piece in tail:
            yield piece

    joined = Body(stream=pieces(), size=size)
    if size is not None and size <= WHOLE and tail.replayable:
        return Body(await joined.read())
    return joined


async def _dispose(reading: Reading) -> None:
    close = getattr(reading.stream, "aclose", None)
    if close is not None:
        await close()
