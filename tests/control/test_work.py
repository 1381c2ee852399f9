"""The queue, the watchdog and the rollout: bookkeeping that decides when an actor is looked at."""

import asyncio
import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asya_operator.operate import Metrics
from asya_operator.rollout import TRIAL_ANNOTATION, TRIAL_SECONDS, Key, Rollout, Trial
from asya_operator.watchdog import Watchdog
from asya_operator.work import FIRST_RETRY, LAST_RETRY, WorkQueue

A, B, C = ("n", "a"), ("n", "b"), ("n", "c")


@pytest.fixture
async def queue():
    found = WorkQueue()
    yield found
    found.close()


async def take(queue):
    async with asyncio.timeout(5):
        return await queue.take()


async def test_a_key_is_queued_once(queue):
    for _ in range(3):
        queue.add(A)
    queue.add(B)
    assert [await take(queue), await take(queue)] == [A, B]
    assert len(queue) == 0


async def test_how_long_the_queue_makes_wait(queue, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    sample = Metrics(queue).registry.get_sample_value
    assert (queue.oldest, queue.retrying, sample("asya_operator_queue_length")) == (0, 0, 0)
    queue.add(A)
    now[0] += 5
    queue.add(B)
    now[0] += 2
    queue.add(A)
    assert queue.oldest == sample("asya_operator_queue_oldest_seconds") == 7
    assert sample("asya_operator_queue_length") == 2
    assert queue._ready.popleft() == A
    queue._queued.pop(A)
    assert queue.oldest == 2


async def test_what_fails_is_retried_until_it_does_not(queue):
    queue.add(A)
    queue.failed(await take(queue))
    assert queue.retrying == Metrics(queue).registry.get_sample_value("asya_operator_retrying_actors") == 1
    queue.add(A)
    queue.done(await take(queue))
    assert queue.retrying == 0


async def test_a_key_in_work_waits_for_its_worker(queue):
    queue.add(A)
    assert await take(queue) == A
    queue.add(A)
    queue.add(B)
    assert await take(queue) == B
    pending = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not pending.done(), "one key in two workers"
    queue.done(A)
    assert await asyncio.wait_for(pending, 5) == A


async def test_failures_come_back_later_each_time(queue):
    delays = []
    for _ in range(12):
        queue.add(A)
        await take(queue)
        delays.append(queue.failed(A))
    assert delays[:3] == [FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY]
    assert delays[-1] == LAST_RETRY
    queue.add(A)
    await take(queue)
    queue.done(A)
    queue.add(A)
    await take(queue)
    assert queue.failed(A) == FIRST_RETRY


async def test_the_earlier_appointment_stays(queue):
    queue.add(A, 1000)
    queue.add(A, 0.01)
    queue.add(A, 2000)
    assert await take(queue) == A


def test_a_watch_that_follows_is_alive():
    dog = Watchdog()
    dog.seen(A, "1")
    assert dog.listed({A: "1"}) == (set(), False)
    # A list may be ahead for a moment.
    assert dog.listed({A: "2", B: "5"}) == ({A, B}, False)
    dog.seen(A, "3")
    dog.seen(B, "5")
    assert dog.listed({A: "4", B: "5"}) == ({A}, False)


def test_a_watch_that_stands_still_is_dead():
    dog = Watchdog()
    dog.seen(A, "1")
    assert dog.listed({A: "2"}) == ({A}, False)
    assert dog.listed({A: "2"}) == ({A}, True)
    dog.seen(A, "2")
    assert dog.listed({A: "2"}) == (set(), False)


def test_a_deletion_the_watch_missed_is_noticed():
    dog = Watchdog()
    dog.seen(A, "1")
    assert dog.listed({}) == ({A}, False)
    assert dog.listed({}) == ({A}, True)
    dog.seen(A, None)
    assert dog.listed({}) == (set(), False)


OLD, NEW = "old", "new"


def test_at_most_so_many_roll():
    rollout = Rollout(1)
    assert rollout.image(A, OLD, NEW, [OLD]) == NEW
    assert rollout.image(B, OLD, NEW, [OLD]) == OLD
    # The same actor asks again: it is its turn still.
    assert rollout.image(A, OLD, NEW, [OLD]) == NEW
    assert rollout.seen(A, True, stable=False, degraded=False) == set()
    assert rollout.seen(A, True, stable=True, degraded=False) == {B}
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_a_degraded_actor_stops_the_rollout():
    rollout = Rollout(10)
    assert rollout.image(A, OLD, NEW, [OLD]) == NEW
    rollout.seen(A, True, stable=False, degraded=True)
    assert rollout.image(B, OLD, NEW, [OLD]) == OLD
    assert rollout.forget(A) == {B}
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_a_degraded_actor_on_the_old_image_does_not():
    rollout = Rollout(10)
    rollout.seen(A, False, stable=False, degraded=True)
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_an_actor_that_the_rollout_did_not_change_does_not_hold_it():
    """A tenant's new actor has the new image at once; its handler says nothing about the image."""
    rollout = Rollout(1)
    assert rollout.image(A, None, NEW, [OLD]) == NEW
    rollout.seen(A, False, stable=False, degraded=True)
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_an_actor_that_never_becomes_stable_takes_no_slot_unless_the_rollout_changed_it():
    rollout = Rollout(1)
    assert rollout.image(A, None, NEW, [OLD]) == NEW
    rollout.seen(A, False, stable=False, degraded=False)
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_an_actor_that_was_degraded_before_does_not_hold_it():
    rollout = Rollout(1)
    assert rollout.image(A, OLD, NEW, [OLD], was_degraded=True) == NEW
    rollout.seen(A, False, stable=False, degraded=True)
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_an_actor_whose_change_is_refused_gives_its_slot_back():
    rollout = Rollout(1)
    assert rollout.image(A, OLD, NEW, [OLD]) == NEW
    assert rollout.image(B, OLD, NEW, [OLD]) == OLD
    assert rollout.seen(A, False, stable=False, degraded=True) == {B}
    assert rollout.image(B, OLD, NEW, [OLD]) == NEW


def test_a_process_that_starts_anew_waits_for_what_the_last_one_changed():
    rollout = Rollout(1)
    rollout.recall([_deployment(A, Trial(NOON, 1)), _deployment(B, None)])
    assert rollout.image(B, OLD, NEW, [OLD]) == OLD
    assert rollout.seen(A, True, stable=True, degraded=False) == {B}


def test_what_stands_on_a_deployment_is_read_again():
    trial = Trial(NOON, 7)
    assert Trial.of(_deployment(A, trial)) == trial
    assert Trial.of(None) is None
    for text in ("", "yesterday generation 7", "2026-01-02T12:00:00Z", "2026-01-02T12:00:00Z generation x"):
        found = _deployment(A, None)
        found["metadata"]["annotations"] = {TRIAL_ANNOTATION: text}
        assert Trial.of(found) is None


def test_a_trial_ends():
    trial = Trial(NOON, 7)
    assert trial.rest(NOON) == TRIAL_SECONDS
    assert trial.rest(NOON + datetime.timedelta(seconds=TRIAL_SECONDS - 1)) == 1.0
    assert trial.rest(NOON + datetime.timedelta(days=1)) == 0.0


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def _deployment(key: Key, trial: Trial | None) -> dict[str, Any]:
    annotations = {} if trial is None else {"annotations": trial.annotations()}
    return {"metadata": {"namespace": key[0], "name": key[1], **annotations}}


def test_new_actors_and_forgotten_images_do_not_wait():
    rollout = Rollout(1)
    rollout.image(A, OLD, NEW, [OLD])
    assert rollout.image(B, None, NEW, [OLD]) == NEW
    assert rollout.image(C, "ancient", NEW, [OLD]) == NEW


@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["ask", "stable", "degraded", "gone"])), max_size=60),
    st.integers(1, 4),
)
def test_the_limit_holds_whatever_happens(steps, limit):
    rollout = Rollout(limit)
    images: dict[int, str] = dict.fromkeys(range(10), OLD)
    for number, step in steps:
        key = ("n", str(number))
        if step == "ask":
            images[number] = rollout.image(key, images[number], NEW, [OLD])
        elif step == "gone":
            rollout.forget(key)
            images[number] = OLD
        else:
            rollout.seen(key, images[number] == NEW, stable=step == "stable", degraded=step == "degraded")
        asked = [k for k in rollout.rolling if k not in rollout.degraded]
        assert len(asked) <= limit + len(rollout.degraded) or step == "stable"
