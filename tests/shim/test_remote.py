"""The client against the real state proxy: every operation, both modes, and a proxy that is killed."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asya_contract.env import ShimEnv
from asya_shim.errors import StateConflictError
from asya_shim.remote import Remote
from support.state_proxy import Proxy


@pytest.fixture(params=["lww", "cas"])
def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path, request.param, "sqlite")
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def remote(proxy: Proxy) -> Iterator[Remote]:
    remote = Remote(proxy.mount, ShimEnv.from_env(proxy.environ("20s")))
    yield remote
    remote.close()


def test_every_operation(proxy: Proxy, remote: Remote) -> None:
    assert remote.stat(b"d/a") is None
    assert remote.read(b"d/a") is None
    assert (remote.consistency, remote.backend) == (proxy.consistency, "sqlite")
    first = remote.write(b"d/a", b"hello", if_absent=True)
    with pytest.raises(FileExistsError):
        remote.write(b"d/a", b"again", if_absent=True)
    info = remote.stat(b"d/a")
    assert info is not None
    assert (info.is_file, info.size, info.version) == (True, 5, first)
    content = remote.read(b"d/a")
    assert content is not None
    assert (content.data, content.version, content.mtime_ns) == (b"hello", first, info.mtime_ns)
    piece = remote.read(b"d/a", 1, 3, version=first)
    assert piece is not None
    assert (piece.data, piece.size) == (b"el", 5)
    second = remote.write(b"d/a", b"world", if_version=first)
    for stale in (
        lambda: remote.write(b"d/a", b"x", if_version=first),
        lambda: remote.read(b"d/a", version=first),
        lambda: remote.delete(b"d/a", if_version=first),
    ):
        with pytest.raises(StateConflictError):
            stale()
    third, base = remote.append(b"d/a", b"!")
    assert base == second
    assert remote.append(b"log", b"line")[1] is None
    fourth = remote.rename(b"d/a", b"d/b", if_absent=True, source_version=third)
    moved = remote.read(b"d/b")
    assert moved is not None
    assert (moved.data, moved.version) == (b"world!", fourth)
    directory = remote.stat(b"d")
    assert directory is not None
    assert not directory.is_file
    with pytest.raises(IsADirectoryError):
        remote.read(b"d")
    with pytest.raises(NotADirectoryError):
        remote.stat(b"log/below")
    remote.delete(b"d/b", if_version=fourth)
    with pytest.raises(FileNotFoundError):
        remote.remove_directory(b"gone")
    assert remote.read(b"d/b") is None


def test_directories_and_listings(remote: Remote) -> None:
    remote.make_directory(b"empty")
    with pytest.raises(FileExistsError):
        remote.make_directory(b"empty")
    names = [b"d/%03d" % n for n in range(30)] + [b"d/sub/x", b"d/\xff %", b"e"]
    for name in names:
        remote.write(name, b"x", if_absent=True)
    assert [(n.key, n.is_file) for n in remote.list(b"")] == [(b"d", False), (b"e", True), (b"empty", False)]
    listed = list(remote.list(b"d/"))
    assert [n.key for n in listed] == sorted([*names[:30], b"d/sub", b"d/\xff %"])
    info = remote.stat(listed[0].key)
    assert info is not None
    assert (listed[0].version, listed[0].size, listed[0].mtime_ns) == (info.version, 1, info.mtime_ns)
    assert {n.key for n in remote.list(b"d/", recursive=True) if n.is_file} == set(names[:-1])
    assert [n.key for n in remote.list(b"d/", limit=2)] == [b"d/000", b"d/001"]
    assert [n.key for n in remote.list(b"d/", limit=2, after=b"d/001")] == [b"d/002", b"d/003"]
    with pytest.raises(OSError, match="empty"):
        remote.remove_directory(b"d")
    remote.remove_directory(b"empty")
    assert remote.stat(b"empty") is None


def test_listing_goes_on_over_pages(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asya_shim.remote.PAGE", 3)
    names = sorted([b"p/%d" % n for n in range(8)] + [b"p/3.d/x", b"p/5.d/x"])
    for name in names:
        remote.write(name, b"", if_absent=True)
    assert [n.key for n in remote.list(b"p/", recursive=True) if n.is_file] == names
    level = sorted([b"p/%d" % n for n in range(8)] + [b"p/3.d", b"p/5.d"])
    assert [n.key for n in remote.list(b"p/")] == level


def test_attributes(remote: Remote) -> None:
    version = remote.write(b"f", b"x", if_absent=True)
    assert remote.list_attrs(b"f") == []
    assert remote.get_attr(b"f", "user.asya.a b") is None
    moved = remote.set_attr(b"f", "user.asya.a b", "é", if_version=version)
    assert moved != version
    assert remote.get_attr(b"f", "user.asya.a b") == "é"
    assert remote.list_attrs(b"f") == ["user.asya.a b"]
    remote.remove_attr(b"f", "user.asya.a b", if_version=moved)
    assert remote.list_attrs(b"f") == []
    with pytest.raises(FileNotFoundError):
        remote.get_attr(b"gone", "user.asya.x")


def test_streams(remote: Remote) -> None:
    data = os.urandom(3_000_000)
    upload = remote.upload(b"big", if_absent=True)
    for start in range(0, len(data), 700_000):
        upload.send(data[start : start + 700_000])
    assert remote.stat(b"big") is None
    version = upload.finish()
    content = remote.read(b"big")
    assert content is not None
    assert (content.data == data, content.version) == (True, version)
    dropped = remote.upload(b"dropped", if_absent=True)
    dropped.send(b"half")
    dropped.abort()
    assert remote.write(b"big", data, if_version=version) != version
    assert remote.stat(b"dropped") is None


def test_killed_proxy_loses_and_doubles_nothing(proxy: Proxy, remote: Remote) -> None:
    """Lines appended by four threads while the proxy is killed again and again."""
    failures: list[BaseException] = []
    progress = threading.Semaphore(0)

    def append(who: int) -> None:
        try:
            for n in range(40):
                remote.append(b"log", b"%d:%d\n" % (who, n))
                progress.release()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=append, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for _ in range(40):
            assert progress.acquire(timeout=30)
        proxy.stop(signal.SIGKILL)
        proxy.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    content = remote.read(b"log")
    assert content is not None
    lines = content.data.decode().split()
    assert sorted(lines) == sorted(f"{who}:{n}" for who in range(4) for n in range(40))
    for who in range(4):
        assert [line for line in lines if line.startswith(f"{who}:")] == [f"{who}:{n}" for n in range(40)]
