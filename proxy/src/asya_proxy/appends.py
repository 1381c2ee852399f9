"""Appends: in one step where the store can, else as a read and a write over exactly what was read. Never twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

from asya_proxy.attempts import Attempts, Patience, Wish
from asya_proxy.errors import Busy, Conflict, Exists, StoreError, Unavailable
from asya_proxy.settlement import find, overtaken
from asya_proxy.stores.base import ABSENT, ANY, Appended, Body, Change, Reading, Stat, dispose, match

WHOLE = 8 << 20
"""Files up to this many bytes are held in memory where content must be read to be written anew."""


class Appends:
    """Appends by `attempts`; whoever calls keeps the changes of one key in order."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def in_one_step(self, key: bytes, body: Body, wish: Wish, patience: Patience) -> Appended:
        """Append in one step of the store."""
        change = Change(wish.id, ANY, self._attempts.seen.history(key, None) or ())
        if wish.named and not self._attempts.traits.idempotent:
            done = self._appended(await self._attempts.head(key), wish)
            if done is not None:
                return done
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                appended = await self._attempts.store.append(key, body, change)
                self._attempts.note(key, appended.stat)
                return appended
            except (Busy, Conflict) as busy:
                # A conflict inside an unconditional append is the store's own race with another writer.
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                lost = unavailable if unavailable.ambiguous else lost
                if unavailable.ambiguous and not self._attempts.traits.idempotent:
                    done = await self._settled_append(key, wish, unavailable)
                    if done is not None:
                        return done
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self._attempts.unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and body.replayable):
                raise self._attempts.unknown(lost, wish)
            if not body.replayable:
                raise failure
            await patience.pause(self._attempts.unknown(lost, wish, count=False) if lost is not None else failure)

    async def _settled_append(self, key: bytes, wish: Wish, lost: Unavailable) -> Appended | None:
        """The outcome of a lost append; None where it certainly did not land."""
        before = self._attempts.seen.history(key, None)
        known = key in self._attempts.seen
        previous = self._attempts.seen.version(key)
        try:
            stat = await self._attempts.head(key)
        except StoreError as error:
            raise self._attempts.unknown(lost, wish) from error
        done = self._appended(stat, wish)
        if done is not None:
            return done
        if stat is None:
            return None
        linked = any(past.base == previous for past in stat.history)
        if known and before is not None and (stat.version == previous or linked):
            return None
        if stat.history and stat.history[-1].base is None and self._attempts.cas:
            return None
        raise self._attempts.unknown(lost, wish)

    @staticmethod
    def _appended(stat: Stat | None, wish: Wish) -> Appended | None:
        """The outcome of `wish` where it stands in the file's history."""
        found = None if stat is None else find(stat.history, wish.id)
        if stat is None or found is None:
            return None
        age, own = found
        return Appended(stat if age == 0 else overtaken(stat, wish.id), own.base)

    async def by_put(self, key: bytes, tail: Body, wish: Wish, patience: Patience) -> Appended:
        """Append as read, then write over exactly what was read, until nobody comes in between."""
        while True:
            reading = await self._attempts.get(key)
            if reading is None:
                stat, when, body = None, ABSENT, tail
            else:
                stat = reading.stat
                done = self._appended(stat, wish)
                if done is not None:
                    await dispose(reading)
                    return done
                when, body = match(stat.version), await _joined(reading, tail)
            step = Wish(wish.id, when, wish.named)
            try:
                written = await self._attempts.put_settled(key, body, step, patience)
            except (Conflict, Exists) as race:
                busy = Busy(f"too many writers at once ({race})")
                if not tail.replayable:
                    raise busy from race
                await patience.pause(busy)
                continue
            finally:
                if reading is not None:
                    await dispose(reading)
            return Appended(written, when.version)


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
