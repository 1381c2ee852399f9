"""Files larger than the proxy's memory: whole there and back, cut half way, many at once, in the 256 MiB of a pod."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.campaign import NAMES, Backend, on, say
from support.campaign_large import MIB, LargeProxy, Made, begin_get, cut_put, put

LIMIT = 256 * MIB
"""The proxy's memory limit in a pod."""
PEAK = 128
"""MiB that one transfer at a time may take, all of the process counted."""

PATIENCE = {"STATE_ATTEMPT_TIMEOUT": "60s"}
"""Test servers halt for seconds at these sizes: that of GCS copies all of an upload where it ends."""


@pytest.fixture(autouse=True)
def tidy(tmp_path: Path) -> Iterator[None]:
    """Gigabytes are not kept for later runs."""
    yield
    shutil.rmtree(tmp_path)


@pytest.fixture
def proxy(backend: Backend, mode: str, tmp_path: Path) -> Iterator[LargeProxy]:
    with LargeProxy(tmp_path, backend, mode, LIMIT, PATIENCE) as proxy:
        yield proxy


def there_and_back(proxy: LargeProxy, size: int) -> None:
    began = time.monotonic()
    idle = proxy.peak
    made = Made(size)
    first = put(proxy, "file", Made(size))
    version = put(proxy, "file", made, first, chunked=True)
    up = proxy.peak
    with begin_get(proxy, "file") as answer:
        put(proxy, "other", Made(size // 4))  # what is not read waits at the proxy's door, not in its memory
        made.check(answer)
        assert answer.headers["ETag"] == version
    for chunked in (False, True):
        cut_put(proxy, "file", Made(size), version, chunked=chunked)
    with begin_get(proxy, "file") as answer:
        assert answer.headers["ETag"] == version
        made.check(answer)
    say(
        f"{proxy.backend.name} {proxy.consistency}: {size} MiB twice up, twice down, twice cut in "
        f"{time.monotonic() - began:.0f} s: peak {proxy.peak} MiB ({idle} idle, {up} after the uploads), "
        f"{'held to' if proxy.bounded else 'not held to'} {LIMIT // MIB} MiB"
    )
    assert proxy.peak < PEAK


@on(*(f"{name} cas" for name in NAMES))
def test_large_files(proxy: LargeProxy) -> None:
    there_and_back(proxy, 96)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@on(*(f"{name} cas" for name in NAMES))
def test_large_files_for_long(proxy: LargeProxy) -> None:
    there_and_back(proxy, 1024)


def many_at_once(proxy: LargeProxy, files: int, size: int) -> None:
    """Uploads, then downloads; what is too much for the memory waits."""
    contents = [Made(size) for _ in range(files)]

    def up(number: int) -> str:
        return put(proxy, f"file{number}", contents[number], chunked=bool(number % 2))

    def down(number: int) -> str:
        with begin_get(proxy, f"file{number}") as answer:
            contents[number].check(answer)
            return str(answer.headers["ETag"])

    with ThreadPoolExecutor(files) as pool:
        written = list(pool.map(up, range(files)))
        uploads = proxy.peak
        assert list(pool.map(down, range(files))) == written
    say(f"{proxy.backend.name}: {files} files of {size} MiB at once: peak {uploads} MiB up, {proxy.peak} in all")
    assert proxy.peak < LIMIT // MIB


@on(*(f"{name} cas" for name in NAMES))
def test_many_large_files_at_once(proxy: LargeProxy) -> None:
    many_at_once(proxy, 8, 20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@on(*(f"{name} lww" for name in NAMES))
def test_many_large_files_at_once_for_long(proxy: LargeProxy) -> None:
    many_at_once(proxy, 8, 128)
