"""The Redis store against a real server that dies, stalls, fills up, refuses, or is a sentinel's or a cluster's."""

import asyncio
import re
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser

import asya_proxy.stores.redis as redis_module
from asya_proxy.errors import BadRequest, PermissionDenied, Quota, StoreError, Unavailable
from asya_proxy.stores.base import ABSENT, ANY, CHUNK, Body, Change, Stat, StoreConfig
from asya_proxy.stores.redis import RedisStore
from asya_proxy.stores.redis_link import translate
from asya_proxy.testing.samples import change, cut, names, pattern, read, write
from support.faults_scripted import CutAnswer, CutRequest, LoseAnswer, LoseRequest, ScriptedProxy
from support.ports import free_port
from support.servers import RedisSentinel, RedisServer

PREFIX = "team/actor/"


@contextmanager
def server(*settings: str) -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="asya-") as directory, RedisServer(Path(directory), settings) as running:
        yield running


@asynccontextmanager
async def opened(url: str, prefix: str = PREFIX, *, timeout: float = 5.0) -> AsyncIterator[RedisStore]:
    store = RedisStore(StoreConfig("state", prefix, {"REDIS_URL": url}, attempt_timeout=timeout))
    await store.connect()
    try:
        yield store
    finally:
        await store.close()


async def everything(store: RedisStore) -> None:
    """Each operation once, small and large."""
    large = pattern(2 * CHUNK + 5)
    await store.ping()
    for data in (b"small", large):
        stat = await write(store, b"f", data, ABSENT)
        assert (await store.set_attrs(b"f", {"bg==": "dg=="}, change())).size == stat.size
        await store.append(b"f", Body(b"tail"), change())
        await store.append(b"f", Body(large), change())
        assert await read(store, b"f") == data + b"tail" + large
        await store.copy(b"f", b"d/copy", change(), ANY)
        await store.rename(b"f", b"d/moved", change(), ANY)
        assert await store.rename_tree(b"d/", b"e/", change()) == (2, {})
        assert await names(store) == [b"e/copy", b"e/moved"]
        assert await read(store, b"e/copy") == await read(store, b"e/moved") == data + b"tail" + large
        for key in (b"e/copy", b"e/moved"):
            await store.delete(key, change())


async def until_it_answers(store: RedisStore) -> None:
    """Unavailable is all that a restart may look like, and not for long."""
    async with asyncio.timeout(10):
        while True:
            try:
                await store.head(b"f")
                return
            except Unavailable:
                await asyncio.sleep(0.01)


# -- deaths ---------------------------------------------------------------------------------------


async def test_a_killed_server_loses_nothing_acknowledged() -> None:
    """With `appendfsync everysec`, Redis holds back what it writes to the file while an fsync is at work, for up to
    two seconds, and what it has acknowledged meanwhile dies with it."""
    acknowledged: dict[bytes, bytes] = {}
    with server("appendfsync always") as running:
        async with opened(running.unix_url) as store:
            for death in range(2):

                async def write_on(who: int, death: int = death) -> None:
                    number = 0
                    while True:
                        key = b"%d/%d/%d" % (death, who, number)
                        data = pattern(CHUNK + 10 if number % 10 == 9 else 50, seed=number)
                        try:
                            await write(store, key, data)
                        except Unavailable:
                            return
                        acknowledged[key] = data
                        number += 1

                writers = [asyncio.create_task(write_on(who)) for who in range(6)]
                enough = len(acknowledged) + 150
                while len(acknowledged) < enough:
                    await asyncio.sleep(0)
                running.kill()
                await asyncio.gather(*writers)
                running.start()
                # The same client, without a restart of its own.
                await until_it_answers(store)
                for key, data in acknowledged.items():
                    assert await read(store, key) == data, key
                await asyncio.gather(*(write(store, b"after%d" % number, b"") for number in range(70)))


async def test_a_stalled_server_is_unavailable_and_comes_back() -> None:
    with server() as running:
        async with opened(running.unix_url, timeout=0.3) as store:
            mine = change(ABSENT)
            running.freeze()
            with pytest.raises(Unavailable) as caught:
                await store.put(b"f", Body(b"content"), mine)
            assert caught.value.ambiguous
            running.thaw()
            await until_it_answers(store)
            stat = await store.put(b"f", Body(b"content"), mine)
            assert await store.head(b"f") == stat


# -- lost answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "landed"),
    [(LoseAnswer(), True), (CutAnswer(3), True), (LoseRequest(), False), (CutRequest(40), False)],
)
async def test_a_lost_answer_is_ambiguous_and_the_repeat_settles_it(
    redis_server: RedisServer, fault: LoseAnswer | CutAnswer | LoseRequest | CutRequest, landed: bool
) -> None:
    prefix = f"lost/{type(fault).__name__}/"
    async with ScriptedProxy(redis_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", prefix) as store:
            await write(store, b"log", b"one\n")
            await store.append(b"log", Body(b"two\n"), change())  # its script is known from here on
            mine = change()
            proxy.script.append(fault)
            attempts = proxy.exchanges
            with pytest.raises(Unavailable) as caught:
                await store.append(b"log", Body(b"three\n"), mine)
            assert caught.value.ambiguous
            assert proxy.exchanges == attempts + 1, "the client repeated a change by itself"
            assert (await read(store, b"log") == b"one\ntwo\nthree\n") is landed
            await store.append(b"log", Body(b"three\n"), mine)
            assert await read(store, b"log") == b"one\ntwo\nthree\n"


async def test_a_chunk_whose_answer_was_lost_leaves_nothing_open(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees chunks before they are committed, so nobody is told that the file may have been changed."""
    async with opened(redis_server.unix_url, "lost-chunk/") as store:
        call = store._open.call

        async def losing(*args: bytes | memoryview | str | int) -> object:
            if args[0] == "SET":
                raise Unavailable("no answer")
            return await call(*args)

        monkeypatch.setattr(store._open, "call", losing)
        for act in (store.put, store.append):
            with pytest.raises(Unavailable) as caught:
                await act(b"f", Body(LONG), change())
            assert not caught.value.ambiguous


async def test_a_one_way_partition_ends_at_the_deadline(redis_server: RedisServer) -> None:
    async with ScriptedProxy(redis_server.port) as proxy:
        async with opened(f"redis://127.0.0.1:{proxy.port}/0", "partition/", timeout=0.3) as store:
            await write(store, b"f", b"before")
            proxy.mute_answers = True
            with pytest.raises(Unavailable) as caught:
                await write(store, b"f", b"after")
            assert caught.value.ambiguous
            proxy.mute_answers = False
            await until_it_answers(store)
            assert await read(store, b"f") == b"after"


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock", "redis://nowhere.invalid:6379/0"]
)
async def test_what_cannot_be_reached_was_never_sent(url: str) -> None:
    with pytest.raises(Unavailable) as caught:
        async with opened(url):
            pass
    assert not caught.value.ambiguous


async def test_a_server_that_went_away_was_never_sent_anything() -> None:
    with server() as running:
        async with opened(running.url) as store:
            running.kill()
            with pytest.raises(Unavailable):
                await store.ping()
            with pytest.raises(Unavailable) as caught:
                await write(store, b"f", b"content")
            assert not caught.value.ambiguous


# -- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "REDIS_URL is not set"),
        ("http://host:1", "scheme 'http'"),
        ("redis://host:port", "REDIS_URL"),
        ("redis+sentinel://host:1", "names the master"),
        ("redis+sentinel://host/master", "not host:port"),
        ("redis+cluster://host:x", "not host:port"),
    ],
)
async def test_a_bad_url_is_named(url: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        async with opened(url):
            pass


@pytest.mark.parametrize("password", ["s3cret/x", "s3cret?x", "s3cret#x", "x/s3cret", "s3cret"])
@pytest.mark.parametrize("url", ["redis://:{}@host:1", "redis+sentinel://u:{}@host:1/m", "redis+cluster://u:{}"])
async def test_a_bad_url_keeps_its_password(url: str, password: str) -> None:
    if password == "s3cret":
        url = url.partition("@")[0]  # the host was forgotten
    with pytest.raises(BadRequest, match="REDIS_URL") as caught:
        async with opened(url.format(password)):
            pass
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


async def test_wrong_credentials() -> None:
    with server("requirepass secret") as running:
        for login in ("", ":wrong@", "nobody:secret@"):
            with pytest.raises(PermissionDenied, match="REDIS_URL"):
                async with opened(f"redis://{login}127.0.0.1:{running.port}/0"):
                    pass
        async with opened(f"redis://:secret@127.0.0.1:{running.port}/0") as store:
            await everything(store)


def least_acl(bucket: str, prefixes: str, password: str) -> list[str]:
    """The ACL in the module's docstring."""
    text = re.search(r"ACL SETUSER(?:.+\n)+", str(redis_module.__doc__))
    assert text is not None
    filled = text[0].replace("{B:N/*", "{" + f"{bucket}:{prefixes}/*").replace("PASSWORD", password)
    return filled.split()


async def test_the_documented_acl_is_enough_and_keeps_neighbours_out(redis_server: RedisServer) -> None:
    assert redis_server.ask(*least_acl("state", "team-a", "secret")) == b"+OK\r\n"
    url = f"redis://asya:secret@127.0.0.1:{redis_server.port}/0"
    async with opened(redis_server.unix_url, "team-b/actor/") as theirs:
        await write(theirs, b"f", b"secret")
    async with opened(url, "team-a/actor/") as mine:
        await everything(mine)
    async with opened(url, "team-b/actor/") as intruder:
        for attempt in (
            intruder.head(b"f"),
            intruder.get(b"f"),
            intruder.list(b""),
            intruder.delete(b"f", change()),
            write(intruder, b"f", b"x"),
            write(intruder, b"g", pattern(2 * CHUNK)),
        ):
            with pytest.raises(PermissionDenied):
                await attempt
    async with opened(redis_server.unix_url, "team-b/actor/") as theirs:
        assert await read(theirs, b"f") == b"secret"
        assert await names(theirs) == [b"f"]


@pytest.mark.parametrize("denied", ["hset", "zadd", "persist"])
async def test_a_write_that_fails_in_its_middle_is_never_acknowledged(redis_server: RedisServer, denied: str) -> None:
    """Not even when it is repeated: the log of changes was written before."""
    redis_server.ask("ACL", "SETUSER", "halting", "on", ">pw", "~*", "+@all", f"-{denied}")
    prefix = f"middle/{denied}/"
    content = pattern(2 * CHUNK)
    async with opened(f"redis://halting:pw@127.0.0.1:{redis_server.port}/0", prefix) as store:
        halting = change()
        for _ in range(2):
            with pytest.raises(PermissionDenied):
                await store.put(b"f", Body(content), halting)
    redis_server.ask("ACL", "DELUSER", "halting")
    async with opened(redis_server.unix_url, prefix) as store:
        assert await store.head(b"f") is None
        assert await names(store) == []
        assert (await store.put(b"f", Body(content), halting)).version == halting.id
        assert await read(store, b"f") == content
        assert await names(store) == [b"f"]


TAIL = pattern(100)
LONG = pattern(2 * CHUNK + 5)
Act = Callable[[RedisStore, Change], Awaitable[object]]
ACTS: dict[str, Act] = {
    "create": lambda store, mine: store.put(b"new", Body(b"content"), mine),
    "create large": lambda store, mine: store.put(b"new", Body(LONG), mine),
    "put over small": lambda store, mine: store.put(b"small", Body(b"content"), mine),
    "put over large": lambda store, mine: store.put(b"large", Body(b"content"), mine),
    "put large over large": lambda store, mine: store.put(b"large", Body(LONG), mine),
    "append nothing was": lambda store, mine: store.append(b"new", Body(TAIL), mine),
    "append to small": lambda store, mine: store.append(b"small", Body(TAIL), mine),
    "append to middling": lambda store, mine: store.append(b"middling", Body(TAIL), mine),
    "append to large": lambda store, mine: store.append(b"large", Body(TAIL), mine),
    "append large to small": lambda store, mine: store.append(b"small", Body(LONG), mine),
    "append large to large": lambda store, mine: store.append(b"large", Body(LONG), mine),
    "rename": lambda store, mine: store.rename(b"small", b"new", mine, ANY),
    "rename over large": lambda store, mine: store.rename(b"small", b"large", mine, ANY),
    "copy": lambda store, mine: store.copy(b"large", b"new", mine, ANY),
    "copy over large": lambda store, mine: store.copy(b"small", b"large", mine, ANY),
    "rename tree": lambda store, mine: store.rename_tree(b"d/", b"e/", mine),
    "rename tree over empty": lambda store, mine: store.rename_tree(b"d/", b"empty/", mine),
    "set attributes": lambda store, mine: store.set_attrs(b"large", {"bg==": "dg=="}, mine),
    "delete": lambda store, mine: store.delete(b"small", mine),
    "delete large": lambda store, mine: store.delete(b"large", mine),
}


def lasting(running: RedisServer, prefix: str) -> list[bytes]:
    """The keys of a prefix that never expire."""
    script = """
    local out = {}
    for _, key in ipairs(redis.call('KEYS', '{state:' .. ARGV[1] .. '}*')) do
      if redis.call('PTTL', key) == -1 then out[#out + 1] = key end
    end
    table.sort(out)
    return table.concat(out, '\\n')
    """
    return running.ask("EVAL", script, "0", prefix).splitlines()[1:]


async def contents(store: RedisStore) -> dict[bytes, tuple[Stat | None, bytes | None]]:
    return {name: (await store.head(name), await read(store, name)) for name in await names(store)}


@pytest.mark.parametrize("name", ACTS)
async def test_what_an_acl_halts_changes_nothing_and_says_so_each_time(redis_server: RedisServer, name: str) -> None:
    """Whichever command is denied: nothing is lost, also later, and a repeat is told the same and not `done`."""
    act = ACTS[name]
    halted = []
    for denied in ("hset", "hdel", "del", "unlink", "zadd", "zrem", "rename", "copy", "append", "persist", "pexpire"):
        prefix = f"halted/{name}/{denied}/"
        async with opened(redis_server.unix_url, prefix) as store:
            for key, content in ((b"small", b"1"), (b"middling", LONG[: 2 << 15]), (b"large", LONG), (b"d/f", b"2")):
                await write(store, key, content)
            await write(store, b"empty/", b"")
            before = await contents(store)
            kept = lasting(redis_server, prefix)
            mine = change()
            redis_server.ask("ACL", "SETUSER", "halting", "reset", "on", ">pw", "~*", "+@all", f"-{denied}")
            async with opened(f"redis://halting:pw@127.0.0.1:{redis_server.port}/0", prefix) as bound:
                try:
                    await act(bound, mine)
                except PermissionDenied:
                    halted.append(denied)
                else:
                    continue
                with pytest.raises(PermissionDenied, match=rf"{denied.upper()}.*nothing was changed.*\+{denied}"):
                    await act(bound, mine)
            assert await contents(store) == before
            assert lasting(redis_server, prefix) == kept
            assert await act(store, mine) is not None or name.startswith("delete")
    assert len(halted) >= 1 + (name not in ("set attributes", "append to small")), halted
    redis_server.ask("ACL", "DELUSER", "halting")


@pytest.mark.parametrize(
    ("name", "operation", "key"),
    [("append to small", "append", "small"), ("rename", "rename", "new"), ("set attributes", "set_attrs", "large")],
)
async def test_a_change_of_which_only_its_beginning_is_known_may_have_been_made(
    redis_server: RedisServer, name: str, operation: str, key: str
) -> None:
    """As a proxy of an earlier release has left it, whose script was denied a command in its middle."""
    prefix = f"begun/{operation}/"
    async with opened(redis_server.unix_url, prefix) as store:
        await write(store, b"small", b"1")
        await write(store, b"large", LONG)
        mine = change()
        log = f"{{state:{prefix}}}w:{operation}:{mine.id}:{key}"
        redis_server.ask("EVAL", "redis.call('SET', ARGV[1], cmsgpack.pack({'ok'}))", "0", log)
        with pytest.raises(Unavailable, match="halted in its middle") as caught:
            await ACTS[name](store, mine)
        assert caught.value.ambiguous


async def test_keys_that_an_acl_denies_are_named(redis_server: RedisServer) -> None:
    redis_server.ask("ACL", "SETUSER", "elsewhere", "reset", "on", ">pw", "~other*", "+@all")
    async with opened(f"redis://elsewhere:pw@127.0.0.1:{redis_server.port}/0", "mine/") as store:
        for refused in (store.head(b"f"), write(store, b"f", b"1"), store.list(b"")):
            with pytest.raises(PermissionDenied, match=r"no permissions? to access.*~\{state:mine/\}\*"):
                await refused
    redis_server.ask("ACL", "DELUSER", "elsewhere")


@pytest.mark.parametrize(
    "text",
    [
        "ERR ACL failure in script: User asya has no permissions to run the 'hset' command script: ab",
        "ERR The user executing the script can't run this command or subcommand script: ab, on @user_script:7.",
        "NOPERM No permissions to access a key",
    ],
)
def test_what_an_acl_denies_was_certainly_not_done(text: str) -> None:
    assert isinstance(translate(BaseParser.parse_error(text)), PermissionDenied)


async def test_a_full_server_says_so_and_still_deletes() -> None:
    with server("maxmemory-policy noeviction") as running:
        async with opened(running.unix_url) as store:
            for key in (b"f", b"g"):
                await write(store, key, pattern(CHUNK))
            running.ask("CONFIG", "SET", "maxmemory", "1mb")
            for refused in (
                write(store, b"f", b"small"),
                write(store, b"large", pattern(3 * CHUNK)),
                store.append(b"f", Body(b"tail"), change()),
                store.copy(b"f", b"copy", change(), ANY),
                store.rename(b"f", b"moved", change(), ANY),
                store.set_attrs(b"f", {"bg==": "dg=="}, change()),
            ):
                with pytest.raises(Quota):
                    await refused
            await store.delete(b"g", change())
            running.ask("CONFIG", "SET", "maxmemory", "0")
            assert await names(store) == [b"f"]
            assert await read(store, b"f") == pattern(CHUNK)
            await store.delete(b"f", change())
            await everything(store)


async def test_a_replica_refuses_writes_unambiguously(redis_server: RedisServer) -> None:
    with server(f"replicaof 127.0.0.1 {redis_server.port}") as replica:
        async with opened(replica.unix_url) as store:
            with pytest.raises(Unavailable, match=r"READONLY|MASTERDOWN|LOADING") as caught:
                await write(store, b"f", b"content")
            assert not caught.value.ambiguous


async def test_forgotten_scripts_are_sent_again(redis_server: RedisServer) -> None:
    async with opened(redis_server.unix_url, "flush/") as store:
        await everything(store)
        redis_server.ask("SCRIPT", "FLUSH")
        await everything(store)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["appendonly no"], "no append-only file"),
        (["maxmemory 100mb", "maxmemory-policy allkeys-lru"], "allkeys-lru may drop state files"),
        ([], ""),
    ],
)
async def test_warnings_at_the_start(settings: Sequence[str], said: str, caplog: pytest.LogCaptureFixture) -> None:
    with server(*settings) as running:
        async with opened(running.unix_url):
            pass
    warnings = [record.getMessage() for record in caplog.records if record.name == "asya_proxy.stores.redis"]
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)


# -- where nothing may be left over ---------------------------------------------------------------


def strays(running: RedisServer) -> list[bytes]:
    """Chunks that live on without an object that names them."""
    script = """
    local home = {}
    for _, key in ipairs(redis.call('KEYS', '*}o:*')) do
      local upload = redis.call('HGET', key, 'u')
      if upload then home[upload] = true end
    end
    local out = {}
    for _, key in ipairs(redis.call('KEYS', '*}c:*')) do
      local upload = string.match(key, '}c:(.*):%d+$')
      local expires = redis.call('PTTL', key) >= 0
      if (home[upload] and expires) or (not home[upload] and not expires) then out[#out + 1] = key end
    end
    return table.concat(out, ' ')
    """
    return running.ask("EVAL", script, "0").splitlines()[1].split()


async def test_no_chunk_outlives_its_object() -> None:
    with server() as running:
        async with opened(running.unix_url) as store:
            large = pattern(2 * CHUNK + 5)
            for key in (b"kept", b"replaced", b"deleted", b"renamed-over", b"moved", b"copied-over"):
                await write(store, key, large)
            await write(store, b"replaced", b"small")
            await store.delete(b"deleted", change())
            await store.rename(b"moved", b"renamed-over", change(), ANY)
            await store.copy(b"kept", b"copied-over", change(), ANY)
            await store.append(b"copied-over", Body(large), change())
            mine = change()
            for _ in range(2):
                await store.append(b"replaced", Body(large), mine)
            for attempt in (
                store.put(b"cut", Body(stream=cut([large])), change()),
                store.put(b"kept", Body(large), change(ABSENT)),
            ):
                with pytest.raises(StoreError):
                    await attempt
        assert strays(running) == []
        # What was staged for nothing is gone at once, not only when it expires: 3 objects of 3, 6 and 6 chunks,
        # and 15 retired ones that readers may still want.
        async with opened(running.unix_url) as store:
            assert await read(store, b"kept") == await read(store, b"renamed-over") == large
            assert await read(store, b"copied-over") == large * 2
            assert await read(store, b"replaced") == b"small" + large


# -- sentinel and cluster -------------------------------------------------------------------------


async def test_through_sentinel(redis_server: RedisServer) -> None:
    with tempfile.TemporaryDirectory(prefix="asya-") as directory:
        with RedisSentinel(Path(directory), redis_server) as sentinel:
            url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/asya/1"
            async with opened(url, "sentinel/") as store:
                await everything(store)
                await write(store, b"f", b"content")
            async with opened(f"redis://127.0.0.1:{redis_server.port}/1", "sentinel/") as direct:
                assert await read(direct, b"f") == b"content"
            with pytest.raises(Unavailable) as caught:
                async with opened(url.replace("/asya/", "/unknown/")):
                    pass
            assert not caught.value.ambiguous


async def test_in_a_cluster() -> None:
    with server("cluster-enabled yes", f"cluster-port {free_port()}", "appendfsync always") as running:
        assert running.ask("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"+OK\r\n"
        async with asyncio.timeout(20):
            while b"cluster_state:ok" not in running.ask("CLUSTER", "INFO"):
                await asyncio.sleep(0.02)
        async with opened(f"redis+cluster://127.0.0.1:{running.port}", "a}{b/") as store:
            await everything(store)
            await asyncio.gather(*(write(store, b"f%d" % number, b"") for number in range(100)))
            running.kill()
            with pytest.raises(Unavailable):
                await store.head(b"f1")
            running.start()
            await until_it_answers(store)
            assert len(await names(store)) == 100
