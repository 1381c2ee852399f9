"""Servers that speak S3 and break its promises: refused by the name of the promise, at start or by `check --races`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asya_proxy.check import check
from asya_proxy.races import COMPLETION_RACE
from asya_proxy.settings import Settings
from support.server_s3 import BucketServer, GoFakeS3, MinioServer, S3Proxy
from support.serving import loaded, refused, serving

REFUSAL = "CompleteMultipartUpload ignores If-None-Match"


@pytest.fixture(scope="module")
def gofakes3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoFakeS3]:
    with GoFakeS3(tmp_path_factory.mktemp("gofakes3")) as running:
        yield running


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    with MinioServer(tmp_path_factory.mktemp("minio")) as running:
        yield running


def of(server: BucketServer, consistency: str, **more: str) -> Settings:
    return loaded("s3", server.environ, STATE_CONSISTENCY=consistency, **more)


async def test_gofakes3_is_refused_at_start(
    gofakes3: GoFakeS3, tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    monkeypatch.setattr("asya_proxy.server.TERMINATION_LOG", str(message))
    async with refused(of(gofakes3, "cas")) as reason:
        assert REFUSAL in reason
    assert REFUSAL in message.read_text()
    (line,) = [record for record in caplog.records if record.message == "refused to serve"]
    assert REFUSAL in vars(line)["cause"]


async def test_gofakes3_in_lww_refuses_what_needs_the_promise(gofakes3: GoFakeS3) -> None:
    async with serving(of(gofakes3, "lww")) as client:
        assert (await client.put("f", b"1")).status == 204
        assert (await client.get("f")).body == b"1"
        for reply in (await client.put("g", b"", if_none_match="*"), await client.append("f", b"2")):
            assert (reply.status, reply.error) == (501, "unsupported")


async def test_gofakes3_is_refused_by_hand(gofakes3: GoFakeS3, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(of(gofakes3, "cas"), races=False) == 1
    assert f"broken promise: {REFUSAL}\n" in capsys.readouterr().out


@pytest.mark.soak
async def test_s3proxy_is_refused_by_its_races(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It passes every probe, and so starts: only the races tell."""
    with S3Proxy(tmp_path) as server:
        found = of(server, "cas")
        assert await check(found, races=False) == 0
        assert "broken promise" not in capsys.readouterr().out
        assert await check(found, races=True) == 1
    said = capsys.readouterr().out
    print(said)
    assert f"broken promise: CompleteMultipartUpload {COMPLETION_RACE}\n" in said


@pytest.mark.soak
class TestMinio:
    """It does not compare where it deletes: that alone is refused, in CAS."""

    async def test_its_races(self, minio: MinioServer, capsys: pytest.CaptureFixture[str]) -> None:
        assert await check(of(minio, "cas"), races=True) == 0
        said = capsys.readouterr().out
        print(said)
        assert said.count("broken promise") == said.count("broken promise: DeleteObject ignores If-Match\n") == 1

    @pytest.mark.parametrize("weak", [False, True])
    async def test_cas_but_for_deletes(self, minio: MinioServer, weak: bool) -> None:
        found = of(minio, "cas", STATE_WEAK_DELETE=str(weak).lower())
        name = f"f-{weak}"
        async with serving(found) as client:
            made = await client.put(name, b"1", if_none_match="*")
            assert made.status == 204
            assert (await client.put(name, b"2", if_none_match="*")).error == "exists"
            changed = await client.put(name, b"2", if_match=made.etag)
            assert changed.status == 204
            assert (await client.put(name, b"3", if_match=made.etag)).error == "conflict"
            assert (await client.append(name, b"3")).status == 204
            here = await client.get(name)
            assert here.body == b"23"
            gone = await client.delete(name, if_match=here.etag)
            assert gone.status == (204 if weak else 501)

    async def test_lww(self, minio: MinioServer) -> None:
        async with serving(of(minio, "lww")) as client:
            assert (await client.put("g", b"1", if_none_match="*")).status == 204
            assert (await client.append("g", b"2")).status == 204
            assert (await client.get("g")).body == b"12"
            assert (await client.delete("g")).status == 204
