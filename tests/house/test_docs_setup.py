"""The setup guides as somebody follows them: the policy filled in by the guide's own line, on a real server that
enforces it, and then the whole proxy as an actor of each of two namespaces. A neighbour's prefix is refused by the
backend, and the proxy says so.
"""

import asyncio
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from asya_proxy import settings
from asya_proxy.check import check
from asya_proxy.stores import nats_streams
from support.documentation import DOCS, blocks
from support.server_iam import IamServer, S3ServerWithUsers
from support.server_nats import NatsServer
from support.servers import RedisServer

NAMESPACES = ("team-a", "team-b")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        yield Path(directory)


def filled(guide: str, namespace: str, file: str = "", **changes: str) -> str:
    """What the guide's `sed` over `file` prints, run as it stands but for its target and the namespace."""
    (line,) = [
        line
        for block in blocks(guide)
        if block.language == "bash"
        for line in block.text.splitlines()
        if line.startswith("sed ") and file in line
    ]
    line = re.sub(r" >>? \S+$", "", line)
    for old, new in {"team-a": namespace, **changes}.items():
        line = line.replace(old, new)
    done = subprocess.run(["bash", "-c", line], cwd=DOCS.parent, capture_output=True, text=True, check=True)
    assert not re.search(r"\b(BUCKET|NAMESPACE|PASSWORD)\b", re.sub(r"(?m)^#.*$", "", done.stdout))
    return done.stdout


class Proxies:
    """`asya-state-proxy check` as the proxy of an actor in some namespace: is it content, and what does it print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def check(self, backend: str, bucket: str, namespace: str, credentials: dict[str, str]) -> tuple[bool, str]:
        environ = {
            "STATE_BACKEND": backend,
            "STATE_BUCKET": bucket,
            "STATE_CONSISTENCY": "cas",
            "STATE_PREFIX": f"{namespace}/actor/",
            "STATE_ACTOR": f"{namespace}/actor",
            **credentials,
        }
        status = await check(settings.load(environ), races=False)
        return status == 0, self._capsys.readouterr().out

    async def each_reaches_its_own_and_no_other(
        self, backend: str, buckets: dict[str, str], credentials: dict[str, dict[str, str]]
    ) -> None:
        for namespace, variables in credentials.items():
            content, said = await self.check(backend, buckets[namespace], namespace, variables)
            assert content, said
            assert "ok: promises tested" in said
        content, said = await self.check(backend, buckets["team-b"], "team-b", credentials["team-a"])
        assert not content
        assert re.search(r"FAILED: .*(refus|NOPERM|permission)", said, re.IGNORECASE | re.DOTALL), said


@pytest.fixture
def proxies(capsys: pytest.CaptureFixture[str]) -> Proxies:
    return Proxies(capsys)


async def test_s3(place: Path, proxies: Proxies) -> None:
    with IamServer(place / "iam") as iam, S3ServerWithUsers(place / "s3", iam) as server:
        credentials = {
            name: server.environ | iam.user(name, filled("setup/s3.md", name, **{"asya-actor-state": server.bucket}))
            for name in NAMESPACES
        }
        await proxies.each_reaches_its_own_and_no_other("s3", dict.fromkeys(NAMESPACES, server.bucket), credentials)


async def test_redis(place: Path, proxies: Proxies) -> None:
    acl = place / "users.acl"
    (conf,) = [block.text for block in blocks("setup/redis.md") if block.title == "redis.conf"]
    users = [filled("setup/redis.md", name, "redis-namespace.acl") for name in NAMESPACES]
    acl.write_text("".join([filled("setup/redis.md", "", "redis-server.acl"), *users]))
    # Without it only Redis' own guard against servers without a password would refuse who comes from elsewhere.
    settings = [*conf.replace("/etc/redis/users.acl", str(acl)).splitlines(), "protected-mode no"]
    with RedisServer(place, settings) as server:
        assert server.ask("GET", "{asya-state:team-b/actor/}f").startswith(b"-NOAUTH")
        credentials = {
            name: {"REDIS_URL": f"redis://{name}:change-me@127.0.0.1:{server.port}/0"} for name in NAMESPACES
        }
        await proxies.each_reaches_its_own_and_no_other("redis", dict.fromkeys(NAMESPACES, "asya-state"), credentials)


def nats_accounts() -> str:
    """The guide's configuration, with an account for each namespace."""
    (conf,) = [block.text for block in blocks("setup/nats.md") if block.title == "nats-server.conf"]
    match = re.fullmatch(r"accounts \{\n(.*)\}\n", conf, re.DOTALL)
    assert match is not None
    account = re.sub(r"# the user of the proxies: .*\n", "@\n", match[1])
    assert account.count("@") == 1
    made = [account.replace("team-a", name).replace("@", filled("setup/nats.md", name)) for name in NAMESPACES]
    return "accounts {\n" + "".join(made) + "}\n"


async def test_nats(place: Path, proxies: Proxies) -> None:
    """Namespaces do not share a bucket there: the neighbour's bucket is refused."""
    with NatsServer(place, config=nats_accounts()) as server:
        address = server.url.removeprefix("nats://")
        for name in NAMESPACES:
            # Its streams are made by who may.
            admin = {"NATS_URL": f"nats://{name}-admin:change-me-too@{address}"}
            content, said = await proxies.check("nats", name, name, admin)
            assert content, said
        credentials = {name: {"NATS_URL": f"nats://{name}:change-me@{address}"} for name in NAMESPACES}
        buckets = {name: name for name in NAMESPACES}
        await proxies.each_reaches_its_own_and_no_other("nats", buckets, credentials)


async def test_the_account_of_nats_is_the_wall(place: Path) -> None:
    """The permissions let a consumer deliver to any subject: it arrives in the own account, and in no other."""
    with NatsServer(place, config=nats_accounts()) as server:
        async with AsyncExitStack() as stack:

            async def connect(user: str, password: str) -> Client:
                url = server.url.replace("//", f"//{user}:{password}@")
                client = await nats.connect(url, inbox_prefix=b"_INBOX.team-a")
                stack.push_async_callback(client.close)
                return client

            own, theirs = [await connect(f"{name}-admin", "change-me-too") for name in NAMESPACES]
            for name, admin in zip(NAMESPACES, (own, theirs), strict=True):
                await admin.jetstream().create_key_value(bucket=name)
            target = "$KV.team-b.team-b.actor.f"
            here, there = [await admin.subscribe(target) for admin in (own, theirs)]
            await asyncio.gather(own.flush(), theirs.flush())

            proxy = await connect("team-a", "change-me")
            await proxy.jetstream().publish("$KV.team-a.x", b"forged")
            config = {"name": "c", "filter_subject": "$KV.team-a.x", "deliver_subject": target, "ack_policy": "none"}
            request = json.dumps({"stream_name": "KV_team-a", "config": config}).encode()
            made = await proxy.request("$JS.API.CONSUMER.CREATE.KV_team-a.c.$KV.team-a.x", request, timeout=10)
            assert "error" not in json.loads(made.data)

            assert (await here.next_msg(timeout=10)).data == b"forged"
            await theirs.jetstream().publish(target, b"own")
            assert (await there.next_msg(timeout=10)).data == b"own"
            entry = await (await theirs.jetstream().key_value("team-b")).get("team-b.actor.f")
            assert (entry.value, entry.revision) == (b"own", 1)


async def test_the_commands_for_streams_are_those_that_the_proxy_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []

    async def find(_: object, config: dict[str, object], command: str) -> dict[str, object]:
        printed.append(command)
        return config

    monkeypatch.setattr(nats_streams, "_find", find)
    nothing: Any = None
    await nats_streams.Streams("team-a").prepare(nothing, 120.0)
    shown = [line for block in blocks("setup/nats.md") for line in block.text.splitlines() if line.startswith("nats ")]
    assert shown == printed
