"""What the consistency layer makes of lost answers, refusals and races, on a store that only does single attempts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from asya_proxy import attempts as layer
from asya_proxy.consistency import Consistency, Wish
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import (
    Busy,
    Conflict,
    Exists,
    KeyNotFound,
    PermissionDenied,
    StoreError,
    Timeout,
    Unavailable,
    UnknownOutcome,
    Unsupported,
)
from asya_proxy.metrics import MountMetrics
from asya_proxy.settlement import is_superseded
from asya_proxy.stores.base import ABSENT, ANY, Body, Change, Precondition, Reading, Stat, StoreConfig, match
from asya_proxy.stores.memory import MemoryStore
from support.history_store import HistoryStore

K = b"key"


def wish(when: Precondition = ANY, *, named: bool = True) -> Wish:
    return Wish(secrets.token_urlsafe(16), when, named)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(layer, "LONGEST_PAUSE", 0.004)


def over(store: HistoryStore | MemoryStore, *, cas: bool = True, weak: bool = False, time: float = 5.0) -> Consistency:
    deadlines = Deadlines(tick=0.005)
    return Consistency(store, MountMetrics("m"), deadlines, cas=cas, request_timeout=time, weak_delete=weak)


@pytest.fixture
def store() -> HistoryStore:
    return HistoryStore()


async def test_a_write_lost_on_its_way_is_repeated(store: HistoryStore) -> None:
    cas = over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    store.script.extend(["before", "before"])
    stat = await cas.put(K, Body(b"new"), wish(match(base.version)))
    assert store.objects[K] == (b"new", stat)
    assert cas.figures.retries == 2


async def test_a_write_whose_answer_was_lost_is_found(store: HistoryStore) -> None:
    cas = over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    store.script.append("after")
    stat = await cas.put(K, Body(b"new"), wish(match(base.version)))
    assert store.objects[K] == (b"new", stat)
    assert store.asked.count("put") == 2


async def test_a_write_found_but_overwritten_is_acknowledged_with_a_token_that_never_matches(
    store: HistoryStore,
) -> None:
    cas, other = over(store), over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))

    async def overwrite() -> None:
        seen = await other.head(K)
        assert seen is not None
        await other.put(K, Body(b"theirs"), wish(match(seen.version)))

    store.script.append(overwrite)
    stat = await cas.put(K, Body(b"mine"), wish(match(base.version)))
    assert is_superseded(stat.version)
    assert store.objects[K][0] == b"theirs"
    with pytest.raises(Conflict):
        await cas.put(K, Body(b"again"), wish(match(stat.version)))
    with pytest.raises(Conflict):
        await cas.get(K, version=stat.version)


async def test_a_base_replaced_by_another_is_a_conflict(store: HistoryStore) -> None:
    cas, other = over(store), over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    theirs = wish(match(base.version))
    store.script.append("before")
    put = store.put

    async def race(key: bytes, body: Body, change: Change) -> Stat:
        if store.script:
            try:
                return await put(key, body, change)
            finally:
                await other.put(K, Body(b"theirs"), theirs)
        return await put(key, body, change)

    store.put = race  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await cas.put(K, Body(b"mine"), wish(match(base.version)))
    assert store.objects[K][0] == b"theirs"
    assert cas.figures.conflicts == 1


async def test_neither_own_nor_base_is_unknown_and_never_a_conflict(store: HistoryStore) -> None:
    cas = over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))

    async def foreign() -> None:
        _, stat = store.objects[K]
        store.objects[K] = (b"foreign", stat._replace(version="foreign", history=()))

    store.script.append(foreign)
    with pytest.raises(UnknownOutcome):
        await cas.put(K, Body(b"mine"), wish(match(base.version)))
    assert cas.figures.unknown_outcomes == 1


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("operation", ["put", "append", "delete"])
async def test_a_refusal_after_a_lost_attempt_is_unknown(operation: str, idempotent: bool) -> None:
    """The attempt may land yet, whatever the next one was told."""
    store = HistoryStore(idempotent=idempotent)
    cas = over(store)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    changes = {
        "put": lambda: cas.put(K, Body(b"new"), wish(match(base.version))),
        "append": lambda: cas.append(K, Body(b"new"), wish()),
        "delete": lambda: cas.delete(K, wish(match(base.version))),
    }
    store.script.extend(["before", PermissionDenied("no longer")])
    with pytest.raises(UnknownOutcome):
        await changes[operation]()
    assert cas.figures.unknown_outcomes == 1
    store.script.append(PermissionDenied("no longer"))
    with pytest.raises(PermissionDenied):
        await changes[operation]()


async def test_a_copy_that_may_land_yet_is_no_missing_file(store: HistoryStore) -> None:
    """The copy's answer is lost; before it is repeated, somebody removes the source."""
    store.traits = replace(store.traits, copy=True)
    cas = over(store)
    await cas.put(K, Body(b"data"), wish(ABSENT))
    answers: list[StoreError] = [Unavailable("timed out"), KeyNotFound("absent")]

    async def copy(source: bytes, target: bytes, change: Change, when_source: Precondition) -> Stat:
        store.objects.pop(source, None)
        raise answers.pop(0)

    store.copy = copy  # type: ignore[method-assign]
    with pytest.raises(UnknownOutcome):
        await cas.rename(K, b"other", wish(ABSENT))
    assert answers == []
    assert cas.figures.unknown_outcomes == 1


async def test_an_unreadable_store_leaves_a_lost_write_unknown(store: HistoryStore) -> None:
    cas = over(store, time=0.1)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    store.script.append("after")
    store.unreadable = Unavailable("down")
    with pytest.raises(UnknownOutcome):
        await cas.put(K, Body(b"new"), wish(match(base.version)))


@pytest.mark.parametrize("operation", ["put", "delete"])
async def test_a_store_that_becomes_unreadable_leaves_a_lost_change_unknown(
    store: HistoryStore, operation: str
) -> None:
    """The first answer is lost, the second says that others have written since, and then nothing can be asked."""
    cas = over(store, time=0.1)
    base = await cas.put(K, Body(b"old"), wish(ABSENT))
    answers: list[StoreError] = [Unavailable("timed out"), Conflict("another version")]

    async def change(*_: object) -> None:
        if len(answers) == 1:
            store.unreadable = Unavailable("down")
        raise answers.pop(0)

    setattr(store, operation, change)
    changes = {
        "put": lambda: cas.put(K, Body(b"new"), wish(match(base.version))),
        "delete": lambda: cas.delete(K, wish(match(base.version))),
    }
    with pytest.raises(UnknownOutcome):
        await changes[operation]()
    assert answers == []


async def test_a_repeat_of_a_client_after_this_proxy_died_finds_itself(store: HistoryStore) -> None:
    """The store refuses, nothing was lost here: another proxy was told and died."""
    change = wish(ABSENT)
    first = await over(store).put(K, Body(b"mine"), change)
    assert await over(store).put(K, Body(b"mine"), change) == first
    replaced = wish(match(first.version))
    second = await over(store).put(K, Body(b"mine 2"), replaced)
    assert await over(store).put(K, Body(b"mine 2"), replaced) == second
    await over(store).put(K, Body(b"theirs"), wish(match(second.version)))
    assert is_superseded((await over(store).put(K, Body(b"mine 2"), replaced)).version)


async def test_plain_refusals_stay_what_they_are(store: HistoryStore) -> None:
    cas = over(store)
    first = await cas.put(K, Body(b"1"), wish(ABSENT))
    await cas.put(K, Body(b"2"), wish(match(first.version)))
    with pytest.raises(Exists):
        await cas.put(K, Body(b"3"), wish(ABSENT))
    with pytest.raises(Conflict):
        await over(store).put(K, Body(b"3"), wish(match(first.version)))
    with pytest.raises(Conflict):
        await over(store).put(b"absent", Body(b"3"), wish(match(first.version)))


async def test_a_refusal_that_certainly_did_nothing_is_repeated_until_the_deadline(store: HistoryStore) -> None:
    cas = over(store, cas=False)
    store.script.extend([Unavailable("refused", ambiguous=False), Busy("slow down"), None])
    await cas.put(K, Body(b"1"), wish())
    store.script.extend([Busy("slow down")] * 500)
    with pytest.raises(Busy):
        await over(store, cas=False, time=0.05).put(K, Body(b"2"), wish())
    assert store.objects[K][0] == b"1"


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_change_without_an_id_is_never_sent_again_after_a_lost_answer(idempotent: bool) -> None:
    store = HistoryStore(idempotent=idempotent)
    lww = over(store, cas=False)
    store.script.append("before")
    with pytest.raises(UnknownOutcome):
        await lww.put(K, Body(b"1"), wish(named=False))
    assert store.asked.count("put") == 1
    await lww.put(K, Body(b"1"), wish(named=False))
    store.script.append("before")
    with pytest.raises(UnknownOutcome):
        await lww.delete(K, wish(named=False))
    assert store.asked.count("delete") == 1


async def test_lww_repeats_a_lost_write_and_asks_nothing_before_the_first(store: HistoryStore) -> None:
    lww = over(store, cas=False)
    await lww.put(K, Body(b"1"), wish())
    assert store.asked == ["put"]
    store.script.append("before")
    await lww.put(K, Body(b"2"), wish())
    assert store.objects[K][0] == b"2"
    store.script.append("after")
    stat = await lww.put(K, Body(b"3"), wish())
    assert store.objects[K] == (b"3", stat)


async def test_a_cas_write_of_a_version_that_passed_by_costs_one_request(store: HistoryStore) -> None:
    cas = over(store)
    stat = await cas.put(K, Body(b"1"), wish(ABSENT))
    store.asked.clear()
    stat = await cas.put(K, Body(b"2"), wish(match(stat.version)))
    assert store.asked == ["put"]
    fresh = over(store)
    store.asked.clear()
    stat = await fresh.put(K, Body(b"3"), wish(match(stat.version)))
    assert store.asked == ["head", "put"]
    assert len(stat.history) == 3


async def test_the_history_stays_within_its_bytes(store: HistoryStore) -> None:
    cas = over(store)
    stat = await cas.put(K, Body(b""), wish(ABSENT))
    for _ in range(100):
        stat = await cas.put(K, Body(b""), wish(match(stat.version)))
    weight = sum(len(past.write_id) + len(past.base or "") + 2 for past in stat.history)
    assert 900 < weight <= 1024


async def test_one_change_of_a_key_at_a_time(store: HistoryStore) -> None:
    """A repeat that is under way is not overtaken by a newer write of the same proxy."""
    lww = over(store, cas=False)
    store.script.extend(["before", "before", "before"])
    old = asyncio.create_task(lww.put(K, Body(b"old"), wish()))
    await asyncio.sleep(0)
    new = asyncio.create_task(lww.put(K, Body(b"new"), wish()))
    await asyncio.gather(old, new)
    assert store.objects[K][0] == b"new"


async def test_waiting_for_a_key_ends_with_the_deadline_and_frees_it() -> None:
    class Stuck(HistoryStore):
        async def put(self, key: bytes, body: Body, change: Change) -> Stat:
            await hold.wait()
            return await super().put(key, body, change)

    hold = asyncio.Event()
    lww = over(Stuck(), cas=False, time=0.1)
    first = asyncio.create_task(lww.put(K, Body(b"1"), wish()))
    await asyncio.sleep(0)
    with pytest.raises(Timeout) as late:
        await lww.put(K, Body(b"2"), wish())
    assert not late.value.ambiguous
    cancelled = asyncio.create_task(lww.put(K, Body(b"3"), wish()))
    await asyncio.sleep(0)
    cancelled.cancel()
    hold.set()
    await first
    assert (await lww.put(K, Body(b"4"), wish())).size == 1
    assert len(lww._order) == 0


# Deletes.


async def test_a_lost_delete_in_lww_is_settled_by_absence(store: HistoryStore) -> None:
    lww = over(store, cas=False)
    for fault in ("before", "after"):
        await lww.put(K, Body(b""), wish())
        store.script.append(fault)
        await lww.delete(K, wish())
        assert K not in store.objects


async def test_a_lost_delete_in_cas_is_repeated_unknown_or_a_conflict(store: HistoryStore) -> None:
    cas, other = over(store), over(store)
    stat = await cas.put(K, Body(b""), wish(ABSENT))
    store.script.append("before")
    await cas.delete(K, wish(match(stat.version)))
    stat = await cas.put(K, Body(b""), wish(ABSENT))
    store.script.append("after")
    with pytest.raises(UnknownOutcome):
        await cas.delete(K, wish(match(stat.version)))

    stat = await cas.put(K, Body(b"1"), wish(ABSENT))
    lost = "before"
    delete = store.delete

    async def race(key: bytes, change: Change) -> None:
        store.script.append(lost)
        try:
            await delete(key, change)
        finally:
            await other.put(K, Body(b"theirs"), wish(match(stat.version)))

    store.delete = race  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await cas.delete(K, wish(match(stat.version)))
    assert store.objects[K][0] == b"theirs"


async def test_absence_after_a_lost_delete_on_a_condition_proves_nothing(store: HistoryStore) -> None:
    """Somebody else may have written it anew and removed it, and the condition have failed."""
    cas = over(store)
    stat = await cas.put(K, Body(b""), wish(ABSENT))
    store.script.extend(["before", KeyNotFound("absent")])
    with pytest.raises(UnknownOutcome):
        await cas.delete(K, wish(match(stat.version)))
    lww = over(store, cas=False)
    store.script.extend(["before", KeyNotFound("absent")])
    await lww.delete(K, wish())


async def test_deletes_on_a_condition_that_the_store_cannot_keep() -> None:
    store = HistoryStore(conditional_delete=False)
    cas = over(store)
    stat = await cas.put(K, Body(b""), wish(ABSENT))
    with pytest.raises(Unsupported, match="STATE_WEAK_DELETE"):
        await cas.delete(K, wish(match(stat.version)))
    weak = over(store, weak=True)
    with pytest.raises(Conflict):
        await weak.delete(K, wish(match("other")))
    await weak.delete(K, wish(match(stat.version)))
    with pytest.raises(KeyNotFound):
        await weak.delete(K, wish())


# What the store cannot do in one step.


async def test_appends_without_the_trait_lose_and_double_nothing(store: HistoryStore) -> None:
    writers = [over(store, cas=False) for _ in range(4)]
    store.script.extend([None, "after", "before", None, "after", None, None, "before"] * 3)

    async def work(writer: Consistency, name: int) -> None:
        for number in range(8):
            await writer.append(K, Body(b"%d.%d\n" % (name, number)), wish())

    await asyncio.gather(*(work(writer, name) for name, writer in enumerate(writers)))
    lines = store.objects[K][0].split()
    assert sorted(lines) == sorted(b"%d.%d" % (name, number) for name in range(4) for number in range(8))


async def test_an_append_says_its_base_and_a_repeat_finds_itself(store: HistoryStore) -> None:
    lww = over(store, cas=False)
    first = await lww.append(K, Body(b"1"), wish())
    assert first.base is None
    change = wish()
    second = await lww.append(K, Body(b"2"), change)
    assert second.base == first.stat.version
    again = await over(store).append(K, Body(b"2"), change)
    assert (again.base, again.stat, store.objects[K][0]) == (second.base, second.stat, b"12")
    await lww.append(K, Body(b"3"), wish())
    assert is_superseded((await over(store).append(K, Body(b"2"), change)).stat.version)


async def test_an_append_may_be_a_stream(store: HistoryStore) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"23"
        yield b"45"

    lww = over(store, cas=False)
    await lww.append(K, Body(b"1"), wish())
    await lww.append(K, Body(stream=pieces()), wish())
    assert store.objects[K][0] == b"12345"


async def test_what_needs_conditions_is_refused_without_them() -> None:
    lww = over(HistoryStore(conditional_put=False, conditional_delete=False), cas=False)
    await lww.put(K, Body(b""), wish())
    for refused in (
        lww.put(K, Body(b""), wish(ABSENT)),
        lww.put(K, Body(b""), wish(match("v1"))),
        lww.append(K, Body(b""), wish()),
        lww.rename(K, b"other", wish(ABSENT)),
        lww.delete(K, wish(match("v1"))),
        lww.set_attrs(K, {}, wish()),
    ):
        with pytest.raises(Unsupported):
            await refused
    await lww.rename(K, b"other", wish())
    assert list(lww.store.objects) == [b"other"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("script", [[], ["after"], [None, "after"], ["before", None, "before"], ["after", "after"]])
async def test_a_rename_by_copy_survives_lost_answers(store: HistoryStore, script: list[str | None]) -> None:
    lww = over(store, cas=False)
    await lww.put(K, Body(b"content"), wish())
    store.script.extend(script)
    change = wish(ABSENT)
    try:
        stat = await lww.rename(K, b"new", change)
    except UnknownOutcome:
        # The removal of the source is not known to have landed; the same change again settles it.
        stat = await over(store, cas=False).rename(K, b"new", change)
    assert store.objects == {b"new": (b"content", stat)}
    assert await over(store, cas=False).rename(K, b"new", change) == stat
    with pytest.raises(KeyNotFound):
        await lww.rename(K, b"new", wish())


async def test_a_source_written_anew_during_its_rename_stays(store: HistoryStore) -> None:
    lww, other = over(store, cas=False), over(store, cas=False)
    await lww.put(K, Body(b"old"), wish())

    async def write() -> None:
        await other.put(K, Body(b"newer"), wish())

    store.script.append(write)
    await lww.rename(K, b"new", wish())
    assert {key: data for key, (data, _) in store.objects.items()} == {K: b"newer", b"new": b"old"}


async def test_a_rename_is_conditional_at_both_ends(store: HistoryStore) -> None:
    cas = over(store)
    source = await cas.put(K, Body(b"s"), wish(ABSENT))
    target = await cas.put(b"t", Body(b"t"), wish(ABSENT))
    with pytest.raises(Exists):
        await cas.rename(K, b"t", wish(ABSENT))
    with pytest.raises(Conflict):
        await cas.rename(K, b"t", wish(match("other")))
    with pytest.raises(Conflict):
        await cas.rename(K, b"t", wish(match(target.version)), match("other"))
    await cas.rename(K, b"t", wish(match(target.version)), match(source.version))
    assert [data for data, _ in store.objects.values()] == [b"s"]


@pytest.mark.parametrize("cas", [False, True])
async def test_a_rename_takes_its_source_as_it_is_by_then(store: HistoryStore, cas: bool) -> None:
    """Whoever writes the old name just before is no conflict of one who did not ask for a version of it."""
    layer, other = over(store, cas=cas), over(store, cas=False)
    old = await other.put(K, Body(b"old"), wish())
    real = store.get

    async def get(key: bytes, *, start: int = 0, end: int | None = None, version: str | None = None) -> Reading | None:
        store.get = real  # type: ignore[method-assign]
        await other.put(K, Body(b"newer"), wish())
        return await real(key, start=start, end=end, version=version)

    store.get = get  # type: ignore[method-assign]
    await layer.rename(K, b"new", wish(ABSENT))
    assert {key: data for key, (data, _) in store.objects.items()} == {b"new": b"newer"}
    assert layer.figures.conflicts == 0

    old = await other.put(K, Body(b"old"), wish())
    store.get = get  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await layer.rename(K, b"another", wish(ABSENT), match(old.version))
    assert store.objects[K][0] == b"newer"


async def test_a_rename_whose_source_is_always_written_ends(store: HistoryStore) -> None:
    lww = over(store, cas=False, time=0.1)
    await lww.put(K, Body(b"old"), wish())

    async def get(key: bytes, **_: object) -> Reading | None:
        raise Conflict("another version")

    async def head(key: bytes) -> Stat | None:
        await store.put(K, Body(b"newer"), Change(secrets.token_urlsafe(16)))
        return store.objects[key][1]

    store.get, store.head = get, head  # type: ignore[method-assign]
    with pytest.raises(Busy):
        await lww.rename(K, b"new", wish())


@pytest.mark.parametrize(
    "failure", [PermissionDenied("no"), Busy("too fast"), Unavailable("down", ambiguous=False), Unsupported("no")]
)
async def test_a_rename_that_cannot_remove_its_source_has_written_its_target(
    store: HistoryStore, failure: StoreError
) -> None:
    """So it is not refused, but unknown: who relied on the target as it was must look at it again."""
    cas = over(store, time=0.05)
    await cas.put(K, Body(b"content"), wish(ABSENT))
    change = wish(ABSENT)
    store.script.extend([None] + [failure] * 200)
    with pytest.raises(UnknownOutcome, match="the new name is written, the old one could not be removed") as unknown:
        await cas.rename(K, b"new", change)
    assert unknown.value.retryable == failure.retryable
    store.script.clear()
    stat = await over(store).rename(K, b"new", change)
    assert store.objects == {b"new": (b"content", stat)}


# Stores that remember changes by themselves.


class LossyMemory(MemoryStore):
    def __init__(self) -> None:
        super().__init__(StoreConfig("", "", {}))
        self.lose = 0

    async def put(self, key: bytes, body: Body, change: Change) -> Stat:
        stat = await super().put(key, body, change)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the answer was lost")
        return stat


async def test_an_idempotent_store_is_simply_asked_again() -> None:
    store = LossyMemory()
    cas = over(store)
    store.lose = 2
    stat = await cas.put(K, Body(b"1"), wish(ABSENT))
    assert await store.head(K) == stat
    store.lose = 1
    with pytest.raises(UnknownOutcome) as unknown:
        await cas.put(K, Body(stream=_once(b"2")), wish(match(stat.version)))
    assert unknown.value.retryable


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_reads_are_repeated_until_the_deadline(store: HistoryStore) -> None:
    cas = over(store, time=0.05)
    store.unreadable = Unavailable("down")
    for read in (cas.head(K), cas.get(K), cas.list(b"")):
        with pytest.raises(Unavailable, match="down"):
            await read
    assert cas.figures.retries > 3
    store.unreadable = None
    assert await cas.head(K) is None
