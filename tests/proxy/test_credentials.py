"""Credentials from a mounted Secret, read at connection and again when they change."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from asya_proxy import credentials, mount
from asya_proxy.bodies import Budget
from asya_proxy.deadlines import Deadlines
from asya_proxy.errors import PermissionDenied
from asya_proxy.health import Health
from asya_proxy.metrics import Metrics
from asya_proxy.mount import Mount
from asya_proxy.routes import InFlight
from asya_proxy.settings import load
from asya_proxy.stores.base import Body, Change


def test_files_are_variables(tmp_path: Path) -> None:
    (tmp_path / "REDIS_URL").write_text("redis://:secret@host/0\n")
    (tmp_path / "NATS_CREDS_FILE").write_text("-----BEGIN NATS USER JWT-----")
    (tmp_path / "..data").mkdir()
    (tmp_path / "..2026").write_text("not a variable")
    assert credentials.read(str(tmp_path)) == {
        "REDIS_URL": "redis://:secret@host/0",
        "NATS_CREDS_FILE": str(tmp_path / "NATS_CREDS_FILE"),
    }


def test_an_optional_secret_that_is_not_there(tmp_path: Path) -> None:
    assert credentials.read(str(tmp_path / "none")) == {}
    assert credentials.fingerprint(str(tmp_path / "none")) == ()


def test_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_bytes(b"\xff\xfe")
    with pytest.raises(PermissionDenied, match=str(tmp_path)):
        credentials.read(str(tmp_path))


def test_files_win_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("of the secret")
    environ = {"STATE_BACKEND": "s3", "STATE_BUCKET": "b", "STATE_CREDENTIALS_DIR": str(tmp_path)}
    (only,) = load({**environ, "AWS_ACCESS_KEY_ID": "of the pod"}).mounts
    assert only.store_config().environ["AWS_ACCESS_KEY_ID"] == "of the secret"


async def test_changed_files_give_a_new_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "CREDENTIALS_LOOK", 0.01)
    secret = tmp_path / "secret"
    for name in ("old", "new", "secret"):
        (tmp_path / name).mkdir()
    (secret / "SQLITE_DIR").write_text(str(tmp_path / "old"))
    environ = {
        "STATE_BACKEND": "sqlite",
        "STATE_BUCKET": "b",
        "STATE_PREFIX": "p/",
        "STATE_SOCKET": str(tmp_path / "s.sock"),
        "STATE_CREDENTIALS_DIR": str(secret),
        "STATE_REQUEST_TIMEOUT": "50ms",
    }
    (settings,) = load(environ).mounts
    metrics = Metrics()
    mounted = Mount(settings, Deadlines(), metrics, Health(metrics), Budget(1 << 20), InFlight(8))
    await mounted.bring_up()
    store = mounted._store
    assert store is not None
    await store.put(b"f", Body(b"old"), Change("a" * 16))
    connect, failures = mounted._connect, [RuntimeError("a defect")]

    async def failing() -> None:
        if failures:
            raise failures.pop()
        await connect()

    monkeypatch.setattr(mounted, "_connect", failing)  # which must not be the last look at the files
    keeping = asyncio.create_task(mounted.keep_credentials())
    try:
        replacement = tmp_path / "replacement"
        replacement.write_text(str(tmp_path / "new"))
        os.replace(replacement, secret / "SQLITE_DIR")
        deadline = time.monotonic() + 10
        while mounted._store is store:
            assert time.monotonic() < deadline, "the new credentials were never taken"
            await asyncio.sleep(0.01)
        assert mounted._store is not None
        assert await mounted._store.head(b"f") is None
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await mounted.close()
        await store.close()
