"""The command as a process: sockets that are stale or alive, signals, settings, ls and cat, check."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asya_contract.logs import ALWAYS, KEYS
from asya_proxy.health import Health, Readiness
from asya_proxy.metrics import Metrics
from asya_proxy.sockets import AddressRefused, MountSocket, SocketTaken, listen_on
from asya_proxy.stores.base import StoreConfig
from asya_proxy.stores.memory import MemoryStore
from support.ports import free_port
from support.wire_client import WireClient

COMMAND = [sys.executable, "-m", "asya_proxy"]


def environ(directory: Path, **variables: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("STATE_")},
        "STATE_BACKEND": "memory",
        "STATE_BUCKET": "b",
        "STATE_SOCKET": str(directory / "state.sock"),
        "STATE_HTTP_ADDR": "127.0.0.1:0",
        **variables,
    }


class Process:
    """`asya-state-proxy serve`, ended by its own handle."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.socket = variables.get("STATE_SOCKET", str(directory / "state.sock"))
        self._log = (directory / f"log-{os.urandom(4).hex()}").open("w+b")
        self.child = subprocess.Popen(
            [*COMMAND, "serve"], env=environ(directory, **variables), stderr=self._log, stdout=self._log
        )

    def log(self) -> list[dict[str, object]]:
        self._log.seek(0)
        return [json.loads(line) for line in self._log.read().splitlines() if line.startswith(b"{")]

    async def until(self, message: str) -> dict[str, object]:
        """The log line with `message`, once it is there."""
        async with asyncio.timeout(20):
            while True:
                for line in self.log():
                    assert set(ALWAYS) <= set(line) <= set(KEYS)
                    if line["message"] == message:
                        return line
                assert self.child.poll() is None, self.log()
                await asyncio.sleep(0.02)

    async def status(self) -> int:
        return await asyncio.to_thread(self.child.wait, 20)

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        self._log.close()


@pytest.fixture
async def process(directory: Path) -> AsyncIterator[Process]:
    process = Process(directory)
    await process.until("mount ready")
    yield process
    process.end()


def run(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environ(directory, **variables),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=30,
        check=False,
    )


async def test_the_socket_is_anybodys_and_the_port_answers(process: Process) -> None:
    assert stat.S_IMODE(os.stat(process.socket).st_mode) == 0o666
    listening = await process.until("listening")
    host, _, port = str(listening["http"]).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/keys/", 404)):
        client = WireClient(reader, writer)
        assert (await client.ask("GET", path)).status == status
    writer.close()


SLOW_IMPORT = """
import os, sys, time
while not os.path.exists({gate!r}):
    time.sleep(0.01)
sys.path.remove({directory!r})
del sys.modules["uvloop"]
import uvloop
"""


async def test_a_probe_waits_for_the_process(directory: Path) -> None:
    port = free_port()
    late = directory / "late"
    late.mkdir()
    gate = directory / "gate"
    (late / "uvloop.py").write_text(SLOW_IMPORT.format(gate=str(gate), directory=str(late)))
    process = Process(directory, STATE_HTTP_ADDR=f"127.0.0.1:{port}", PYTHONPATH=str(late))
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
            probe = asyncio.create_task(WireClient(reader, writer).ask("GET", "/readyz"))
            done, _ = await asyncio.wait({probe}, timeout=0.3)
            assert not done
            gate.touch()
            assert (await probe).status == 200
        writer.close()
    finally:
        process.end()


async def test_a_probe_waits_for_the_first_connection(start) -> None:  # type: ignore[no-untyped-def]
    store = MemoryStore(StoreConfig("b", "", {}))
    connected = asyncio.Event()
    store.connect = connected.wait  # type: ignore[assignment,method-assign]
    proxy = await start(store, ready=False)
    probe = asyncio.create_task((await proxy.client()).ask("GET", "/readyz"))
    # Answered after it, on another connection.
    assert (await (await proxy.client()).ask("GET", "/healthz")).status == 200
    assert not probe.done()
    connected.set()
    assert (await probe).status == 200


async def test_probes_wait_for_all_mounts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asya_proxy.health.FIRST_PATIENCE", 0.2)
    metrics = Metrics()
    health = Health(metrics)
    health.mounts = [Readiness(name, metrics.mount(name), time.monotonic) for name in "abcdefghij"]
    async with asyncio.timeout(1.5):  # one after the other they take 2 s
        answer = await health("/readyz")
    assert answer.status == 503
    assert set(json.loads(answer.data or b"")["not_ready"]) == set("abcdefghij")


async def test_a_port_that_is_taken(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = await asyncio.to_thread(run, directory, "serve", STATE_HTTP_ADDR=address)
    assert done.returncode == 1
    assert f"STATE_HTTP_ADDR='{address}': Address already in use; give it another port" in done.stderr


@pytest.mark.parametrize(
    ("host", "why"), [("192.0.2.7", "Cannot assign requested address"), ("a..b", "no name of a host")]
)
async def test_a_host_that_is_none(directory: Path, host: str, why: str) -> None:
    done = await asyncio.to_thread(run, directory, "serve", STATE_HTTP_ADDR=f"{host}:9464")
    assert done.returncode == 1
    assert f"STATE_HTTP_ADDR='{host}:9464': {why}; give it another host, or none (:9464)" in done.stderr


def test_a_host_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(AddressRefused, match=r"^Name or service not known; give it another host, or none"):
        listen_on(("nowhere.invalid", 9464))


@pytest.mark.parametrize("number", [errno.EADDRINUSE, errno.EACCES])
def test_a_port_that_is_refused(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError(number, "in the words of the library")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(AddressRefused, match=f"^{os.strerror(number)}; give it another port$"):
        listen_on(("127.0.0.1", 80))


@pytest.mark.parametrize(
    ("answers", "listens"), [(["::1"], "::1"), (["127.0.0.1"], "127.0.0.1"), (["::1", "127.0.0.1"], "127.0.0.1")]
)
def test_a_name_of_either_family(monkeypatch: pytest.MonkeyPatch, answers: list[str], listens: str) -> None:
    resolve = socket.getaddrinfo

    def answer(host: str, *given: object, **named: object) -> list[object]:
        return [one for address in answers for one in resolve(address, *given, **named)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with listen_on(("ip6-localhost", 0)) as listening:
        assert listening.getsockname()[0] == listens


def test_no_host_is_every_address() -> None:
    with listen_on(("", 0)) as listening:
        port = listening.getsockname()[1]
        for host in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
            socket.create_connection((host, port)).close()


async def test_sigterm_finishes_what_is_in_work_and_exits_with_0(process: Process) -> None:
    client, idle = await WireClient.connect(process.socket), await WireClient.connect(process.socket)
    await client.send(b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc")
    await idle.get("f")
    process.child.send_signal(signal.SIGTERM)
    assert await idle.rest() == b""
    with pytest.raises(OSError):  # noqa: PT011
        await asyncio.wait_for(_refused(process.socket), 10)
    await client.send(b"def")
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (204, "close")
    assert await process.status() == 0
    assert not Path(process.socket).exists()
    assert process.log()[-1]["message"] == "drained"
    await client.close()
    await idle.close()


async def _refused(path: str) -> None:
    while True:
        await (await WireClient.connect(path)).close()
        await asyncio.sleep(0.01)


async def test_the_drain_has_an_end(directory: Path) -> None:
    process = Process(directory, STATE_DRAIN_TIMEOUT="100ms")
    await process.until("mount ready")
    client = await WireClient.connect(process.socket)
    await client.send(b"PUT /keys/f HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabc")
    other = await WireClient.connect(process.socket)
    await other.get("f")
    process.child.send_signal(signal.SIGINT)
    assert await process.status() == 0
    assert "requests were cut at the end of STATE_DRAIN_TIMEOUT" in [line["message"] for line in process.log()]
    await client.close()
    await other.close()
    process.end()


async def test_a_second_proxy_does_not_steal_the_socket_and_a_third_replaces_a_dead_ones(
    process: Process, directory: Path
) -> None:
    second = Process(directory)
    assert await second.status() == 1
    assert f"a proxy already serves {process.socket}" in str(second.log()[-1]["cause"])
    second.end()
    client = await WireClient.connect(process.socket)
    assert (await client.put("f", b"still here")).status == 204
    await client.close()
    process.child.kill()
    await process.status()
    assert Path(process.socket).exists()
    third = Process(directory)
    await third.until("mount ready")
    client = await WireClient.connect(process.socket)
    assert (await client.get("f")).status == 404
    await client.close()
    third.end()


def test_a_socket_without_our_lock_is_respected_while_it_lives(directory: Path) -> None:
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(path)
        foreign.listen()
        with pytest.raises(SocketTaken, match="already serves"):
            MountSocket(path)
    MountSocket(path).close()
    assert not Path(path).exists()
    Path(path).write_text("a file")
    with pytest.raises(SocketTaken, match="is no socket"):
        MountSocket(path)


def test_a_lock_is_left_when_the_socket_closes(directory: Path) -> None:
    path = str(directory / "deep" / "s")
    first = MountSocket(path)
    with pytest.raises(SocketTaken):
        MountSocket(path)
    first.close()
    MountSocket(path).close()


async def test_several_mounts(directory: Path) -> None:
    mounts = [{"name": "shared", "consistency": "cas"}]
    process = Process(directory, STATE_MOUNTS=json.dumps(mounts))
    for _ in range(2):
        await process.until("mount ready")
    one, other = await WireClient.connect(process.socket), await WireClient.connect(str(directory / "shared.sock"))
    async with asyncio.timeout(10):
        while (await other.ask("GET", "/readyz")).status != 200:
            await asyncio.sleep(0.01)
    assert (await one.put("f", b"one")).status == 204
    assert (await other.put("f", b"other")).error == "precondition_required"
    assert (await other.get("f")).status == 404
    await one.close()
    await other.close()
    process.end()


def test_bad_settings_exit_with_2_and_say_which(directory: Path) -> None:
    done = run(directory, "serve", STATE_CONSISTENCY="strong")
    assert done.returncode == 2
    assert "STATE_CONSISTENCY='strong': expected one of lww, cas" in done.stderr
    assert "Traceback" not in done.stderr


async def test_ls_and_cat_ask_the_socket(process: Process, directory: Path) -> None:
    client = await WireClient.connect(process.socket)
    await client.put("d/%FF", b"content")
    await client.put("e/")
    await client.close()
    listed = subprocess.run([*COMMAND, "ls"], env=environ(directory), capture_output=True, timeout=30, check=True)
    assert listed.stdout.split(b"\n")[:2] == [b"           7  d/\xff", b"           -  e/"]
    shown = subprocess.run(
        [*COMMAND, "cat", b"/d/\xff"], env=environ(directory), capture_output=True, timeout=30, check=True
    )
    assert shown.stdout == b"content"
    assert run(directory, "ls", "/state/d/").stdout == run(directory, "ls", "d").stdout
    assert run(directory, "ls", "/state").stdout.count("\n") == 2
    assert run(directory, "ls", "d").stdout.count("\n") == 1
    missing = run(directory, "cat", "nothing")
    assert (missing.returncode, "no such file" in missing.stderr) == (1, True)
    assert "no such directory" in run(directory, "ls", "nothing").stderr


def test_version() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "asya-state-proxy 0.1.0\n"


def test_ls_without_a_proxy_says_so(directory: Path) -> None:
    done = run(directory, "ls")
    assert (done.returncode, "no proxy answers on" in done.stderr) == (1, True)


def test_check(directory: Path) -> None:
    done = run(directory, "check", "--races", STATE_CONSISTENCY="cas")
    assert (done.returncode, done.stdout) == (0, "state (memory, cas): ok: promises and races tested\n")
    bad = run(directory, "check", STATE_BACKEND="sqlite", SQLITE_DIR="/proc/nowhere")
    assert bad.returncode == 1
    assert "FAILED" in bad.stdout
