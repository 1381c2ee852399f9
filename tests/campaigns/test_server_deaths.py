"""kill -9 of the server and its restart: nothing acknowledged is lost, and the proxies need no restart."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support.campaign import DURABLE, Backend, Nursery, Proxy, Work, Workers, everywhere, on, proxies, say


def outlive(nursery: Nursery, backend: Backend, tmp_path: Path, mode: str, kills: int, files: int) -> None:
    server = backend.server
    assert server is not None
    with proxies(2, nursery, tmp_path, backend, consistency=mode) as running:
        pids = [proxy.pid for proxy in running]
        works = [Work(running[n % 2], "files", f"w{n}", {"count": files}) for n in range(4)]
        workers = Workers(works).go()
        pauses = []
        for _ in range(kills):
            time.sleep(0.3)  # some work between two deaths; nothing is asserted about how much
            server.kill()
            server.start()
            ready = time.monotonic()
            running[0].remote().stat(b"ready")
            pauses.append(time.monotonic() - ready)
        records = [record for found in workers.results() for record in found]
        assert [proxy.pid for proxy in running] == pids, "no proxy was restarted"
        remote = running[1].remote()
        for record in records:
            if record["outcome"] in ("done", "exists"):
                content = remote.read(record["id"].encode())
                assert content is not None, f"acknowledged and lost: {record}"
                assert content.data.startswith(record["id"].encode() + b" ")
        names = {entry.key for entry in remote.list(b"", recursive=True)}
    assert names == {record["id"].encode() for record in records}
    figures = f"{kills} deaths, {len(names)} files, none lost; back {max(pauses):.2f} s after the server"
    say(f"{backend.name} {mode}: {figures}")


@on("redis cas", "redis lww", "nats cas", "nats lww", "s3 cas")
def test_server_deaths(nursery: Nursery, backend: Backend, mode: str, tmp_path: Path) -> None:
    outlive(nursery, backend, tmp_path, mode, 2, 150)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@on(*everywhere(names=DURABLE))
def test_server_deaths_for_long(nursery: Nursery, backend: Backend, mode: str, tmp_path: Path) -> None:
    outlive(nursery, backend, tmp_path, mode, 20, 5000)


@on("gcs cas", "gcs lww")
def test_a_server_comes_back_empty(nursery: Nursery, backend: Backend, mode: str, tmp_path: Path) -> None:
    """The GCS test server keeps nothing; the proxy, which knew files and versions there, goes on all the same."""
    server = backend.server
    assert server is not None
    with Proxy(nursery, tmp_path / "proxy", backend, consistency=mode) as proxy:
        pid, remote = proxy.pid, proxy.remote()
        for death in range(3):
            key = b"file%d" % death
            remote.write(key, b"kept by nobody", if_absent=True)
            server.kill()
            server.start()
            assert remote.read(key) is None
            remote.write(key, b"written anew", if_absent=True)
            found = remote.read(key)
            assert found is not None
            assert found.data == b"written anew"
        assert proxy.pid == pid, "the proxy was not restarted"
