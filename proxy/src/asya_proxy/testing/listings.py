"""Listings: byte order, folding at a delimiter, pages, markers of empty directories."""

from __future__ import annotations

import asyncio

import pytest

from asya_proxy.stores.base import Page, Store
from asya_proxy.testing.fixtures import Connect, StoreFixtures
from asya_proxy.testing.samples import ODD_NAMES, change, names, write

TREE = (
    b"A",
    b"a",
    b"a-b",
    b"a.d/x",
    b"b/1",
    b"b/2/deep/er",
    b"b/3",
    b"b-",
    b"b0",
    b"c",
    b"dir/",
    b"dir/f",
    b"empty/",
    b"z/z/z",
)
LEVEL_ENTRIES = [b"A", b"a", b"a-b", b"b-", b"b0", b"c"]
LEVEL_PREFIXES = [b"a.d/", b"b/", b"dir/", b"empty/", b"z/"]


async def _fill(store: Store) -> None:
    await asyncio.gather(*(write(store, name, b"") for name in TREE))


async def _walk(store: Store, prefix: bytes, *, delimiter: bool, limit: int) -> list[Page]:
    pages = []
    after = b""
    while True:
        page = await store.list(prefix, delimiter=delimiter, after=after, limit=limit)
        pages.append(page)
        assert len(page.entries) + len(page.prefixes) <= limit
        if not page.more:
            return pages
        after = max([entry.key for entry in page.entries] + list(page.prefixes))


class ListingCases(StoreFixtures):
    async def test_nothing_there(self, store: Store) -> None:
        page = await store.list(b"")
        assert (list(page.entries), list(page.prefixes), page.more) == ([], [], False)

    async def test_all_keys_in_byte_order(self, store: Store) -> None:
        await _fill(store)
        assert await names(store) == sorted(TREE)

    async def test_a_prefix_is_letters_not_a_directory(self, store: Store) -> None:
        await _fill(store)
        assert await names(store, b"b") == [b"b-", b"b/1", b"b/2/deep/er", b"b/3", b"b0"]
        assert await names(store, b"b/") == [b"b/1", b"b/2/deep/er", b"b/3"]
        assert await names(store, b"nothing") == []

    async def test_one_level(self, store: Store) -> None:
        await _fill(store)
        page = await store.list(b"", delimiter=True)
        assert [entry.key for entry in page.entries] == LEVEL_ENTRIES
        assert list(page.prefixes) == LEVEL_PREFIXES
        assert not page.more
        page = await store.list(b"b/", delimiter=True)
        assert [entry.key for entry in page.entries] == [b"b/1", b"b/3"]
        assert list(page.prefixes) == [b"b/2/"]

    async def test_a_marker_is_an_entry_of_its_own_level(self, store: Store) -> None:
        await _fill(store)
        page = await store.list(b"dir/", delimiter=True)
        assert [entry.key for entry in page.entries] == [b"dir/", b"dir/f"]
        assert list(page.prefixes) == []
        page = await store.list(b"empty/", delimiter=True)
        assert [(entry.key, entry.size) for entry in page.entries] == [(b"empty/", 0)]

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
    async def test_pages(self, store: Store, limit: int) -> None:
        await _fill(store)
        pages = await _walk(store, b"", delimiter=False, limit=limit)
        assert [entry.key for page in pages for entry in page.entries] == sorted(TREE)

    @pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
    async def test_pages_of_one_level(self, store: Store, limit: int) -> None:
        await _fill(store)
        pages = await _walk(store, b"", delimiter=True, limit=limit)
        assert [entry.key for page in pages for entry in page.entries] == LEVEL_ENTRIES
        assert [prefix for page in pages for prefix in page.prefixes] == LEVEL_PREFIXES
        flat = [sorted([entry.key for entry in page.entries] + list(page.prefixes)) for page in pages]
        assert [name for names_ in flat for name in names_] == sorted(LEVEL_ENTRIES + LEVEL_PREFIXES)

    async def test_an_exact_page_says_no_more(self, store: Store) -> None:
        await _fill(store)
        page = await store.list(b"", limit=len(TREE))
        assert len(page.entries) == len(TREE)
        assert not page.more

    async def test_after_is_exclusive_and_need_not_exist(self, store: Store) -> None:
        await _fill(store)
        page = await store.list(b"", after=b"b/1")
        assert page.entries[0].key == b"b/2/deep/er"
        page = await store.list(b"", after=b"b/11")
        assert page.entries[0].key == b"b/2/deep/er"
        page = await store.list(b"b/", after=b"a")
        assert page.entries[0].key == b"b/1"
        page = await store.list(b"", after=b"zz")
        assert list(page.entries) == []

    async def test_a_folded_name_as_after(self, store: Store) -> None:
        await _fill(store)
        page = await store.list(b"", delimiter=True, after=b"b/")
        assert [entry.key for entry in page.entries] == [b"b0", b"c"]
        assert list(page.prefixes) == [b"dir/", b"empty/", b"z/"]

    @pytest.mark.parametrize("delimiter", [False, True])
    async def test_odd_names_in_pages(self, store: Store, delimiter: bool) -> None:
        """Each exactly once, whatever the backend's own order of their encoded forms."""
        flat = [name for name in ODD_NAMES if b"/" not in name]
        for name in flat:
            await write(store, name, b"")
            await write(store, b"odd/" + name, b"")
        pages = await _walk(store, b"odd/", delimiter=delimiter, limit=4)
        found = [entry.key for page in pages for entry in page.entries]
        assert sorted(found) == sorted(b"odd/" + name for name in flat)

    async def test_more_keys_than_one_backend_page(self, store: Store) -> None:
        keys = [b"n/%04d" % number for number in range(1100)]
        for start in range(0, len(keys), 50):
            await asyncio.gather(*(write(store, key, b"") for key in keys[start : start + 50]))
        assert await names(store, b"n/") == keys
        page = await store.list(b"", delimiter=True)
        assert (list(page.entries), list(page.prefixes), page.more) == ([], [b"n/"], False)

    async def test_what_stays_is_listed_once_while_others_come_and_go(self, connect: Connect) -> None:
        store, other = await connect(), await connect()
        stay = [b"churn/%02d" % number for number in range(0, 40, 2)]
        await asyncio.gather(*(write(store, key, b"") for key in stay))
        done = asyncio.Event()

        async def churn() -> None:
            for number in range(1, 40, 2):
                await write(other, b"churn/%02d" % number, b"")
            for number in range(1, 40, 2):
                await other.delete(b"churn/%02d" % number, change())
            done.set()

        async def look() -> None:
            while not done.is_set():
                await asyncio.sleep(0)
                found = await names(store, b"churn/", limit=7)
                assert [name for name in found if name in stay] == stay

        await asyncio.gather(churn(), look())
