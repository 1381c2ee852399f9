"""A change whose answer was lost is repeated with its write id: what must come of that."""

from __future__ import annotations

import asyncio

import pytest

from asya_proxy.errors import Conflict, Exists
from asya_proxy.stores.base import ABSENT, ANY, Body, Past, Store, match
from asya_proxy.testing.fixtures import Connect, StoreFixtures, claims
from asya_proxy.testing.samples import change, names, new_id, pattern, read, write


class RepeatCases(StoreFixtures):
    @claims("idempotent")
    async def test_a_repeated_create_is_the_first_one(self, store: Store) -> None:
        once = change(ABSENT)
        first = await store.put(b"f", Body(b"content"), once)
        assert await store.put(b"f", Body(b"content"), once) == first
        with pytest.raises(Exists):
            await store.put(b"f", Body(b"content"), change(ABSENT))

    @claims("idempotent")
    async def test_a_repeated_replacement_is_the_first_one(self, store: Store) -> None:
        base = await write(store, b"f", b"base")
        once = change(match(base.version))
        first = await store.put(b"f", Body(b"new"), once)
        assert await store.put(b"f", Body(b"new"), once) == first
        await write(store, b"f", b"newer", match(first.version))

    @claims("idempotent")
    async def test_a_repeat_after_others_wrote_changes_nothing(self, store: Store) -> None:
        once = change()
        first = await store.put(b"f", Body(b"mine"), once)
        await write(store, b"f", b"theirs")
        assert await store.put(b"f", Body(b"mine"), once) == first
        assert await read(store, b"f") == b"theirs"

    @claims("idempotent")
    async def test_a_repeat_after_a_delete_brings_nothing_back(self, store: Store) -> None:
        once = change(ABSENT)
        first = await store.put(b"f", Body(b"mine"), once)
        await store.delete(b"f", change())
        assert await store.put(b"f", Body(b"mine"), once) == first
        assert await store.head(b"f") is None

    @claims("idempotent")
    async def test_a_repeat_of_large_content(self, store: Store) -> None:
        data = pattern(self.large(store))
        once = change(ABSENT)
        first = await store.put(b"f", Body(data), once)
        assert await store.put(b"f", Body(data), once) == first
        assert await read(store, b"f") == data

    @claims("idempotent")
    async def test_a_repeated_delete_spares_what_came_after(self, store: Store) -> None:
        base = await write(store, b"f", b"first")
        for when in (match(base.version), ANY):
            once = change(when)
            await store.delete(b"f", once)
            await store.delete(b"f", once)
            await write(store, b"f", b"second")
            await store.delete(b"f", once)
            assert await read(store, b"f") == b"second"

    @claims("idempotent")
    async def test_one_id_at_another_key_is_another_change(self, store: Store) -> None:
        once = change()
        await store.put(b"f", Body(b"f"), once)
        await store.put(b"g", Body(b"g"), once)
        assert await read(store, b"g") == b"g"
        await store.delete(b"f", once)
        assert await names(store) == [b"g"]

    @claims("idempotent")
    async def test_repeats_at_the_same_time_act_once(self, store: Store, connect: Connect) -> None:
        stores = [await connect() for _ in range(self.CLIENTS)]
        for number in range(self.ROUNDS):
            key = b"f%d" % number
            once = change(ABSENT)
            stats = await asyncio.gather(*(store.put(key, Body(b"content"), once) for store in stores))
            assert len({stat.version for stat in stats}) == 1
            stat = await stores[0].head(key)
            assert stat == stats[0]

    @claims("idempotent")
    async def test_a_refused_change_is_no_success_when_repeated(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        await write(store, b"f", b"second")
        once = change(match(first.version))
        for _ in range(2):
            with pytest.raises(Conflict):
                await store.put(b"f", Body(b"third"), once)
        assert await read(store, b"f") == b"second"

    async def test_histories_come_back(self, store: Store) -> None:
        """Where write ids are not kept by the store itself, they are kept beside the value."""
        if store.traits.idempotent:
            stat = await store.put(b"f", Body(b"1"), change(history=(Past(new_id(), None),)))
            assert stat.history == ()
            assert (await store.head(b"f") or stat).history == ()
            return
        first = change(ABSENT)
        stat = await store.put(b"f", Body(b"1"), first)
        assert stat.history[0].write_id == first.id
        second = change(match(stat.version), history=stat.history)
        after = await store.put(b"f", Body(b"2"), second)
        assert [past.write_id for past in after.history] == [second.id, first.id]
        assert after.history[0].base == stat.version
        head = await store.head(b"f")
        reading = await store.get(b"f")
        assert head is not None
        assert reading is not None
        assert head.history == reading.stat.history == after.history
        third = change(match(after.version), history=after.history)
        large = await store.put(b"f", Body(pattern(self.large(store))), third)
        assert [past.write_id for past in large.history] == [third.id, second.id, first.id]
        assert (await store.head(b"f") or stat).history == large.history
