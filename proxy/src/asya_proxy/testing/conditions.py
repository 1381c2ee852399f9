"""Conditional puts and deletes, one by one and in races; versions that are never used twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import pytest

from asya_proxy.errors import Conflict, Exists, KeyNotFound, StoreError, Unavailable
from asya_proxy.stores.base import ABSENT, Body, Stat, Store, match
from asya_proxy.testing.fixtures import Connect, StoreFixtures, claims
from asya_proxy.testing.samples import change, content, cut, names, pattern, read, write

LOST = (Conflict, Exists, KeyNotFound)


def lost(outcome: BaseException) -> bool:
    """A racer that loses learns that it lost, or that certainly nothing was done (409 of S3: another is at work)."""
    return isinstance(outcome, LOST) or (isinstance(outcome, Unavailable) and not outcome.ambiguous)


async def race(racers: Sequence[Awaitable[Stat | None]]) -> list[Stat | StoreError | None]:
    """Run them together; results and refusals, in order. Anything but a lost race is raised."""
    outcomes = await asyncio.gather(*racers, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not lost(outcome):
            raise outcome
    return outcomes  # type: ignore[return-value]


def won(outcomes: Sequence[object]) -> list[int]:
    return [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, StoreError)]


class ConditionCases(StoreFixtures):
    @claims("conditional_put")
    async def test_create_only(self, store: Store) -> None:
        stat = await write(store, b"f", b"first", ABSENT)
        with pytest.raises(Exists):
            await write(store, b"f", b"second", ABSENT)
        assert await read(store, b"f") == b"first"
        assert (await store.head(b"f") or stat).version == stat.version

    @claims("conditional_put")
    async def test_create_only_with_large_content(self, store: Store) -> None:
        data = pattern(self.large(store))
        await write(store, b"f", data, ABSENT)
        with pytest.raises(Exists):
            await write(store, b"f", data[1:], ABSENT)
        assert await read(store, b"f") == data

    @claims("conditional_put")
    async def test_overwrite_the_expected_version(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        second = await write(store, b"f", b"second", match(first.version))
        assert await read(store, b"f") == b"second"
        third = await write(store, b"f", b"third", match(second.version))
        assert len({first.version, second.version, third.version}) == 3

    @claims("conditional_put")
    async def test_stale_put(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        await write(store, b"f", b"second")
        with pytest.raises(Conflict):
            await write(store, b"f", b"third", match(first.version))
        assert await read(store, b"f") == b"second"

    @claims("conditional_put")
    async def test_stale_put_of_large_content(self, store: Store) -> None:
        data = pattern(self.large(store))
        first = await write(store, b"f", data)
        second = await write(store, b"f", b"second", match(first.version))
        with pytest.raises(Conflict):
            await write(store, b"f", data, match(first.version))
        assert await read(store, b"f") == b"second"
        await write(store, b"f", data, match(second.version))
        assert await read(store, b"f") == data

    @claims("conditional_put")
    async def test_put_over_what_is_absent(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        await store.delete(b"f", change())
        with pytest.raises(Conflict):
            await write(store, b"f", b"second", match(first.version))
        assert await store.head(b"f") is None

    @claims("conditional_put")
    async def test_put_over_a_version_of_another_key(self, store: Store) -> None:
        await write(store, b"f", b"one")
        other = await write(store, b"g", b"two")
        with pytest.raises(Conflict):
            await write(store, b"f", b"three", match(other.version))

    @claims("conditional_put")
    async def test_put_over_a_version_that_never_was(self, store: Store) -> None:
        await write(store, b"f", b"one")
        for version in ("0", "never", "9" * 19):
            with pytest.raises(Conflict):
                await write(store, b"f", b"two", match(version))
        assert await read(store, b"f") == b"one"

    @claims("conditional_put")
    async def test_a_refused_or_cut_write_can_be_followed_by_a_right_one(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        with pytest.raises(Exists):
            await write(store, b"f", b"x", ABSENT)
        with pytest.raises(Exception, match="ended early"):
            await store.put(b"f", Body(stream=cut([b"part"])), change(match(first.version)))
        await write(store, b"f", b"second", match(first.version))
        assert await read(store, b"f") == b"second"

    @claims("conditional_delete")
    async def test_conditional_delete(self, store: Store) -> None:
        first = await write(store, b"f", b"first")
        second = await write(store, b"f", b"second")
        with pytest.raises(Conflict):
            await store.delete(b"f", change(match(first.version)))
        assert await read(store, b"f") == b"second"
        await store.delete(b"f", change(match(second.version)))
        assert await store.head(b"f") is None
        with pytest.raises(Conflict):
            await store.delete(b"f", change(match(second.version)))

    # -- versions

    @claims("unique_versions")
    async def test_equal_content_is_another_version(self, store: Store) -> None:
        versions = [(await write(store, b"f", b"same")).version for _ in range(5)]
        assert len(set(versions)) == 5

    @claims("unique_versions")
    async def test_aba(self, store: Store) -> None:
        first = await write(store, b"f", b"A")
        await write(store, b"f", b"B")
        await write(store, b"f", b"A")
        with pytest.raises(Conflict):
            await write(store, b"f", b"C", match(first.version))
        with pytest.raises(Conflict):
            await store.delete(b"f", change(match(first.version)))
        assert await read(store, b"f") == b"A"

    @claims("unique_versions")
    async def test_deleted_and_made_anew(self, store: Store) -> None:
        first = await write(store, b"f", b"same", ABSENT)
        await store.delete(b"f", change(match(first.version)))
        again = await write(store, b"f", b"same", ABSENT)
        assert again.version != first.version
        with pytest.raises(Conflict):
            await write(store, b"f", b"new", match(first.version))
        with pytest.raises(Conflict):
            await content(await store.get(b"f", version=first.version))

    # -- races

    async def clients(self, connect: Connect) -> list[Store]:
        return [await connect() for _ in range(self.CLIENTS)]

    @claims("conditional_put")
    async def test_one_of_many_creates_wins(self, store: Store, connect: Connect) -> None:
        stores = await self.clients(connect)
        for number in range(self.ROUNDS):
            key = b"race/%d" % number
            outcomes = await race(
                [write(stores[r % len(stores)], key, b"%d" % r, ABSENT) for r in range(self.RACERS)],
            )
            winners = won(outcomes)
            assert len(winners) == 1, f"round {number}: {len(winners)} creates of one name won"
            assert await read(stores[0], key) == b"%d" % winners[0]

    @claims("conditional_put")
    async def test_one_of_many_replacements_wins(self, store: Store, connect: Connect) -> None:
        stores = await self.clients(connect)
        stat = await write(stores[0], b"f", b"start")
        for number in range(self.ROUNDS):
            when = match(stat.version)
            outcomes = await race(
                [write(stores[r % len(stores)], b"f", b"%d-%d" % (number, r), when) for r in range(self.RACERS)],
            )
            winners = won(outcomes)
            assert len(winners) == 1, f"round {number}: {len(winners)} writes over one version won"
            winner = outcomes[winners[0]]
            assert isinstance(winner, Stat)
            stat = winner
            assert await read(stores[0], b"f") == b"%d-%d" % (number, winners[0])

    @claims("conditional_put")
    @claims("conditional_delete")
    async def test_a_put_and_a_delete_do_not_both_win(self, store: Store, connect: Connect) -> None:
        stores = await self.clients(connect)
        for number in range(self.ROUNDS):
            key = b"race/%d" % number
            when = match((await write(stores[0], key, b"start")).version)
            outcomes = await race(
                [write(stores[1], key, b"put", when), stores[2].delete(key, change(when))],
            )
            assert len(won(outcomes)) == 1, f"round {number}: {outcomes}"
            assert await read(stores[3], key) == (b"put" if won(outcomes) == [0] else None)

    @claims("conditional_put")
    async def test_racing_increments_are_exact(self, store: Store, connect: Connect) -> None:
        stores = await self.clients(connect)
        await write(stores[0], b"counter", b"0")
        each = max(self.ROUNDS // 2, 1)

        async def count(store: Store) -> None:
            for _ in range(each):
                while True:
                    await asyncio.sleep(0)
                    reading = await store.get(b"counter")
                    assert reading is not None
                    value = int(await content(reading))
                    try:
                        await write(store, b"counter", b"%d" % (value + 1), match(reading.stat.version))
                        break
                    except (Conflict, Unavailable) as refusal:
                        if not lost(refusal):
                            raise

        await asyncio.gather(*(count(store) for store in stores))
        assert await read(stores[0], b"counter") == b"%d" % (each * len(stores))

    async def test_large_and_small_writers_of_one_name(self, connect: Connect) -> None:
        """Whoever comes last, the object is one of the values written and nothing else is left."""
        stores = await self.clients(connect)
        size = self.large(stores[0])
        values = [pattern(size if n % 2 else 100, seed=n) for n in range(6)]
        await asyncio.gather(*(write(stores[n % len(stores)], b"f", value) for n, value in enumerate(values)))
        assert await read(stores[0], b"f") in values
        assert await names(stores[0]) == [b"f"]
