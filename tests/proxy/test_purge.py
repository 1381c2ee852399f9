"""`asya-state-proxy purge`: an actor's state goes, its neighbours' stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from asya_proxy.deadlines import Deadlines
from asya_proxy.mount import open_store
from asya_proxy.purge import PAGE, purge
from asya_proxy.settings import Settings, load
from asya_proxy.stores.base import Body, Change


def settings(directory: Path, prefix: str, **more: str) -> Settings:
    return load(
        {
            "STATE_BACKEND": "sqlite",
            "STATE_BUCKET": "b",
            "STATE_PREFIX": prefix,
            "STATE_SOCKET": str(directory / "s.sock"),
            "SQLITE_DIR": str(directory),
            **more,
        }
    )


async def names(of: Settings) -> list[bytes]:
    store = open_store(of.mounts[0], Deadlines())
    await store.connect()
    found = [entry.key for entry in (await store.list(b"", limit=10_000)).entries]
    await store.close()
    return found


async def fill(of: Settings, keys: list[bytes]) -> None:
    store = open_store(of.mounts[0], Deadlines())
    await store.connect()
    for number, key in enumerate(keys):
        await store.put(key, Body(b"" if key.endswith(b"/") else b"x"), Change(f"{number:032d}"))
    await store.close()


async def test_everything_below_the_prefix_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, neighbour = settings(tmp_path, "default/a/"), settings(tmp_path, "default/ab/")
    many = [b"d/%04d" % number for number in range(PAGE + 20)]
    await fill(mine, [b"empty/", b"log", b".asya/promises", *many])
    await fill(neighbour, [b"log"])
    assert await purge(mine) == 0
    assert await names(mine) == []
    assert await names(neighbour) == [b"log"]
    assert f"{PAGE + 23} files deleted" in capsys.readouterr().out
    assert await purge(mine) == 0


async def test_a_read_only_mount_is_left_alone(tmp_path: Path) -> None:
    await fill(settings(tmp_path, "default/a/"), [b"log"])
    assert await purge(settings(tmp_path, "default/a/", STATE_READ_ONLY="true")) == 0
    assert await names(settings(tmp_path, "default/a/")) == [b"log"]


async def test_a_whole_bucket_is_never_purged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await fill(settings(tmp_path, "default/a/"), [b"log"])
    assert await purge(settings(tmp_path, "")) == 1
    assert "STATE_PREFIX is empty" in capsys.readouterr().out
    assert await names(settings(tmp_path, "default/a/")) == [b"log"]
