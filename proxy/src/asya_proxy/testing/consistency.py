"""The consistency layer over a real store, with answers lost on the way: what a handler may rely on.

Each test names its writes and looks for every one of them afterwards: acknowledged writes are there once,
refused ones are not there, and those of unknown outcome are there at most once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from asya_proxy.consistency import Consistency, Wish
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import Conflict, Exists, KeyNotFound, StoreError, Unavailable, UnknownOutcome, Unsupported
from asya_proxy.metrics import MountMetrics
from asya_proxy.service import Service
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Precondition, Store, match
from asya_proxy.testing.fixtures import Connect, StoreFixtures
from asya_proxy.testing.lossy import Fault, LossyStore, Scripted
from asya_proxy.testing.samples import change, content, cut, pattern, pieces, read, write

Proxy = Callable[..., Consistency]
"""From a store (and `request_timeout`) to the layer over it, in the test's mode, as one proxy has it."""


def wish(when: Precondition = ANY, *, named: bool = True) -> Wish:
    return Wish(secrets.token_urlsafe(16), when, named)


async def body_of(layer: Consistency, key: bytes) -> tuple[bytes, Precondition]:
    """Content, and the precondition that it is still there; absence likewise."""
    while True:
        reading = await layer.get(key)
        if reading is None:
            return b"", ABSENT
        try:
            return await content(reading), match(reading.stat.version)
        except Conflict:  # replaced while it was read
            continue


@dataclass
class Tally:
    """The fate of each write, as its writer was told, by write id."""

    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def check(self, lines: list[str]) -> None:
        """`lines`: the write ids in the file."""
        assert len(lines) == len(set(lines)), "a write landed twice"
        present = set(lines)
        assert set(self.acknowledged) <= present, "an acknowledged write is lost"
        assert not set(self.refused) & present, "a write that was called a conflict is there"
        assert present <= set(self.acknowledged) | set(self.unknown)


class ConsistencySuite(StoreFixtures):
    """Derive from it and supply the fixture `store_factory`; see `asya_proxy.testing`."""

    WRITERS = 4
    WRITES = 12
    """Each writer's, where writers race."""

    @pytest.fixture(params=[False, True], ids=["lww", "cas"])
    def cas(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    @pytest.fixture
    def proxy(self, cas: bool) -> Proxy:
        def make(store: Store, request_timeout: float = 60.0) -> Consistency:
            deadlines = Deadlines()
            return Consistency(store, MountMetrics("state"), deadlines, cas=cas, request_timeout=request_timeout)

        return make

    def lossy(self, store: Store, seed: int) -> LossyStore:
        return LossyStore(store, seed, refused=0.05, request_lost=0.1, answer_lost=0.15, fail_read=0.05)

    # -- many writers, many faults

    async def test_a_counter_is_exact(self, connect: Connect, proxy: Proxy) -> None:
        """Read, add one's name, write over what was read; after a conflict again. As a counter, and it says who."""
        tally = Tally()

        async def count(layer: Consistency) -> None:
            written = 0
            while written < self.WRITES:
                names, when = await body_of(layer, b"counter")
                mine = wish(when)
                try:
                    await layer.put(b"counter", Body(names + mine.id.encode() + b"\n"), mine)
                except (Conflict, Exists):
                    tally.refused.append(mine.id)
                except UnknownOutcome:
                    tally.unknown.append(mine.id)
                    written += 1
                else:
                    tally.acknowledged.append(mine.id)
                    written += 1

        stores = [self.lossy(await connect(), seed) for seed in range(self.WRITERS)]
        await asyncio.gather(*(count(proxy(store)) for store in stores))
        tally.check((await read(await connect(), b"counter") or b"").decode().split())
        assert sum(store.suffered["answer lost"] for store in stores), "no answer was lost: the test shows nothing"
        if stores[0].traits.idempotent:
            assert not tally.unknown

    async def test_appends_land_exactly_once(self, connect: Connect, proxy: Proxy) -> None:
        tally = Tally()

        async def log(layer: Consistency) -> None:
            for _ in range(self.WRITES):
                line = wish()
                try:
                    await layer.append(b"log", Body(line.id.encode() + b"\n"), line)
                except UnknownOutcome:
                    tally.unknown.append(line.id)
                else:
                    tally.acknowledged.append(line.id)

        stores = [self.lossy(await connect(), 100 + seed) for seed in range(self.WRITERS)]
        await asyncio.gather(*(log(proxy(store)) for store in stores))
        tally.check((await read(await connect(), b"log") or b"").decode().split())
        assert sum(store.suffered["answer lost"] for store in stores), "no answer was lost: the test shows nothing"
        if stores[0].traits.idempotent:
            assert not tally.unknown

    async def test_one_writer_never_conflicts_with_itself(self, connect: Connect, proxy: Proxy) -> None:
        store = LossyStore(await connect(), 7, request_lost=0.15, answer_lost=0.25)
        layer = proxy(store)
        when: Precondition = ABSENT
        for number in range(30):
            when = match((await layer.put(b"f", Body(b"%d" % number), wish(when))).version)
        assert await read(store, b"f") == b"29"
        assert layer.figures.conflicts == 0
        assert store.suffered["answer lost"]

    async def test_one_winner_of_a_create(self, connect: Connect, proxy: Proxy) -> None:
        stores = [self.lossy(await connect(), 200 + seed) for seed in range(self.WRITERS)]
        layers = [proxy(store) for store in stores]
        for number in range(8):
            key = b"lock%d" % number
            outcomes = await asyncio.gather(
                *(layer.put(key, Body(b"%d" % who), wish(ABSENT)) for who, layer in enumerate(layers)),
                return_exceptions=True,
            )
            winners = [who for who, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
            unknown = [who for who, outcome in enumerate(outcomes) if isinstance(outcome, UnknownOutcome)]
            lost = [who for who, outcome in enumerate(outcomes) if isinstance(outcome, Exists | Conflict)]
            assert len(winners) + len(unknown) + len(lost) == len(layers), outcomes
            owner = int(await read(stores[0].inner, key) or b"-1")
            assert winners == [owner] or (not winners and owner in unknown)

    async def test_writes_of_one_proxy_keep_their_order(self, connect: Connect, proxy: Proxy) -> None:
        """Unconditional ones, given at once: the last one stays, whatever was repeated."""
        store = self.lossy(await connect(), 11)
        layer = proxy(store)
        for number in range(6):
            key = b"f%d" % number
            await asyncio.gather(*(layer.put(key, Body(b"%d" % n), wish()) for n in range(6)))
            assert await read(store.inner, key) == b"5"

    # -- one fault each

    async def test_a_create_whose_answer_was_lost(self, connect: Connect, proxy: Proxy) -> None:
        store = LossyStore(await connect(), script=[Fault.ANSWER_LOST])
        stat = await proxy(store).put(b"f", Body(b"mine"), wish(ABSENT))
        assert await read(store, b"f") == b"mine"
        head = await store.head(b"f")
        assert head is not None
        assert head.version == stat.version

    async def test_a_create_repeated_through_another_proxy(self, connect: Connect, proxy: Proxy) -> None:
        """The first proxy died between commit and answer."""
        mine = wish(ABSENT)
        first = await proxy(await connect()).put(b"f", Body(b"mine"), mine)
        again = await proxy(await connect()).put(b"f", Body(b"mine"), mine)
        assert again.version == first.version
        with pytest.raises(Exists):
            await proxy(await connect()).put(b"f", Body(b"mine"), wish(ABSENT))

    async def test_a_replacement_repeated_through_another_proxy(self, connect: Connect, proxy: Proxy) -> None:
        base = await write(await connect(), b"f", b"base")
        mine = wish(match(base.version))
        first = await proxy(await connect()).put(b"f", Body(b"mine"), mine)
        again = await proxy(await connect()).put(b"f", Body(b"mine"), mine)
        assert again.version == first.version
        with pytest.raises(Conflict):
            await proxy(await connect()).put(b"f", Body(b"other"), wish(match(base.version)))

    async def test_an_append_repeated_through_another_proxy(self, connect: Connect, proxy: Proxy) -> None:
        line = wish()
        for _ in range(3):
            await proxy(await connect()).append(b"log", Body(b"line\n"), line)
        assert await read(await connect(), b"log") == b"line\n"

    async def test_a_true_conflict_stays_one(self, connect: Connect, proxy: Proxy) -> None:
        """The request was lost, and somebody else came first."""
        other = await connect()
        base = await write(other, b"f", b"base")

        async def overwrite() -> None:
            await proxy(other).put(b"f", Body(b"theirs"), wish(match(base.version)))

        store = LossyStore(await connect(), script=[Scripted(Fault.REQUEST_LOST, overwrite)])
        with pytest.raises(Conflict):
            await proxy(store).put(b"f", Body(b"mine"), wish(match(base.version)))
        assert await read(other, b"f") == b"theirs"

    async def test_a_write_that_landed_and_was_overwritten(self, connect: Connect, proxy: Proxy) -> None:
        """Acknowledged, because it happened; but with a token that matches no more."""
        other = await connect()
        base = await write(other, b"f", b"base")

        async def overwrite() -> None:
            layer = proxy(other)
            _, when = await body_of(layer, b"f")
            await layer.put(b"f", Body(b"theirs"), wish(when))

        store = LossyStore(await connect(), script=[Scripted(Fault.ANSWER_LOST, overwrite)])
        layer = proxy(store)
        stat = await layer.put(b"f", Body(b"mine"), wish(match(base.version)))
        assert await read(other, b"f") == b"theirs"
        with pytest.raises(Conflict):
            await layer.put(b"f", Body(b"again"), wish(match(stat.version)))
        assert await read(other, b"f") == b"theirs"

    @pytest.mark.parametrize("fault", list(Fault))
    async def test_an_unconditional_write(self, connect: Connect, proxy: Proxy, fault: Fault) -> None:
        store = LossyStore(await connect(), script=[fault, fault])
        await write(store.inner, b"f", b"before")
        await proxy(store).put(b"f", Body(b"mine"), wish())
        assert await read(store, b"f") == b"mine"

    @pytest.mark.parametrize("fault", list(Fault))
    async def test_a_delete(self, connect: Connect, proxy: Proxy, fault: Fault) -> None:
        """Never `not found` or `conflict` for one's own success."""
        store = LossyStore(await connect(), script=[fault])
        layer = proxy(store)
        for when in (ANY, None):
            stat = await write(store.inner, b"f", b"content")
            try:
                await layer.delete(b"f", wish(match(stat.version) if when is None else when))
            except UnknownOutcome:
                assert fault is Fault.ANSWER_LOST
                assert not store.traits.idempotent
            except Unsupported:
                assert not store.traits.conditional_delete
                await store.inner.delete(b"f", change())
            assert await store.head(b"f") is None
            store.script.append(Scripted(fault))

    async def test_deleting_what_is_absent(self, connect: Connect, proxy: Proxy) -> None:
        with pytest.raises(KeyNotFound):
            await proxy(await connect()).delete(b"nothing", wish())

    @pytest.mark.parametrize("fault", list(Fault))
    async def test_a_rename(self, connect: Connect, proxy: Proxy, fault: Fault) -> None:
        store = LossyStore(await connect(), script=[fault])
        layer = proxy(store)
        await write(store.inner, b"old", b"content")
        target = await write(store.inner, b"new", b"target")
        try:
            await layer.rename(b"old", b"new", wish(match(target.version)))
        except Unsupported:
            assert not store.traits.conditional_put
            return
        assert await read(store, b"new") == b"content"
        assert await store.head(b"old") is None

    async def test_a_rename_repeated_through_another_proxy(self, connect: Connect, proxy: Proxy) -> None:
        await write(await connect(), b"old", b"content")
        mine = wish(ABSENT)
        for _ in range(2):
            await proxy(await connect()).rename(b"old", b"new", mine)
        assert await read(await connect(), b"new") == b"content"

    @pytest.mark.parametrize("pinned", [False, True], ids=["any", "pinned"])
    async def test_a_rename_repeated_after_its_source_was_written_anew(
        self, connect: Connect, proxy: Proxy, pinned: bool
    ) -> None:
        """Its copy had landed when the proxy died. What has been written since under the old name stays there."""
        store = await connect()
        if store.traits.rename or not store.traits.conditional_put:
            pytest.skip("a rename is one step here, or cannot be looked up")
        stat = await write(store, b"source", b"mine")
        once, when = wish(ABSENT), match(stat.version) if pinned else ANY
        broken = LossyStore(store)

        async def refuse(key: bytes, change: Change) -> None:
            raise Unavailable("down", ambiguous=False)

        broken.delete = refuse  # type: ignore[method-assign]
        with pytest.raises(UnknownOutcome):
            await proxy(broken, request_timeout=0.01).rename(b"source", b"target", once, when)
        assert await read(store, b"target") == b"mine"
        await write(store, b"source", b"another's")
        await proxy(await connect()).rename(b"source", b"target", once, when)
        assert (await read(store, b"source"), await read(store, b"target")) == (b"another's", b"mine")

    async def test_a_directory_moves_beside_writers(self, connect: Connect, proxy: Proxy) -> None:
        """What was not read is not reported as known, nor by the repeat of a move that broke off."""
        store = await connect()
        if not store.traits.conditional_put:
            pytest.skip("the store does not claim Traits.conditional_put")
        known: dict[bytes, str | None] = {b"absent": None}
        for name in (b"changed", b"deep/same", b"same"):
            known[name] = (await write(store, b"old/" + name, b"1")).version
        await write(store, b"old/changed", b"2")
        once = wish()
        broken = LossyStore(store, script=[None] * 4 + [Fault.REFUSED])
        with suppress(Unavailable):
            await Service(proxy(broken, request_timeout=0.01)).rename(b"old/", b"new/", once, ANY, known)
        moved = await Service(proxy(await connect())).rename(b"old/", b"new/", once, ANY, known)
        stats = {name: await store.head(b"new/" + name) for name in (b"deep/same", b"same")}
        assert moved == {name: stat and stat.version for name, stat in stats.items()}
        assert await read(store, b"new/changed") == b"2"

    async def test_an_unnamed_change_is_never_repeated(self, connect: Connect, proxy: Proxy) -> None:
        """It is settled by looking, or its outcome is unknown."""
        for fault in (Fault.REQUEST_LOST, Fault.ANSWER_LOST):
            store = LossyStore(await connect(), script=[fault])
            try:
                await proxy(store).append(b"log", Body(b"line\n"), wish(named=False))
            except UnknownOutcome:
                pass
            else:
                assert fault is Fault.ANSWER_LOST
            assert store.attempts == 1
        assert await read(await connect(), b"log") == b"line\n"

    async def test_a_stream_is_never_sent_twice(self, connect: Connect, proxy: Proxy) -> None:
        data = pattern(5000)
        store = LossyStore(await connect(), script=[Fault.REQUEST_LOST])
        with pytest.raises(Unavailable):
            await proxy(store).put(b"f", Body(stream=pieces([data])), wish())
        assert await store.head(b"f") is None
        assert store.attempts == 1
        with pytest.raises(StoreError, match="ended early"):
            await proxy(store).put(b"f", Body(stream=cut([data])), wish())
        assert await store.head(b"f") is None
        await proxy(store).put(b"f", Body(stream=pieces([data])), wish())
        assert await read(store, b"f") == data

    # -- outages

    async def test_a_store_that_stays_away_is_an_error_and_no_answer(self, connect: Connect, proxy: Proxy) -> None:
        store = LossyStore(await connect(), request_lost=1.0, fail_read=1.0)
        await write(store.inner, b"f", b"content")
        layer = proxy(store, request_timeout=0.1)
        for key in (b"f", b"nothing"):
            with pytest.raises(Unavailable):
                await layer.head(key)
            with pytest.raises(Unavailable):
                await layer.get(key)
            with pytest.raises(Unavailable):
                await layer.put(key, Body(b"x"), wish())
            with pytest.raises(Unavailable):
                await layer.put(key, Body(b"x"), wish(ABSENT))
            with pytest.raises(Unavailable):
                await layer.delete(key, wish())
            with pytest.raises(Unavailable):
                await layer.append(key, Body(b"x"), wish())
        with pytest.raises(Unavailable):
            await layer.list(b"")
        assert await read(store.inner, b"f") == b"content"

    async def test_a_short_outage_is_waited_out(self, connect: Connect, proxy: Proxy) -> None:
        store = LossyStore(await connect(), 3, fail_read=0.5, script=[Fault.REFUSED] * 3)
        layer = proxy(store)
        await layer.put(b"f", Body(b"content"), wish(ABSENT))
        for _ in range(8):
            assert (await body_of(layer, b"f"))[0] == b"content"
            assert await layer.head(b"nothing") is None
        assert store.suffered["read failed"]
