"""Renames of files: in one step where the store can, else as a copy and a removal of exactly what was copied."""

from __future__ import annotations

import hashlib

from asya_proxy.attempts import Attempts, Patience, Wish
from asya_proxy.errors import Busy, Conflict, KeyNotFound, StoreError, Unavailable, UnknownOutcome
from asya_proxy.settlement import find, is_superseded, overtaken, superseded
from asya_proxy.stores.base import ANY, Body, Change, Precondition, Reading, Stat, dispose, match


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
        while True:
            origin = await self._attempts.head(source)
            if origin is None:
                return await self._moved_before(target, wish)
            landed = await self._landed_before(target, wish, patience)
            if when_source.version not in (None, origin.version):
                try:
                    # The copy may have landed before this repeat, and the source been written anew: that newer stays.
                    return landed or await self._moved_before(target, wish)
                except KeyNotFound:
                    self._attempts.figures.conflicts += 1
                    raise Conflict("the file to be renamed is at another version") from None
            try:
                stat, now = (landed, False) if landed else await self._copy(source, target, origin, wish, patience)
                break
            except _SourceWritten:
                if when_source.version is not None:
                    raise Conflict("the file to be renamed is at another version") from None
                await patience.pause(Busy("the file to be renamed is written all the time"))
        if now or when_source.version is not None or await self._is_copy(target, stat, source, origin):
            await self._remove_origin(source, wish, match(origin.version), patience)
        return stat

    async def _landed_before(self, target: bytes, wish: Wish, patience: Patience) -> Stat | None:
        """What an earlier request with this id has made of the target, where the store's answer to a repeat would not
        tell that it is one."""
        while wish.named and self._attempts.traits.idempotent:
            try:
                return await self._moved_before(target, wish)
            except KeyNotFound:
                break
            except (Unavailable, Busy) as failure:
                await patience.pause(failure)
        return None

    async def _copy(
        self, source: bytes, target: bytes, origin: Stat, wish: Wish, patience: Patience
    ) -> tuple[Stat, bool]:
        """Copy exactly `origin`; the target, and whether it was made now and not by an earlier request with this id.
        Raises _SourceWritten where the source is another one by now."""
        by_itself = self._attempts.traits.copy
        now = False

        async def attempt(change: Change) -> Stat:
            nonlocal now
            try:
                if by_itself:
                    stat = await self._attempts.store.copy(source, target, change, match(origin.version))
                else:
                    stat = await self._copy_through(source, target, origin, change)
            except Conflict:
                found = await self._attempts.store.head(source)
                if found is None or found.version != origin.version:
                    raise _SourceWritten from None
                raise
            now = True
            return stat

        stat = await self._attempts.settled(target, wish, patience, attempt)
        return stat, now

    async def _is_copy(self, target: bytes, stat: Stat, source: bytes, origin: Stat) -> bool:
        """Whether the source is still what an earlier request has copied: else somebody has written it since."""
        if is_superseded(stat.version) or stat.size != origin.size:
            return False
        try:
            made, found = [
                await _digest(await self._attempts.get(key, version=version))
                for key, version in ((target, stat.version), (source, origin.version))
            ]
        except Conflict:
            return False
        return made is not None and made == found

    async def _copy_through(self, source: bytes, target: bytes, origin: Stat, change: Change) -> Stat:
        reading = await self._attempts.store.get(source, version=origin.version)
        if reading is None:
            raise KeyNotFound("no such file")
        body = Body(reading.data, stream=reading.stream, size=origin.size)
        try:
            return await self._attempts.store.put(target, body, change._replace(attrs=origin.attrs))
        finally:
            await dispose(reading)

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
        except StoreError as error:
            self._attempts.figures.unknown_outcomes += 1
            half = UnknownOutcome(f"the new name is written, the old one could not be removed: {error}")
            half.retryable = wish.named and error.retryable
            raise half from error


class _SourceWritten(StoreError):
    """The source of a rename was written or removed before it was copied."""


async def _digest(reading: Reading | None) -> bytes | None:
    if reading is None:
        return None
    total = hashlib.sha256(reading.data or b"")
    if reading.stream is not None:
        async for piece in reading.stream:
            total.update(piece)
    return total.digest()
