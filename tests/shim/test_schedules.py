"""Four turns at once on one file, their steps interleaved in every order that chance gives, against a model.

The steps are real file calls of real turns, through a real proxy, one at a time, so a schedule can be run again. The
model says of each what must come: a turn sees what is committed or what it wrote itself; in CAS a change succeeds if,
and only if, the file is still what the turn relies on (contract section 4), so every conflict is a true one and no
update is lost; in LWW every change succeeds.
"""

# ruff: noqa: SIM115

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import TextIO

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from asya_shim import StateConflictError, Turn
from support.campaign import say
from support.state_proxy import State

Steps = Iterator[None]
_serial = itertools.count()


class File:
    """What is stored, as the model has it. Each change makes another version."""

    def __init__(self, state: State, name: str, content: str | None) -> None:
        self.path = state.path(name)
        self.state = state
        self.name = name
        self.cas = state.cas
        self.content = content
        self.version = 0
        self.conflicts = 0
        self.updates: list[str] = []
        """What was added by changes that succeeded."""
        if content is not None:
            state.put(name, content.encode())

    def store(self, content: str) -> None:
        self.content = content
        self.version += 1


class Seat:
    """One turn, and what the model knows of it: what it relies on, and what it wrote and did not store yet."""

    def __init__(self, file: File, number: int) -> None:
        self.file = file
        self.turn = Turn()
        self.mark = f"[{number}]"
        self.scratch = file.state.path(f"{file.name}-{number}")
        self.base: int | None = None
        self.seen = False
        self.stale = False
        self.unsent: str | None = None
        self.kept: list[TextIO] = []
        """What is open: collected, a file would be stored."""

    # Each is one step: a file call and what must come of it

    def read(self) -> str:
        file = self.file
        expected = file.content if self.unsent is None else self.unsent
        try:
            with open(self.file.path) as f:
                found = f.read()
        except FileNotFoundError:
            assert expected is None
            found = ""
        else:
            assert found == expected
        if self.unsent is None and (not self.seen or self.stale):
            self.base, self.seen, self.stale = file.version, True, False
        return found

    def look(self) -> None:
        assert os.path.exists(self.file.path) is (self.unsent is not None or self.file.content is not None)
        if self.unsent is None:
            if self.file.content is None and (not self.seen or self.stale):
                self.base, self.seen, self.stale = self.file.version, True, False
            elif self.base is None:
                self.base = self.file.version

    def changing(self, change: Callable[[], object], content: str, *, opens: bool = False) -> bool:
        """Do what stores `content`, or (`opens`) only opens for writing; whether it succeeded."""
        file = self.file
        if self.base is None and not self.stale:
            self.base = file.version
        true_conflict = file.cas and (self.stale or (not opens and self.base != file.version))
        try:
            change()
        except StateConflictError:
            assert true_conflict, "a made-up conflict"
            file.conflicts += 1
            if self.seen:
                self.stale = True
            else:
                self.base = None
            self.unsent = None
            return False
        assert not true_conflict, "a lost update"
        if not opens:
            file.store(content)
            file.updates.append(self.mark)
            self.base, self.seen, self.stale, self.unsent = file.version, True, False, None
        return True

    def rewrite(self, text: str, *, keep_open: bool = False) -> Steps:
        """Open, write, flush, and close, each a step; `keep_open` leaves the last to the end of the turn."""
        opened: list[TextIO] = []
        if not self.changing(lambda: opened.append(open(self.file.path, "w")), text, opens=True):
            return
        [f] = self.kept = opened
        self.unsent = ""
        yield
        f.write(text)
        f.flush()
        self.unsent = text
        yield
        self.read()
        yield
        if not keep_open:
            self.changing(f.close, text)

    def append(self) -> Steps:
        file = self.file
        f = open(file.path, "a")
        yield
        f.write(self.mark)
        yield
        before = file.version
        f.close()
        file.store((file.content or "") + self.mark)
        file.updates.append(self.mark)
        if self.base == before and not self.stale:
            self.base = file.version

    def commit(self) -> None:
        if self.unsent is None:
            self.turn.commit()
        else:
            self.changing(self.turn.commit, self.unsent)


# Handlers


def increments(seat: Seat) -> Steps:
    text = seat.read()
    yield
    yield from seat.rewrite(text + seat.mark)


def increments_at_its_end(seat: Seat) -> Steps:
    text = seat.read()
    yield
    yield from seat.rewrite(text + seat.mark, keep_open=True)


def tries_again(seat: Seat) -> Steps:
    for _ in range(3):
        conflicts = seat.file.conflicts
        text = seat.read()
        yield
        yield from seat.rewrite(text + seat.mark)
        if seat.file.conflicts == conflicts:
            return
        yield


def insists(seat: Seat) -> Steps:
    """It writes again after a conflict without having looked."""
    text = seat.read()
    yield
    for _ in range(2):
        yield from seat.rewrite(text + seat.mark)
        if seat.mark in seat.file.updates:
            return
        yield


def looks_first(seat: Seat) -> Steps:
    seat.look()
    yield
    text = seat.read()
    yield
    seat.read()
    yield
    yield from seat.rewrite(text + seat.mark)


def replaces(seat: Seat) -> Steps:
    text = seat.read() + seat.mark
    yield
    with open(seat.scratch, "w") as f:
        f.write(text)
    yield
    seat.changing(lambda: os.replace(seat.scratch, seat.file.path), text)


def appends(seat: Seat) -> Steps:
    yield from seat.append()
    yield
    yield from seat.append()


def reads_and_appends(seat: Seat) -> Steps:
    seat.read()
    yield
    yield from seat.append()
    yield
    text = seat.read()
    yield
    yield from seat.rewrite(text + seat.mark)


def only_reads(seat: Seat) -> Steps:
    for _ in range(4):
        seat.read()
        yield
        seat.look()
        yield


def fails(seat: Seat) -> Steps:
    """What it wrote is discarded."""
    text = seat.read()
    yield
    yield from seat.rewrite(text + "never seen by anybody", keep_open=True)
    yield
    seat.turn.discard()
    seat.unsent = None


HANDLERS = (
    increments,
    increments_at_its_end,
    tries_again,
    insists,
    looks_first,
    replaces,
    appends,
    reads_and_appends,
    only_reads,
    fails,
)


def run(file: File, handlers: list[Callable[[Seat], Steps]], schedule: list[int]) -> int:
    """Interleave the handlers' steps as `schedule` says, then round by round; the number of steps."""
    seats = [Seat(file, number) for number in range(len(handlers))]
    left = {number: handler(seat) for number, (handler, seat) in enumerate(zip(handlers, seats, strict=True))}
    steps = 0
    order = iter(schedule)
    while left:
        number = next(order, steps)
        number = list(left)[number % len(left)]
        seat = seats[number]
        with seat.turn:
            try:
                next(left[number])
            except StopIteration:
                del left[number]
                if not seat.turn.ended:
                    seat.commit()
        steps += 1
    stored = file.state.get(file.name)
    assert stored == (None if file.content is None else file.content.encode())
    if file.cas:
        # Nobody's update is lost: everybody wrote on what was there.
        assert (
            sorted(stored.decode().replace("]", "] ").split()) == sorted(file.updates) if stored else not file.updates
        )
    return steps


def campaign(state: State, examples: int, derandomize: bool) -> None:
    count = {"schedules": 0, "steps": 0, "conflicts": 0}

    @settings(
        max_examples=examples,
        derandomize=derandomize,
        database=None,
        deadline=None,
        phases=[Phase.generate] if derandomize else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        handlers=st.lists(st.sampled_from(HANDLERS), min_size=4, max_size=4),
        schedule=st.lists(st.integers(0, 3), max_size=40),
        there=st.booleans(),
    )
    def explore(handlers: list[Callable[[Seat], Steps]], schedule: list[int], there: bool) -> None:
        file = File(state, f"f{next(_serial)}", "" if there else None)
        count["steps"] += run(file, handlers, schedule)
        count["schedules"] += 1
        count["conflicts"] += file.conflicts

    explore()
    assert (count["conflicts"] > 0) is state.cas
    mode = state.proxy.consistency
    told = ", ".join(f"{number} {what}" for what, number in count.items())
    say(f"{mode}, 4 turns at once: {told}, each as the model has it")


def test_schedules(state: State) -> None:
    campaign(state, 100, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_schedules_for_long(state: State) -> None:
    campaign(state, int(os.environ.get("ASYA_SOAK_SCHEDULES", "10000")), derandomize=False)
