"""The clients of `bench/backends.py`, each a process of its own: a backend's bare SDK, or a proxy's socket.

    contenders.py sdk|proxy|swaps BACKEND SOCKET      (one JSON command a line in, one JSON answer a line out)

    {"do": "pace", "case": "read|write", "clients": n, "rate": op/s, "seconds": s}   -> {"ns": [...]}
    {"do": "rush", "case": "read|write", "seconds": s}                 -> {"ops": n, "seconds": s, "cpu": s}
    {"do": "stream", "case": "up|down", "mib": n}                      -> {"seconds": s, "cpu": s}
    {"do": "hot", "clients": n, "seconds": s}                          -> {"done": n, "conflict": n, "unknown": n}

Each knows how to call its backend, not how the calls are spread: `pace` and `rush` are the same for all of a kind.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

MIB = 1 << 20
SIZE = 4096
PAYLOAD = os.urandom(SIZE)
BLOCK = os.urandom(MIB)
KEYS = 64
RUSHERS = 32
"""Clients that ask as fast as they are answered."""
BUCKET = "asya-state"
clock = time.perf_counter_ns


class Threaded:
    """A blocking client, called from threads. A contender has `read(key)`, `write(key)`, `up(mib)`, `down(mib)`."""

    rushers = RUSHERS

    def prepare(self) -> None:
        for number in range(KEYS):
            self.write(f"bench/{number}")

    def close(self) -> None:
        return None

    def read(self, key: str) -> None:
        raise NotImplementedError

    def write(self, key: str) -> None:
        raise NotImplementedError

    def pace(self, case: str, clients: int, rate: float, seconds: float) -> dict[str, object]:
        call = getattr(self, case)
        began = time.monotonic() + 0.01

        def one(number: int) -> list[int]:
            took = []
            for turn in range(number, int(rate * seconds), clients):
                time.sleep(max(0.0, began + turn / rate - time.monotonic()))
                start = clock()
                call(f"bench/{turn % KEYS}")
                took.append(clock() - start)
            return took

        with ThreadPoolExecutor(clients) as pool:
            return {"ns": [ns for took in pool.map(one, range(clients)) for ns in took]}

    def rush(self, case: str, seconds: float) -> dict[str, object]:
        call = getattr(self, case)
        end = time.monotonic() + seconds

        def one(number: int) -> int:
            ops = 0
            while time.monotonic() < end:
                call(f"bench/{number % KEYS}")
                ops += 1
            return ops

        began, cpu = time.monotonic(), time.process_time()
        with ThreadPoolExecutor(self.rushers) as pool:
            ops = sum(pool.map(one, range(self.rushers)))
        return {"ops": ops, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}

    def stream(self, case: str, mib: int) -> dict[str, object]:
        began, cpu = time.monotonic(), time.process_time()
        getattr(self, case)(mib)
        return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}


class Redis(Threaded):
    def __init__(self) -> None:
        import redis

        self._client = redis.Redis.from_url(os.environ["REDIS_URL"])

    def read(self, key: str) -> None:
        self._client.get(key)

    def write(self, key: str) -> None:
        self._client.set(key, PAYLOAD)

    def up(self, mib: int) -> None:
        for number in range(mib):
            self._client.set(f"large/{number}", BLOCK)

    def down(self, mib: int) -> None:
        for number in range(mib):
            self._client.get(f"large/{number}")


class Sqlite(Threaded):
    """As durable as the store: WAL, every commit synced."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._path = os.path.join(os.environ["SQLITE_DIR"], "bare.db")
        os.makedirs(os.environ["SQLITE_DIR"], exist_ok=True)
        self._db.execute("CREATE TABLE IF NOT EXISTS files (key TEXT PRIMARY KEY, data BLOB)")

    @property
    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._mine, "db"):
            self._mine.db = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            self._mine.db.execute("PRAGMA journal_mode = WAL")
            self._mine.db.execute("PRAGMA synchronous = FULL")
        return self._mine.db

    def read(self, key: str) -> None:
        self._db.execute("SELECT data FROM files WHERE key = ?", (key,)).fetchone()

    def write(self, key: str) -> None:
        self._put(key, PAYLOAD)

    def up(self, mib: int) -> None:
        for number in range(mib):
            self._put(f"large/{number}", BLOCK)

    def down(self, mib: int) -> None:
        for number in range(mib):
            self.read(f"large/{number}")

    def _put(self, key: str, data: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (key, data))


class S3(Threaded):
    def __init__(self) -> None:
        import boto3
        from botocore.config import Config

        config = Config(max_pool_connections=RUSHERS, s3={"addressing_style": "path"})
        self._client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=config)

    def read(self, key: str) -> None:
        self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def write(self, key: str) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=PAYLOAD)

    def up(self, mib: int) -> None:
        self._client.upload_fileobj(io.BytesIO(BLOCK * mib), BUCKET, "large")

    def down(self, mib: int) -> None:
        for _ in self._client.get_object(Bucket=BUCKET, Key="large")["Body"].iter_chunks(MIB):
            pass


class Gcs(Threaded):
    def __init__(self) -> None:
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        self._bucket = storage.Client(project="bench", credentials=AnonymousCredentials()).bucket(BUCKET)

    def read(self, key: str) -> None:
        self._bucket.blob(key).download_as_bytes()

    def write(self, key: str) -> None:
        self._bucket.blob(key).upload_from_string(PAYLOAD)

    def up(self, mib: int) -> None:
        self._bucket.blob("large", chunk_size=8 * MIB).upload_from_file(io.BytesIO(BLOCK * mib), size=mib * MIB)

    def down(self, mib: int) -> None:
        with open(os.devnull, "wb") as nowhere:
            self._bucket.blob("large").download_to_file(nowhere)


class Nats:
    """nats-py has no blocking client: tasks instead of threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def prepare(self) -> None:
        self._loop.run_until_complete(self._prepare())

    async def _prepare(self) -> None:
        import nats
        from nats.js.api import StreamConfig

        self._link = await nats.connect(os.environ["NATS_URL"])
        self._js = self._link.jetstream()
        self._kv = await self._js.create_key_value(bucket="bare", direct=True)
        await self._js.add_stream(
            StreamConfig(name="LARGE", subjects=["large.*"], allow_direct=True, max_msgs_per_subject=1)
        )
        for number in range(KEYS):
            await self.write(f"bench/{number}")

    def close(self) -> None:
        self._loop.run_until_complete(self._link.close())

    async def read(self, key: str) -> None:
        await self._kv.get(key)

    async def write(self, key: str) -> None:
        await self._kv.put(key, PAYLOAD)

    def pace(self, case: str, clients: int, rate: float, seconds: float) -> dict[str, object]:
        call: Callable[[str], Awaitable[None]] = getattr(self, case)
        began = time.monotonic() + 0.01
        took: list[int] = []

        async def one(number: int) -> None:
            for turn in range(number, int(rate * seconds), clients):
                await asyncio.sleep(max(0.0, began + turn / rate - time.monotonic()))
                start = clock()
                await call(f"bench/{turn % KEYS}")
                took.append(clock() - start)

        self._loop.run_until_complete(self._all(one(number) for number in range(clients)))
        return {"ns": took}

    def rush(self, case: str, seconds: float) -> dict[str, object]:
        call: Callable[[str], Awaitable[None]] = getattr(self, case)
        end = time.monotonic() + seconds
        ops = 0

        async def one(number: int) -> None:
            nonlocal ops
            while time.monotonic() < end:
                await call(f"bench/{number % KEYS}")
                ops += 1

        began, cpu = time.monotonic(), time.process_time()
        self._loop.run_until_complete(self._all(one(number) for number in range(RUSHERS)))
        return {"ops": ops, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}

    def stream(self, case: str, mib: int) -> dict[str, object]:
        """Messages of half a MiB, four in flight."""

        async def one(number: int) -> None:
            for index in range(number, 2 * mib, 4):
                if case == "up":
                    await self._js.publish(f"large.{index}", BLOCK[: MIB // 2])
                else:
                    await self._js.get_last_msg("LARGE", f"large.{index}", direct=True)

        began, cpu = time.monotonic(), time.process_time()
        self._loop.run_until_complete(self._all(one(number) for number in range(4)))
        return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}

    async def _all(self, tasks: Iterable[Awaitable[None]]) -> None:
        await asyncio.gather(*tasks)


class Proxy(Threaded):
    """The shim's client, and for a rush a client that costs next to nothing, so that it waits for the proxy."""

    def __init__(self, path: str) -> None:
        from asya_contract.env import Mount, ShimEnv
        from asya_shim.remote import Remote

        self._path = path
        self._remote = Remote(Mount(), ShimEnv(socket_dir=os.path.dirname(path)))

    def read(self, key: str) -> None:
        self._remote.read(key.encode())

    def write(self, key: str) -> None:
        self._remote.write(key.encode(), PAYLOAD)

    def rush(self, case: str, seconds: float) -> dict[str, object]:
        import uvloop

        return uvloop.run(self._rush(case, seconds))

    async def _rush(self, case: str, seconds: float) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        began, cpu = time.monotonic(), time.process_time()
        clients = [Rusher(case, number, end) for number in range(RUSHERS)]
        for client in clients:
            await loop.create_unix_connection(lambda c=client: c, self._path)
        await asyncio.gather(*(client.done for client in clients))
        ops = sum(client.ops for client in clients)
        return {"ops": ops, "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}

    def up(self, mib: int) -> None:
        with self._connection() as link:
            link.sendall(_head("PUT", "large", mib * MIB))
            for _ in range(mib):
                link.sendall(BLOCK)
            answer = link.recv(65536)
            assert answer.startswith(b"HTTP/1.1 204 "), answer

    def down(self, mib: int) -> None:
        with self._connection() as link:
            link.sendall(_head("GET", "large"))
            buffer = bytearray(MIB)
            got = link.recv(65536)
            assert got.startswith(b"HTTP/1.1 200 "), got
            left = mib * MIB + got.index(b"\r\n\r\n") + 4 - len(got)
            while left:
                count = link.recv_into(buffer)
                assert count, "the answer ended early"
                left -= count

    def _connection(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(120)
        link.connect(self._path)
        return link

    def hot(self, clients: int, seconds: float) -> dict[str, object]:
        """Read and swap of one key by all; what became of each swap."""
        from asya_shim.errors import StateConflictError, StateUnavailableError

        end = time.monotonic() + seconds
        seen: Counter[str] = Counter()

        def one(_: int) -> None:
            while time.monotonic() < end:
                try:
                    found = self._remote.read(b"hot")
                except StateUnavailableError:
                    continue
                when = {"if_absent": True} if found is None else {"if_version": found.version}
                try:
                    self._remote.write(b"hot", PAYLOAD, **when)
                    seen["done"] += 1
                except (StateConflictError, FileExistsError):
                    seen["conflict"] += 1
                except StateUnavailableError:
                    seen["unknown"] += 1

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, range(clients)))
        return dict(seen)


class Rusher(asyncio.Protocol):
    """One connection that asks again as soon as it is answered, until `end`."""

    def __init__(self, case: str, number: int, end: float) -> None:
        self._case = case
        self._end = end
        self._key = f"bench/{number % KEYS}"
        self._loop = asyncio.get_running_loop()
        self._left = 0
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.ops = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._transport.write(
            _head("GET", self._key) if self._case == "read" else _head("PUT", self._key, SIZE) + PAYLOAD
        )

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            assert data.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 204 ")), data
            # The head comes whole: it is short, and written at once.
            self._left = data.index(b"\r\n\r\n") + 4 + (SIZE if self._case == "read" else 0) - len(data)
        if self._left:
            return
        self.ops += 1
        if self._loop.time() < self._end:
            self._ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the proxy closed the connection"))


def _head(method: str, key: str, length: int = 0) -> bytes:
    body = f"Content-Length: {length}\r\nIdempotency-Key: {os.urandom(16).hex()}\r\n" if method == "PUT" else ""
    return f"{method} /keys/{key} HTTP/1.1\r\nHost: bench\r\n{body}\r\n".encode()


SDKS: dict[str, Callable[[], Threaded | Nats]] = {"sqlite": Sqlite, "redis": Redis, "nats": Nats, "s3": S3, "gcs": Gcs}


def main() -> None:
    kind, backend, path = sys.argv[1:]
    contender = SDKS[backend]() if kind == "sdk" else Proxy(path)
    if kind != "swaps":  # where writes are conditional, there are no files of everybody's
        contender.prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(contender, command.pop("do"))(**command)
        print(json.dumps(answer), flush=True)
    if kind != "swaps":
        contender.close()


if __name__ == "__main__":
    main()
