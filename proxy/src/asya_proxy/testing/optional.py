"""What only some stores can do atomically: trees, append, rename, copy, attributes."""

from __future__ import annotations

import asyncio
import base64

import pytest

from asya_proxy.errors import Conflict, Exists, IsDirectory, KeyNotFound, NotDirectory, NotEmpty
from asya_proxy.stores.base import ABSENT, ANY, CHUNK, Body, Store, match
from asya_proxy.testing.conditions import race, won
from asya_proxy.testing.fixtures import Connect, StoreFixtures, claims
from asya_proxy.testing.samples import ODD_NAMES, change, content, cut, names, pattern, pieces, read, write


def attributes(**values: str) -> dict[str, str]:
    return {
        base64.b64encode(name.encode()).decode(): base64.b64encode(value.encode()).decode()
        for name, value in values.items()
    }


class TreeCases(StoreFixtures):
    @claims("tree")
    async def test_no_file_where_a_directory_is(self, store: Store) -> None:
        await write(store, b"d/f", b"content")
        await write(store, b"e/", b"")
        for key in (b"d", b"e"):
            for when in (ANY, ABSENT):
                with pytest.raises(IsDirectory):
                    await write(store, key, b"file", when)
        assert await names(store) == [b"d/f", b"e/"]

    @claims("tree")
    async def test_nothing_below_a_file(self, store: Store) -> None:
        await write(store, b"f", b"content")
        for key in (b"f/g", b"f/g/h", b"f/"):
            with pytest.raises((NotDirectory, Exists) if key == b"f/" else NotDirectory):
                await write(store, key, b"", ABSENT)
        assert await names(store) == [b"f"]

    @claims("tree")
    async def test_names_that_only_begin_alike_do_not_matter(self, store: Store) -> None:
        for key in (b"f", b"f-", b"f.x/y", b"f0", b"ff/g", b"d/f", b"d/f0", b"d/f-/x"):
            await write(store, key, b"")
        assert len(await names(store)) == 8

    @claims("tree")
    async def test_a_name_changes_its_kind_when_it_is_free(self, store: Store) -> None:
        await write(store, b"x", b"file")
        await store.delete(b"x", change())
        await write(store, b"x/y", b"below")
        await store.delete(b"x/y", change())
        await write(store, b"x", b"file again")
        assert await names(store) == [b"x"]

    @claims("tree")
    async def test_a_marker_beside_its_files(self, store: Store) -> None:
        await write(store, b"d/f", b"")
        await write(store, b"d/", b"", ABSENT)
        await write(store, b"d/g", b"")
        assert await names(store) == [b"d/", b"d/f", b"d/g"]
        await store.delete(b"d/", change())
        assert await names(store) == [b"d/f", b"d/g"]

    @claims("tree")
    async def test_a_file_and_a_directory_race_for_one_name(self, store: Store, connect: Connect) -> None:
        stores = [await connect() for _ in range(2)]
        for number in range(self.ROUNDS):
            name = b"race%d" % number
            outcomes = await asyncio.gather(
                write(stores[0], name, b"file"), write(stores[1], name + b"/f", b"below"), return_exceptions=True
            )
            assert sorted(isinstance(outcome, Exception) for outcome in outcomes) == [False, True]
            assert isinstance(next(o for o in outcomes if isinstance(o, Exception)), IsDirectory | NotDirectory)
            assert len(await names(stores[0], name)) == 1


class AppendCases(StoreFixtures):
    @claims("append")
    async def test_append_creates_and_adds(self, store: Store) -> None:
        first = await store.append(b"log", Body(b"one\n"), change())
        assert first.base is None
        second = await store.append(b"log", Body(b"two\n"), change())
        assert second.base == first.stat.version != second.stat.version
        assert second.stat.size == 8
        assert await read(store, b"log") == b"one\ntwo\n"
        head = await store.head(b"log")
        assert head is not None
        assert head.version == second.stat.version

    @claims("append")
    async def test_append_to_what_was_put(self, store: Store) -> None:
        put = await write(store, b"f", b"put,")
        appended = await store.append(b"f", Body(b"appended"), change())
        assert appended.base == put.version
        assert await read(store, b"f") == b"put,appended"
        with pytest.raises(Conflict):
            await write(store, b"f", b"x", match(put.version))
        await write(store, b"f", b"y", match(appended.stat.version))

    @claims("append")
    async def test_append_nothing(self, store: Store) -> None:
        await store.append(b"f", Body(b""), change())
        assert await read(store, b"f") == b""
        await store.append(b"f", Body(b"x"), change())
        await store.append(b"f", Body(b""), change())
        assert await read(store, b"f") == b"x"

    @claims("append")
    async def test_append_is_never_repeated(self, store: Store) -> None:
        once = change()
        first = await store.append(b"log", Body(b"one\n"), once)
        if not store.traits.idempotent:
            assert first.stat.history[0].write_id == once.id
            return
        await store.append(b"log", Body(b"two\n"), change())
        assert await store.append(b"log", Body(b"one\n"), once) == first
        assert await read(store, b"log") == b"one\ntwo\n"
        await store.delete(b"log", change())
        assert await store.append(b"log", Body(b"one\n"), once) == first
        assert await store.head(b"log") is None

    @claims("append")
    @pytest.mark.parametrize("base", [0, 10, CHUNK - 1, CHUNK, 2 * CHUNK + 7])
    @pytest.mark.parametrize("tail", [1, CHUNK, 2 * CHUNK + 3])
    async def test_append_to_any_size(self, store: Store, base: int, tail: int) -> None:
        data = pattern(base + tail)
        if store.traits.max_size and len(data) > store.traits.max_size:
            data, base = data[: store.traits.max_size], min(base, store.traits.max_size)
        await write(store, b"f", data[:base])
        blocks = [data[at : at + 300_000] for at in range(base, len(data), 300_000)]
        appended = await store.append(b"f", Body(stream=pieces(blocks)), change())
        assert appended.stat.size == len(data)
        assert await read(store, b"f") == data
        middle = len(data) // 2
        assert await content(await store.get(b"f", start=middle, end=middle + 5)) == data[middle : middle + 5]
        await store.append(b"f", Body(b"end"), change())
        assert await content(await store.get(b"f", start=-5)) == (data + b"end")[-5:]

    @claims("append")
    async def test_many_appends_of_many_sizes(self, store: Store) -> None:
        expected = b""
        for number in range(40):
            tail = pattern(number * 3001, seed=number)
            await store.append(b"f", Body(tail), change())
            expected += tail
        assert await read(store, b"f") == expected
        for start in range(0, len(expected), len(expected) // 7):
            assert await content(await store.get(b"f", start=start, end=start + 5000)) == expected[start : start + 5000]

    @claims("append")
    async def test_a_cut_append_adds_nothing(self, store: Store) -> None:
        before = await write(store, b"f", b"before")
        for sent in (0, 100, CHUNK + 1):
            with pytest.raises(Exception, match="ended early"):
                await store.append(b"f", Body(stream=cut([pattern(sent)])), change())
        assert await read(store, b"f") == b"before"
        assert (await store.head(b"f") or before).version == before.version
        with pytest.raises(Exception, match="ended early"):
            await store.append(b"new", Body(stream=cut([b"x"])), change())
        assert await names(store) == [b"f"]

    @claims("append")
    async def test_readers_of_the_old_version_get_it_whole(self, store: Store) -> None:
        data = pattern(self.large(store) - 10)
        await write(store, b"f", data)
        reading = await store.get(b"f")
        for number in range(3):
            await store.append(b"f", Body(b"%d" % number), change())
        try:
            assert await content(reading) == data
        except Conflict:
            return

    @claims("append")
    async def test_racing_appends_lose_and_double_nothing(self, store: Store, connect: Connect) -> None:
        stores = [await connect() for _ in range(self.CLIENTS)]

        async def log(store: Store, who: int) -> None:
            for number in range(self.ROUNDS):
                await store.append(b"log", Body(b"%d %d\n" % (who, number)), change())

        await asyncio.gather(*(log(store, who) for who, store in enumerate(stores)))
        lines = (await read(stores[0], b"log") or b"").splitlines()
        assert sorted(lines) == sorted(b"%d %d" % (who, n) for who in range(len(stores)) for n in range(self.ROUNDS))
        for who in range(len(stores)):
            mine = [line for line in lines if line.startswith(b"%d " % who)]
            assert mine == [b"%d %d" % (who, number) for number in range(self.ROUNDS)]

    @claims("append")
    async def test_append_keeps_the_tree(self, store: Store) -> None:
        if not store.traits.tree:
            pytest.skip("the store does not claim Traits.tree")
        await write(store, b"d/f", b"")
        with pytest.raises(IsDirectory):
            await store.append(b"d", Body(b"x"), change())
        with pytest.raises(NotDirectory):
            await store.append(b"d/f/g", Body(b"x"), change())


class RenameCases(StoreFixtures):
    @claims("rename")
    async def test_rename(self, store: Store) -> None:
        source = await write(store, b"old", b"content")
        stat = await store.rename(b"old", b"dir/new", change(), ANY)
        assert (stat.size, stat.mtime_ns) == (7, source.mtime_ns)
        assert stat.version != source.version
        assert await read(store, b"dir/new") == b"content"
        assert await names(store) == [b"dir/new"]
        assert (await store.head(b"dir/new") or source).version == stat.version

    @claims("rename")
    async def test_rename_replaces(self, store: Store) -> None:
        await write(store, b"old", pattern(self.large(store)))
        target = await write(store, b"new", pattern(self.large(store), seed=1))
        stat = await store.rename(b"old", b"new", change(match(target.version)), ANY)
        assert stat.version != target.version
        assert await read(store, b"new") == pattern(self.large(store))
        assert await names(store) == [b"new"]

    @claims("rename")
    async def test_rename_conditions(self, store: Store) -> None:
        source = await write(store, b"old", b"content")
        target = await write(store, b"new", b"target")
        with pytest.raises(Exists):
            await store.rename(b"old", b"new", change(ABSENT), ANY)
        with pytest.raises(Conflict):
            await store.rename(b"old", b"new", change(match(source.version)), ANY)
        with pytest.raises(Conflict):
            await store.rename(b"old", b"new", change(match(target.version)), match(target.version))
        with pytest.raises(Conflict):
            await store.rename(b"old", b"absent", change(match(target.version)), ANY)
        assert await names(store) == [b"new", b"old"]
        await store.rename(b"old", b"new", change(match(target.version)), match(source.version))
        assert await names(store) == [b"new"]

    @claims("rename")
    async def test_rename_of_what_is_absent(self, store: Store) -> None:
        await write(store, b"new", b"target")
        with pytest.raises(KeyNotFound):
            await store.rename(b"old", b"new", change(), ANY)
        assert await read(store, b"new") == b"target"

    @claims("rename")
    async def test_rename_onto_itself(self, store: Store) -> None:
        await write(store, b"f", pattern(self.large(store)))
        await store.rename(b"f", b"f", change(), ANY)
        assert await read(store, b"f") == pattern(self.large(store))

    @claims("rename")
    async def test_rename_of_odd_names(self, store: Store) -> None:
        flat = [name for name in ODD_NAMES if b"/" not in name]
        await write(store, flat[-1], b"content")
        for source, target in zip([flat[-1], *flat], flat, strict=False):
            if source != target:
                await store.rename(source, target, change(), ANY)
        assert await names(store) == [flat[-1]]

    @claims("rename")
    async def test_a_repeated_rename_spares_what_came_after(self, store: Store) -> None:
        if not store.traits.idempotent:
            pytest.skip("the store does not claim Traits.idempotent")
        await write(store, b"old", b"content")
        once = change()
        first = await store.rename(b"old", b"new", once, ANY)
        assert await store.rename(b"old", b"new", once, ANY) == first
        await write(store, b"old", b"another")
        assert await store.rename(b"old", b"new", once, ANY) == first
        assert await names(store) == [b"new", b"old"]

    @claims("rename")
    async def test_rename_keeps_the_tree(self, store: Store) -> None:
        if not store.traits.tree:
            pytest.skip("the store does not claim Traits.tree")
        await write(store, b"f", b"content")
        await write(store, b"d/g", b"")
        with pytest.raises(IsDirectory):
            await store.rename(b"f", b"d", change(), ANY)
        with pytest.raises(NotDirectory):
            await store.rename(b"f", b"d/g/h", change(), ANY)
        with pytest.raises(NotDirectory):
            await store.rename(b"f", b"f/g", change(), ANY)
        assert await names(store) == [b"d/g", b"f"]

    @claims("rename")
    async def test_one_of_many_renames_wins(self, store: Store, connect: Connect) -> None:
        stores = [await connect() for _ in range(self.CLIENTS)]
        for number in range(self.ROUNDS):
            source = b"s%d" % number
            await write(stores[0], source, b"content")
            outcomes = await race(
                [store.rename(source, b"t%d-%d" % (number, n), change(), ANY) for n, store in enumerate(stores)]
            )
            assert len(won(outcomes)) == 1
            assert await names(stores[0], b"t%d-" % number) == [b"t%d-%d" % (number, won(outcomes)[0])]

    @claims("rename_tree")
    async def test_rename_tree(self, store: Store) -> None:
        large = pattern(self.large(store))
        for key in (b"d/", b"d/f", b"d/sub/g", b"d-", b"d0", b"other"):
            await write(store, key, b"" if key.endswith(b"/") else key)
        await write(store, b"d/large", large)
        assert await store.rename_tree(b"d/", b"deep/new/", change()) == (4, {})
        assert await names(store) == sorted(
            [b"d-", b"d0", b"other", b"deep/new/", b"deep/new/f", b"deep/new/sub/g", b"deep/new/large"]
        )
        assert await read(store, b"deep/new/sub/g") == b"d/sub/g"
        assert await read(store, b"deep/new/large") == large

    @claims("rename_tree")
    async def test_rename_tree_moves_versions(self, store: Store) -> None:
        before = await write(store, b"d/f", b"")
        await store.rename_tree(b"d/", b"e/", change())
        after = await store.head(b"e/f")
        assert after is not None
        assert after.version != before.version
        assert after.mtime_ns == before.mtime_ns

    @claims("rename_tree")
    async def test_rename_tree_tells_what_was_moved_as_it_was_known(self, store: Store) -> None:
        known: dict[bytes, str | None] = {b"any": None, b"no": None, b"gone": "x"}
        for name in (b"same", b"sub/same", b"changed", b"any", b"not asked"):
            stat = await write(store, b"d/" + name, b"1")
            known.setdefault(name, stat.version)
        del known[b"not asked"]
        await write(store, b"d/changed", b"2")
        once = change()
        moved = await store.rename_tree(b"d/", b"e/", once, known)
        stats = {name: await store.head(b"e/" + name) for name in (b"same", b"sub/same", b"any")}
        assert moved == (5, {name: stat and stat.version for name, stat in stats.items()})
        if store.traits.idempotent:
            await write(store, b"e/same", b"3")
            assert await store.rename_tree(b"d/", b"e/", once, known) == moved

    @claims("rename_tree")
    async def test_rename_tree_onto_an_empty_directory(self, store: Store) -> None:
        await write(store, b"d/f", b"content")
        await write(store, b"e/", b"")
        await store.rename_tree(b"d/", b"e/", change())
        assert [name for name in await names(store) if name != b"e/"] == [b"e/f"]

    @claims("rename_tree")
    async def test_rename_tree_onto_a_full_directory(self, store: Store) -> None:
        for key in (b"d/f", b"e/g"):
            await write(store, key, b"")
        with pytest.raises(NotEmpty):
            await store.rename_tree(b"d/", b"e/", change())
        assert await names(store) == [b"d/f", b"e/g"]

    @claims("rename_tree")
    async def test_rename_tree_of_nothing(self, store: Store) -> None:
        await write(store, b"d", b"a file of that name is no directory")
        await write(store, b"e/", b"")
        for target in (b"new/", b"e/"):
            with pytest.raises(KeyNotFound):
                await store.rename_tree(b"d/", target, change())
        assert await names(store) == [b"d", b"e/"]

    @claims("rename_tree")
    async def test_rename_tree_onto_a_file(self, store: Store) -> None:
        if not store.traits.tree:
            pytest.skip("the store does not claim Traits.tree")
        await write(store, b"d/f", b"")
        await write(store, b"file", b"")
        with pytest.raises(NotDirectory):
            await store.rename_tree(b"d/", b"file/", change())
        with pytest.raises(NotDirectory):
            await store.rename_tree(b"d/", b"file/below/", change())
        assert await names(store) == [b"d/f", b"file"]

    @claims("rename_tree")
    async def test_a_repeated_rename_tree_spares_what_came_after(self, store: Store) -> None:
        if not store.traits.idempotent:
            pytest.skip("the store does not claim Traits.idempotent")
        await write(store, b"d/f", b"")
        once = change()
        assert await store.rename_tree(b"d/", b"e/", once) == (1, {})
        await write(store, b"d/g", b"")
        assert await store.rename_tree(b"d/", b"e/", once) == (1, {})
        assert await names(store) == [b"d/g", b"e/f"]


class CopyCases(StoreFixtures):
    @claims("copy")
    async def test_copy(self, store: Store) -> None:
        for size in (0, 7, self.large(store)):
            source = await write(store, b"source", pattern(size))
            stat = await store.copy(b"source", b"target", change(), ANY)
            assert stat.size == size
            if store.traits.unique_versions:
                assert stat.version != source.version
            assert await read(store, b"target") == pattern(size)
            await write(store, b"source", b"changed")
            assert await read(store, b"target") == pattern(size)

    @claims("copy")
    async def test_copy_conditions(self, store: Store) -> None:
        source = await write(store, b"source", b"content")
        target = await write(store, b"target", b"target")
        with pytest.raises(Exists):
            await store.copy(b"source", b"target", change(ABSENT), ANY)
        with pytest.raises(Conflict):
            await store.copy(b"source", b"target", change(match(source.version)), ANY)
        with pytest.raises(Conflict):
            await store.copy(b"source", b"target", change(), match(target.version))
        assert await read(store, b"target") == b"target"
        await store.copy(b"source", b"target", change(match(target.version)), match(source.version))
        assert await read(store, b"target") == b"content"

    @claims("copy")
    async def test_copy_of_what_is_absent(self, store: Store) -> None:
        with pytest.raises(KeyNotFound):
            await store.copy(b"nothing", b"target", change(), ANY)
        assert await names(store) == []

    @claims("copy")
    async def test_copies_live_on_their_own(self, store: Store) -> None:
        data = pattern(self.large(store))
        await write(store, b"source", data)
        await store.copy(b"source", b"target", change(), ANY)
        await store.delete(b"source", change())
        assert await read(store, b"target") == data


class AttributeCases(StoreFixtures):
    @claims("attributes")
    async def test_attributes(self, store: Store) -> None:
        put = await write(store, b"f", b"content")
        assert put.attrs == {}
        stat = await store.set_attrs(b"f", attributes(one="1", two="2"), change(match(put.version)))
        assert stat.attrs == attributes(one="1", two="2")
        assert (stat.size, stat.mtime_ns) == (7, put.mtime_ns)
        assert stat.version != put.version
        head = await store.head(b"f")
        reading = await store.get(b"f")
        assert head is not None
        assert reading is not None
        assert head == stat == reading.stat
        assert await content(reading) == b"content"

    @claims("attributes")
    async def test_attributes_are_replaced_as_a_whole(self, store: Store) -> None:
        await write(store, b"f", b"content")
        await store.set_attrs(b"f", attributes(one="1"), change())
        await store.set_attrs(b"f", attributes(two="\u00e4\n\0"), change())
        assert (await store.set_attrs(b"f", attributes(two="\u00e4\n\0"), change())).attrs == attributes(
            two="\u00e4\n\0"
        )
        stat = await store.set_attrs(b"f", {}, change())
        assert stat.attrs == {}

    @claims("attributes")
    async def test_attributes_are_conditional(self, store: Store) -> None:
        first = await write(store, b"f", b"content")
        second = await store.set_attrs(b"f", attributes(one="1"), change())
        with pytest.raises(Conflict):
            await store.set_attrs(b"f", {}, change(match(first.version)))
        with pytest.raises(Conflict):
            await write(store, b"f", b"x", match(first.version))
        await write(store, b"f", b"x", match(second.version))

    @claims("attributes")
    async def test_attributes_of_what_is_absent(self, store: Store) -> None:
        with pytest.raises(KeyNotFound):
            await store.set_attrs(b"nothing", {}, change())

    @claims("attributes")
    async def test_attributes_come_with_a_put_and_go_with_one(self, store: Store) -> None:
        stat = await store.put(b"f", Body(b"content"), change(attrs=attributes(one="1")))
        assert stat.attrs == attributes(one="1")
        assert (await store.head(b"f") or stat).attrs == attributes(one="1")
        assert (await write(store, b"f", b"content")).attrs == {}

    @claims("attributes")
    async def test_attributes_of_large_content(self, store: Store) -> None:
        data = pattern(self.large(store))
        put = await write(store, b"f", data)
        stat = await store.set_attrs(b"f", attributes(one="1"), change(match(put.version)))
        assert stat.size == len(data)
        assert await read(store, b"f") == data

    @claims("attributes")
    async def test_attributes_survive_append_rename_and_copy(self, store: Store) -> None:
        wanted = attributes(one="1")
        await write(store, b"f", b"content")
        await store.set_attrs(b"f", wanted, change())
        if store.traits.append:
            assert (await store.append(b"f", Body(b"+"), change())).stat.attrs == wanted
        if store.traits.copy:
            assert (await store.copy(b"f", b"copy", change(), ANY)).attrs == wanted
        if store.traits.rename:
            await store.rename(b"f", b"renamed", change(), ANY)
            head = await store.head(b"renamed")
            assert head is not None
            assert head.attrs == wanted
