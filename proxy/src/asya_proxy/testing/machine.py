"""A hypothesis state machine: random walks of operations on a store, compared with a dict after each."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from asya_proxy.errors import Conflict, Exists, IsDirectory, KeyNotFound, NotDirectory, NotEmpty, StoreError
from asya_proxy.stores.base import ABSENT, ANY, Body, Precondition, Stat, Store, match
from asya_proxy.testing.fixtures import StoreFactory
from asya_proxy.testing.samples import change, content, names, pattern, pieces, read

_T = TypeVar("_T")

# Few names, so that they meet; with neighbours of `/` in byte order.
KEYS = (b"a", b"a-", b"a/b", b"a/b/c", b"a0", b"d/", b"d/e", b"\xff\n%")
TREES = (b"a/", b"d/", b"t/")
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([(1 << 20) - 1, (1 << 20) + 1, 2_100_000]))


@dataclass
class Held:
    """What the dict knows of one object."""

    data: bytes
    version: str
    attrs: dict[str, str] = field(default_factory=dict)


class StoreMachine(RuleBasedStateMachine):
    """Subclassed by `run_machine`, which says which store it is."""

    factory: StoreFactory

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store: Store = type(self).factory(f"machine/{secrets.token_hex(6)}/")
        self.run(self.store.connect())
        self.model: dict[bytes, Held] = {}
        self.versions: dict[bytes, list[str]] = {}
        self.written = 0

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    # -- what the dict expects

    def refusal(self, key: bytes, when: Precondition) -> tuple[type[StoreError], ...]:
        """The errors of which a write of `key` must raise one; none where it must succeed."""
        held = self.model.get(key)
        wrong: list[type[StoreError]] = []
        if when.absent and held:
            wrong.append(Exists)
        if when.version is not None and (held is None or held.version != when.version):
            wrong.append(Conflict)
        if held is None and self.store.traits.tree:
            if any(key.startswith(other + b"/") for other in self.model):
                wrong.append(NotDirectory)
            if any(other.startswith(key + b"/") for other in self.model):
                wrong.append(IsDirectory)
        return tuple(wrong)

    def allowed(self, key: bytes) -> bool:
        """Without `Traits.tree` the proxy keeps files and directories apart, and the store may do anything."""
        if self.store.traits.tree or key in self.model:
            return True
        return not any(key.startswith(other + b"/") or other.startswith(key + b"/") for other in self.model)

    def when(self, key: bytes, choice: int) -> Precondition:
        """One of: no condition, absence, a version it had (the newest, or an old one)."""
        seen = self.versions.get(key, [])
        if not self.store.traits.conditional_put or choice == 0:
            return ANY
        if choice == 1:
            return ABSENT
        if key in self.model and choice < 4:
            return match(self.model[key].version)
        return match(seen[choice % len(seen)]) if seen and self.store.traits.unique_versions else ANY

    def bytes_of(self, size: int, key: bytes) -> bytes:
        self.written += 1
        return b"" if key.endswith(b"/") else pattern(min(size, self.store.traits.max_size or size), self.written)

    def keep(self, key: bytes, data: bytes, stat: Stat, attrs: dict[str, str] | None = None) -> None:
        assert stat.size == len(data)
        if self.store.traits.unique_versions:
            assert stat.version not in self.versions.get(key, []), "a version came back"
        self.model[key] = Held(data, stat.version, attrs or {})
        self.versions.setdefault(key, []).append(stat.version)

    def fails(self, work: Coroutine[Any, Any, Any], wrong: tuple[type[StoreError], ...]) -> None:
        try:
            self.run(work)
        except wrong:
            return
        raise AssertionError(f"accepted, where one of {[kind.__name__ for kind in wrong]} was due")

    # -- rules

    @rule(key=st.sampled_from(KEYS), size=SIZES, choice=st.integers(0, 6), streamed=st.booleans())
    def put(self, key: bytes, size: int, choice: int, streamed: bool) -> None:
        if not self.allowed(key):
            return
        when, data = self.when(key, choice), self.bytes_of(size, key)
        body = Body(stream=pieces([data[:1000], data[1000:]])) if streamed else Body(data)
        work = self.store.put(key, body, change(when))
        if wrong := self.refusal(key, when):
            self.fails(work, wrong)
        else:
            self.keep(key, data, self.run(work))

    @rule(key=st.sampled_from(KEYS), choice=st.integers(0, 6))
    def delete(self, key: bytes, choice: int) -> None:
        when = self.when(key, choice) if self.store.traits.conditional_delete and choice != 1 else ANY
        held = self.model.get(key)
        work = self.store.delete(key, change(when))
        if when.version is not None and (held is None or held.version != when.version):
            self.fails(work, (Conflict,))
        elif held is None:
            self.fails(work, (KeyNotFound,))
        else:
            self.run(work)
            del self.model[key]

    @precondition(lambda self: self.store.traits.append)
    @rule(key=st.sampled_from([key for key in KEYS if not key.endswith(b"/")]), size=SIZES)
    def append(self, key: bytes, size: int) -> None:
        if not self.allowed(key):
            return
        tail = self.bytes_of(size, key)
        held = self.model.get(key)
        work = self.store.append(key, Body(tail), change())
        if wrong := self.refusal(key, ANY):
            self.fails(work, wrong)
            return
        appended = self.run(work)
        assert appended.base == (held.version if held else None)
        self.keep(key, (held.data if held else b"") + tail, appended.stat, held.attrs if held else None)

    def _both(self, source: bytes, target: bytes, when: Precondition) -> tuple[type[StoreError], ...]:
        return ((KeyNotFound,) if source not in self.model else ()) + self.refusal(target, when)

    @precondition(lambda self: self.store.traits.rename)
    @rule(
        origin=st.sampled_from([key for key in KEYS if not key.endswith(b"/")]),
        to=st.sampled_from([key for key in KEYS if not key.endswith(b"/")]),
        choice=st.integers(0, 6),
    )
    def rename(self, origin: bytes, to: bytes, choice: int) -> None:
        if origin == to or not self.allowed(to):
            return
        when = self.when(to, choice)
        work = self.store.rename(origin, to, change(when), ANY)
        if wrong := self._both(origin, to, when):
            self.fails(work, wrong)
        else:
            held = self.model.pop(origin)
            self.keep(to, held.data, self.run(work), held.attrs)

    @precondition(lambda self: self.store.traits.copy)
    @rule(
        origin=st.sampled_from([key for key in KEYS if not key.endswith(b"/")]),
        to=st.sampled_from([key for key in KEYS if not key.endswith(b"/")]),
        choice=st.integers(0, 6),
    )
    def copy(self, origin: bytes, to: bytes, choice: int) -> None:
        if origin == to or not self.allowed(to):
            return
        when = self.when(to, choice)
        work = self.store.copy(origin, to, change(when), ANY)
        if wrong := self._both(origin, to, when):
            self.fails(work, wrong)
        else:
            held = self.model[origin]
            self.keep(to, held.data, self.run(work), held.attrs)

    @precondition(lambda self: self.store.traits.rename_tree)
    @rule(origin=st.sampled_from(TREES), to=st.sampled_from(TREES))
    def rename_tree(self, origin: bytes, to: bytes) -> None:
        if origin == to or not self.allowed(to):
            return
        moved = {key: held for key, held in self.model.items() if key.startswith(origin)}
        if not moved:
            return
        work = self.store.rename_tree(origin, to, change())
        wrong = self.refusal(to, ANY)
        if any(key.startswith(to) and key != to for key in self.model):
            wrong = (*wrong, NotEmpty)
        if wrong:
            self.fails(work, wrong)
            return
        assert self.run(work).moved == len(moved)
        self.model.pop(to, None)
        for key in moved:
            del self.model[key]
        for key, held in moved.items():
            stat = self.run(self.store.head(to + key[len(origin) :]))
            assert stat is not None
            self.keep(to + key[len(origin) :], held.data, stat, held.attrs)

    @precondition(lambda self: self.store.traits.attributes)
    @rule(key=st.sampled_from(KEYS), value=st.sampled_from(["MQ==", "Mg=="]))
    def set_attrs(self, key: bytes, value: str) -> None:
        work = self.store.set_attrs(key, {"bg==": value}, change())
        held = self.model.get(key)
        if held is None:
            self.fails(work, (KeyNotFound,))
        else:
            self.keep(key, held.data, self.run(work), {"bg==": value})

    @rule(key=st.sampled_from(KEYS), start=st.integers(0, 2_200_000), length=st.integers(1, 2_000_000))
    def read_range(self, key: bytes, start: int, length: int) -> None:
        held = self.model.get(key)
        if held is None or not held.data:
            return
        start %= len(held.data)
        reading = self.run(self._get(key, start, start + length))
        assert reading == held.data[start : start + length]

    async def _get(self, key: bytes, start: int, end: int) -> bytes:
        return await content(await self.store.get(key, start=start, end=end))

    # -- after each step

    @invariant()
    def listing_is_the_dict(self) -> None:
        async def listed() -> dict[bytes, tuple[str, int]]:
            page = await self.store.list(b"")
            return {entry.key: (entry.version, entry.size) for entry in page.entries}

        assert self.run(listed()) == {key: (held.version, len(held.data)) for key, held in self.model.items()}

    @rule()
    def everything_is_the_dict(self) -> None:
        for key in (*KEYS, *(key for key in self.model if key not in KEYS)):
            held = self.model.get(key)
            stat = self.run(self.store.head(key))
            assert (stat is None) == (held is None)
            assert self.run(read(self.store, key)) == (held.data if held else None)
            if held is not None and stat is not None:
                assert (stat.version, stat.size) == (held.version, len(held.data))
                if self.store.traits.attributes:
                    assert stat.attrs == held.attrs
        assert sorted(self.run(names(self.store, limit=3))) == sorted(self.model)


def run_machine(factory: StoreFactory, *, examples: int, steps: int) -> None:
    """Walk `examples` times `steps` steps. Must not be called from a running event loop."""
    machine = type("StoreMachine", (StoreMachine,), {"factory": staticmethod(factory)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
