"""The policies of docs/policies on real servers: enough for one's own namespace, nothing in a neighbour's.

NATS has its test in `test_nats`. GCS has none: no server that can be had enforces its conditions.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from botocore.exceptions import ClientError

import asya_proxy.stores.redis as redis_module
from asya_proxy import selftest
from asya_proxy.errors import PermissionDenied
from asya_proxy.stores.base import ANY, CHUNK, Body, Store, StoreConfig
from asya_proxy.stores.redis import RedisStore
from asya_proxy.stores.s3 import S3Store
from asya_proxy.testing.samples import change, names, pattern, read, write
from support.server_iam import IamServer, S3ServerWithUsers
from support.servers import RedisServer

POLICIES = Path(__file__).parents[2] / "docs" / "policies"
NAMESPACES = ("team-a", "team-b")
LARGE = 9 << 20
"""Above the size from which S3 content goes in parts."""


def filled(file: str, namespace: str, **others: str) -> str:
    """A policy as somebody fills it in."""
    text = (POLICIES / file).read_text()
    for name, value in {"NAMESPACE": namespace, **others}.items():
        text = text.replace(name, value)
    return text


async def everything(store: Store, size: int) -> None:
    """What a proxy does: its self-test, each operation, small and large; nothing is left."""
    await store.ping()
    assert (await selftest.probe(store)).fatal == ()
    large = pattern(size)
    for data in (b"small", large):
        await write(store, b"d/f", data)
        assert await read(store, b"d/f") == data
    await store.delete(b"d/f", change(ANY))
    await write(store, b"d/f", b"again")
    assert b"d/f" in await names(store)
    assert await store.get(b"absent") is None
    assert await store.head(b"d/absent") is None
    await store.delete(b"d/f", change(ANY))


async def nothing(intruder: Store) -> None:
    """What the credentials of one namespace may do below the prefix of another."""
    for attempt in (
        intruder.head(b"f"),
        intruder.get(b"f"),
        intruder.list(b""),
        intruder.delete(b"f", change()),
        write(intruder, b"f", b"x"),
        write(intruder, b"g", pattern(LARGE)),
    ):
        with pytest.raises(PermissionDenied):
            await attempt


# -- S3 -------------------------------------------------------------------------------------------


class Users:
    """An S3 server with one user for each namespace."""

    def __init__(self, server: S3ServerWithUsers, iam: IamServer) -> None:
        self.server = server
        self.variables = {
            namespace: {
                **server.environ,
                **iam.user(namespace, filled("s3-namespace.json", namespace, BUCKET=server.bucket)),
            }
            for namespace in NAMESPACES
        }

    @asynccontextmanager
    async def opened(self, credentials: str, prefix: str) -> AsyncIterator[S3Store]:
        store = S3Store(StoreConfig(self.server.bucket, prefix, self.variables[credentials]))
        await store._calls.connect()
        await store._calls.find_objects()
        try:
            yield store
        finally:
            await store.close()

    def sdk(self, namespace: str) -> Any:
        variables = self.variables[namespace]
        return boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        )


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        with IamServer(Path(directory) / "iam") as iam, S3ServerWithUsers(Path(directory) / "s3", iam) as server:
            yield Users(server, iam)


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_s3_is_enough(users: Users, namespace: str) -> None:
    async with users.opened(namespace, f"{namespace}/actor/") as store:
        await everything(store, LARGE)


async def test_s3_keeps_neighbours_out(users: Users) -> None:
    async with users.opened("team-b", "team-b/neighbour/") as theirs:
        await write(theirs, b"f", b"secret")
    async with users.opened("team-a", "team-b/neighbour/") as intruder:
        with pytest.raises(PermissionDenied):
            await intruder.ping()
        await nothing(intruder)
    async with users.opened("team-b", "team-b/neighbour/") as theirs:
        assert await read(theirs, b"f") == b"secret"
        assert await names(theirs) == [b"f"]


async def test_s3_itself_refuses_the_get(users: Users) -> None:
    """Without anything of ours between."""
    async with users.opened("team-b", "team-b/actor/") as theirs:
        await write(theirs, b"f", b"secret")
    client = users.sdk("team-a")
    for call, arguments in (
        (client.get_object, {"Key": "team-b/actor/f"}),
        (client.head_object, {"Key": "team-b/actor/f"}),
        (client.list_objects_v2, {"Prefix": "team-b/"}),
        (client.list_objects_v2, {}),
        (client.list_objects_v2, {"Prefix": "team-a"}),
        (client.delete_object, {"Key": "team-b/actor/f"}),
        (client.get_bucket_policy, {}),
    ):
        with pytest.raises(ClientError) as refused:
            call(Bucket=users.server.bucket, **arguments)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    mine = users.sdk("team-b").get_object(Bucket=users.server.bucket, Key="team-b/actor/f")["Body"]
    assert mine.read() == b"secret"
    mine.close()
    client.close()


# -- Redis ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def acl_server() -> Iterator[RedisServer]:
    """A server whose ACL file is that of the policies, for both namespaces; Redis' own guard is off."""
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        lines = [filled("redis-namespace.acl", name, BUCKET="asya-state", PASSWORD=f"{name}-pw") for name in NAMESPACES]
        acl = Path(directory) / "users.acl"
        acl.write_text("".join([filled("redis-server.acl", "", PASSWORD="admin-pw"), *lines]))
        with RedisServer(Path(directory), [f"aclfile {acl}", "protected-mode no"]) as server:
            yield server


@asynccontextmanager
async def redis_store(server: RedisServer, credentials: str, prefix: str) -> AsyncIterator[RedisStore]:
    url = f"redis://{credentials}:{credentials}-pw@127.0.0.1:{server.port}/0"
    store = RedisStore(StoreConfig("asya-state", prefix, {"REDIS_URL": url}))
    await store.connect()
    try:
        yield store
    finally:
        await store.close()


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_redis_is_enough(acl_server: RedisServer, namespace: str) -> None:
    async with redis_store(acl_server, namespace, f"{namespace}/actor/") as store:
        await everything(store, 2 * CHUNK + 5)
        await write(store, b"f", b"a")
        await store.append(b"f", Body(b"b"), change())
        await store.rename(b"f", b"dir/g", change(), ANY)
        assert await store.rename_tree(b"dir/", b"e/", change()) == (1, {})
        assert await read(store, b"e/g") == b"ab"


async def test_redis_keeps_neighbours_out(acl_server: RedisServer) -> None:
    async with redis_store(acl_server, "team-b", "team-b/neighbour/") as theirs:
        await write(theirs, b"f", b"secret")
    async with redis_store(acl_server, "team-a", "team-b/neighbour/") as intruder:
        await nothing(intruder)
    # A namespace whose name begins like this one's is another one.
    async with redis_store(acl_server, "team-a", "team-a-b/actor/") as intruder:
        await nothing(intruder)
    async with redis_store(acl_server, "team-b", "team-b/neighbour/") as theirs:
        assert await read(theirs, b"f") == b"secret"


async def test_redis_itself_refuses_the_get(acl_server: RedisServer) -> None:
    async with redis_store(acl_server, "team-b", "team-b/actor/") as theirs:
        await write(theirs, b"f", b"secret")
    admin = redis.Redis(port=acl_server.port, username="admin", password="admin-pw")
    keys = admin.keys("*team-b/*")
    assert keys
    with redis.Redis(port=acl_server.port, username="team-a", password="team-a-pw") as client:
        for key in keys:
            for command in (("GET", key), ("HGET", key, "d"), ("DEL", key), ("EXISTS", key)):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command)
        for command in (("KEYS", "*"), ("SCAN", "0"), ("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
    for command in (("GET", keys[0].decode()), ("KEYS", "*"), ("ACL", "LIST")):
        assert acl_server.ask(*command).startswith(b"-NOAUTH"), "a client without a user"
    admin.close()


def test_the_redis_file_is_the_acl_of_the_store() -> None:
    """The words of the store's docstring, which the store's own test uses."""
    text = re.search(r"ACL SETUSER asya (.+\n)+", str(redis_module.__doc__))
    assert text is not None
    documented = text[0].replace("{B:N/*", "{BUCKET:NAMESPACE/*").split()[3:]
    (line,) = re.findall(r"(?m)^user .+$", (POLICIES / "redis-namespace.acl").read_text())
    assert line.split()[2:] == documented
