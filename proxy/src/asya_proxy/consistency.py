"""What a reader and a writer may rely on, whatever the store: last write wins, or compare and set.

A store does one attempt and tells the truth about it. `asya_proxy.attempts` repeats what certainly did not happen and
finds out what became of a change whose answer was lost; `appends` and `moves` make up what a store cannot do in one
step. Here is what may be asked for, and in which order it is done. It knows keys and versions, not directories, and no
HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping

from asya_proxy.appends import Appends
from asya_proxy.attempts import Attempts, Patience, Wish
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import BadRequest, Busy, Conflict, Exists, StoreError, Unavailable, Unsupported
from asya_proxy.metrics import MountMetrics
from asya_proxy.moves import Moves
from asya_proxy.order import Order
from asya_proxy.settlement import is_superseded
from asya_proxy.stores.base import (
    ABSENT,
    ANY,
    NOTHING_KNOWN,
    Appended,
    Body,
    Change,
    Known,
    Precondition,
    Stat,
    Store,
    TreeMoved,
)

__all__ = ["Consistency", "Wish"]


class Consistency(Attempts):
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
        super().__init__(store, figures, deadlines, cas=cas, request_timeout=request_timeout)
        self.weak_delete = weak_delete
        self._order = Order(deadlines)
        self._appends = Appends(self)
        self._moves = Moves(self)

    # Changes of one key.

    async def put(self, key: bytes, body: Body, wish: Wish) -> Stat:
        """Write the whole file. Raises Exists, Conflict, UnknownOutcome and what the store refuses."""
        if wish.when is not ANY:
            self._demand(wish.when)
        began = self.deadlines.now()
        if body.data is None:
            # Never repeated, so nothing can land late: an upload that takes long need not hold up others.
            return await self.put_settled(key, body, wish, Patience(self, began))
        if not self._order.enter_now(key):
            await self._order.enter(key, Patience(self, began).left)
        try:
            if not self.traits.idempotent:
                return await self.put_settled(key, body, wish, Patience(self, began))
            # The usual case first, without the book-keeping of repeats.
            try:
                stat = await self.store.put(key, body, Change(wish.id, wish.when))
            except (Exists, Conflict, Busy, Unavailable) as failure:
                return await self.put_settled(key, body, wish, Patience(self, began), failure)
            self.note(key, stat)
            return stat
        finally:
            self._order.leave(key)

    async def delete(self, key: bytes, wish: Wish) -> None:
        """Remove the file. Raises KeyNotFound, Conflict, Unsupported, UnknownOutcome."""
        self._demand(wish.when, delete=True)
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            await self.delete_settled(key, wish, patience)
        finally:
            self._order.leave(key)

    async def append(self, key: bytes, body: Body, wish: Wish) -> Appended:
        """Add at the end, exactly once; the file is created if it is absent."""
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            if self.traits.append:
                return await self._appends.in_one_step(key, body, wish, patience)
            self._demand(ABSENT)
            return await self._appends.by_put(key, body, wish, patience)
        finally:
            self._order.leave(key)

    async def set_attrs(self, key: bytes, attrs: Mapping[str, str], wish: Wish) -> Stat:
        """Replace the attributes of a file, at exactly the version `wish.when` names."""
        if not self.traits.attributes:
            raise Unsupported("this backend has no attributes that change atomically")
        patience = Patience(self)
        await self._order.enter(key, patience.left)
        try:
            return await self.settled(key, wish, patience, lambda change: self.store.set_attrs(key, attrs, change))
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
                    return await self._moves.in_one_step(source, target, wish, when_source, patience)
                return await self._moves.by_copy(source, target, wish, when_source, patience)
            finally:
                self._order.leave(second)
        finally:
            self._order.leave(first)

    async def rename_tree(self, source: bytes, target: bytes, wish: Wish, known: Known = NOTHING_KNOWN) -> TreeMoved:
        """Move all below `source` in one step of the store (`Traits.rename_tree`)."""
        patience = Patience(self)
        lost: Unavailable | None = None
        while True:
            failure: StoreError
            try:
                return await self.store.rename_tree(source, target, Change(wish.id), known)
            except Busy as busy:
                failure = busy
            except Unavailable as unavailable:
                failure = unavailable
                lost = unavailable if unavailable.ambiguous else lost
            except StoreError as refusal:
                if lost is None:
                    raise
                raise self.unknown(lost, wish) from refusal  # the lost attempt may land all the same
            if lost is not None and not (wish.named and self.traits.idempotent):
                raise self.unknown(lost, wish)
            await patience.pause(self.unknown(lost, wish, count=False) if lost is not None else failure)

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
