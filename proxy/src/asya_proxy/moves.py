"""Renames of files: in one step where the store can, else as a copy and a removal of exactly what was copied."""

from __future__ import annotations

from asya_proxy.attempts import Attempts, Patience, Wish
from asya_proxy.errors import Conflict, KeyNotFound, UnknownOutcome
from asya_proxy.settlement import find, overtaken, superseded
from asya_proxy.stores.base import ANY, Body, Change, Precondition, Stat, match


class Moves:
    """Renames by `attempts`; whoever calls keeps the changes of both keys in order."""

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    async def in_one_step(
        self, source: bytes, target: bytes, wish: Wish, when_source: Precondition, patience: Patience
    ) -> Stat:
        """Rename in one step of the store."""
        try:
            stat = await self._attempts.settled(
                target,
                wish,
                patience,
                lambda change: self._attempts.store.rename(source, target, change, when_source),
                absence_tells=True,
            )
        except KeyNotFound:
            stat = await self._moved_before(target, wish)
        self._attempts.seen.note(source, None)
        return stat

    async def _moved_before(self, target: bytes, wish: Wish) -> Stat:
        """The source is gone: maybe because this very change took it. Raises KeyNotFound otherwise."""
        if wish.named and not self._attempts.traits.idempotent:
            stat = await self._attempts.head(target)
            found = None if stat is None else find(stat.history, wish.id)
            if stat is not None and found is not None:
                return stat if found[0] == 0 else overtaken(stat, wish.id)
        if (
            wish.named
            and self._attempts.traits.idempotent
            and not (self._attempts.traits.rename or self._attempts.traits.copy)
        ):
            # A repeat is answered with its first outcome; on a version that never was, nothing else succeeds.
            try:
                return await self._attempts.store.put(target, Body(b""), Change(wish.id, match(superseded(wish.id))))
            except Conflict:
                pass
        raise KeyNotFound("no such file")

    async def by_copy(
        self, source: bytes, target: bytes, wish: Wish, when_source: Precondition, patience: Patience
    ) -> Stat:
        """Copy on the target's condition, then delete exactly what was copied."""
        origin = await self._attempts.head(source)
        if origin is None:
            return await self._moved_before(target, wish)
        if when_source.version is not None and origin.version != when_source.version:
            try:
                # The copy may have landed, and the source been written anew, before this repeat: that newer one stays.
                return await self._moved_before(target, wish)
            except KeyNotFound:
                self._attempts.figures.conflicts += 1
                raise Conflict("the file to be renamed is at another version") from None
        pinned = match(origin.version)
        if self._attempts.traits.copy:
            stat = await self._attempts.settled(
                target, wish, patience, lambda change: self._attempts.store.copy(source, target, change, pinned)
            )
        else:
            stat = await self._copy_through(source, target, origin, wish, patience)
        await self._remove_origin(source, wish, pinned, patience)
        return stat

    async def _copy_through(self, source: bytes, target: bytes, origin: Stat, wish: Wish, patience: Patience) -> Stat:
        async def attempt(change: Change) -> Stat:
            reading = await self._attempts.store.get(source, version=origin.version)
            if reading is None:
                raise KeyNotFound("no such file")
            body = Body(reading.data, stream=reading.stream, size=origin.size)
            return await self._attempts.store.put(
                target, body, Change(change.id, change.when, change.history, origin.attrs)
            )

        return await self._attempts.settled(target, wish, patience, attempt)

    async def _remove_origin(self, source: bytes, wish: Wish, pinned: Precondition, patience: Patience) -> None:
        conditional = self._attempts.traits.conditional_delete
        step = wish.part("source", pinned if conditional else ANY)
        try:
            if not conditional:
                await self._attempts.compare(source, pinned)
            await self._attempts.delete_settled(source, step, patience)
        except (KeyNotFound, Conflict):
            # Gone already, or written anew since it was copied: that newer file stays.
            self._attempts.seen.note(source, None)
        except UnknownOutcome as error:
            error.retryable = wish.named
            raise
