"""kill -9 of the proxy at every point of a write: no file lost or torn, no made-up conflict, nothing done twice.

The client is the shim's, which repeats a call with the same write id until it is answered.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from asya_shim.errors import StateUnavailableError
from asya_shim.remote import Remote
from support.campaign import IDS_OVER_DELETES, Backend, Nursery, Proxy, everywhere, on, say

T = TypeVar("T")


SHORT = on("sqlite cas", "sqlite lww", "redis cas", "nats cas", "s3 cas", "gcs cas")
LONG = on(*everywhere())


@pytest.fixture
def proxy(nursery: Nursery, backend: Backend, mode: str, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(nursery, tmp_path / "proxy", backend, consistency=mode) as proxy:
        yield proxy


def dies_after_commit(proxy: Proxy, change: Callable[[], T], kind: str = "") -> T:
    """Make a change whose answer dies with the proxy; what the client got in the end."""
    before = proxy.pid
    proxy.arm(kind)
    outcome = change()
    assert not proxy.armed, "the proxy was to die in this change"
    proxy.await_next(before)
    return outcome


def content(remote: Remote, key: bytes) -> bytes | None:
    found = remote.read(key)
    return None if found is None else bytes(found.data)


def delete(proxy: Proxy, remote: Remote, version: str | None) -> None:
    """Where no write id outlives a delete, another proxy can only say that it does not know."""
    if proxy.backend.name in IDS_OVER_DELETES:
        remote.delete(b"file", if_version=version)
        return
    with pytest.raises(StateUnavailableError, match="perhaps by this call"):
        remote.delete(b"file", if_version=version)


def kill_between_commit_and_answer(proxy: Proxy, rounds: int) -> None:
    remote = proxy.remote()
    lines: list[bytes] = []
    version: str | None = None
    for number in range(rounds):
        data = b"%d " % number * (1 + 40_000 * (number % 7))
        condition = {"if_version": version} if version is not None else {"if_absent": True}
        match number % 5:
            case 0 | 1:  # a create at first, then replacements, each over the version that the dead proxy committed
                version = dies_after_commit(proxy, lambda: remote.write(b"file", data, **condition))  # noqa: B023
                assert content(remote, b"file") == data
            case 2:
                lines.append(b"line %d\n" % number)
                dies_after_commit(proxy, lambda: remote.append(b"log", lines[-1]))
                assert content(remote, b"log") == b"".join(lines)
            case 3:  # delete and create anew
                dies_after_commit(proxy, lambda: delete(proxy, remote, version))  # noqa: B023
                assert content(remote, b"file") is None
                version = remote.write(b"file", b"anew", if_absent=True)
            case 4:
                fresh = remote.write(b"fresh", data, if_absent=True)
                version = dies_after_commit(
                    proxy,
                    lambda: remote.rename(b"fresh", b"file", if_version=version, source_version=fresh),  # noqa: B023
                )
                assert content(remote, b"file") == data
                assert content(remote, b"fresh") is None
    assert content(remote, b"log") == b"".join(lines)
    assert [entry.key for entry in remote.list(b"")] == [b"file", b"log"]
    say(f"{proxy.backend.name} {proxy.consistency}: killed {rounds} times between commit and answer, all exact")


@SHORT
def test_killed_between_commit_and_answer(proxy: Proxy) -> None:
    kill_between_commit_and_answer(proxy, 20)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@LONG
def test_killed_between_commit_and_answer_for_long(proxy: Proxy) -> None:
    kill_between_commit_and_answer(proxy, 200)


@pytest.mark.parametrize("step", ["first", "second"])
@on("nats cas", "nats lww", "s3 cas", "gcs cas")
def test_killed_within_a_rename_of_two_steps(proxy: Proxy, step: str) -> None:
    """Where the store cannot rename in one step, the proxy may die after either."""
    remote = proxy.remote()
    first = "put" if proxy.backend.name == "nats" else "copy"
    kind = first if step == "first" else "delete"
    fresh = remote.write(b"fresh", b"new", if_absent=True)
    old = remote.write(b"file", b"old", if_absent=True)
    renamed = dies_after_commit(
        proxy, lambda: remote.rename(b"fresh", b"file", if_version=old, source_version=fresh), kind
    )
    assert content(remote, b"file") == b"new"
    assert content(remote, b"fresh") is None
    remote.write(b"file", b"newer", if_version=renamed)


@SHORT
def test_killed_between_two_messages(proxy: Proxy) -> None:
    remote = proxy.remote()
    version: str | None = None
    for number in range(5):
        condition = {"if_version": version} if version is not None else {"if_absent": True}
        version = remote.write(b"history.json", b"[%d]" % number, **condition)
        proxy.kill()
        found = remote.read(b"history.json")
        assert found is not None
        assert (found.data, found.version) == (b"[%d]" % number, version)
    say(f"{proxy.backend.name} {proxy.consistency}: killed 5 times between messages, versions unchanged")


def kill_during_writes(proxy: Proxy, rounds: int, largest: int) -> None:
    """Kill at random moments; files hold their own checksum, so that a torn one shows itself."""
    dice = random.Random(7)
    remote = proxy.remote(timeout=60.0)
    version = remote.write(b"file", _sealed(b"first"), if_absent=True)
    landed = gone = 0
    for number in range(rounds):
        size = int(2 ** dice.uniform(0, largest.bit_length() - 1))
        data = _sealed(dice.randbytes(1) * size)
        killer = threading.Timer(dice.uniform(0, 0.02 + size / 2e8), proxy.kill)
        killer.start()
        if number % 2:
            version = remote.write(b"file", data, if_version=version)
            expected = [data]
        else:
            before = content(remote, b"file")
            assert before is not None
            try:
                upload = remote.upload(b"file", if_version=version)
                for start in range(0, len(data), 1 << 18):
                    upload.send(data[start : start + (1 << 18)])
                version = upload.finish()
                expected = [data]
                landed += 1
            except StateUnavailableError:
                gone += 1
                expected = [before, data]
        killer.join()
        found = remote.read(b"file")
        assert found is not None
        assert _intact(found.data), f"torn at {len(found.data)} bytes"
        assert found.data in expected
        version = found.version
    say(
        f"{proxy.backend.name} {proxy.consistency}: {rounds} kills in writes of up to {largest >> 20} MiB, none torn; "
        f"streams: {landed} done, {gone} cut"
    )


def _sealed(data: bytes) -> bytes:
    return hashlib.sha256(data).digest() + data


def _intact(data: bytes) -> bool:
    return hashlib.sha256(data[32:]).digest() == data[:32]


@SHORT
def test_killed_in_the_middle_of_writes(proxy: Proxy) -> None:
    kill_during_writes(proxy, 10, 8 << 20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@LONG
def test_killed_in_the_middle_of_writes_for_long(proxy: Proxy) -> None:
    kill_during_writes(proxy, 100, 64 << 20)
