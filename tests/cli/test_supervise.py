"""Processes of a replica: order of start and end, restarts, reports, and nothing left behind.

The processes are small programs with a `/readyz` of their own, so that no proxy and no handler is needed.
"""

import asyncio
import io
import os
import signal
import sys
from pathlib import Path

import pytest

from asya_cli.child import Process, describe_exit
from asya_cli.console import Console
from asya_cli.errors import CliError
from asya_cli.probe import Endpoint, is_ready
from asya_cli.supervise import MAX_DEATHS, supervise

SERVER = """
import http.server, os, signal, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def address_string(self):
        return "x"
    def log_message(self, *args):
        pass
class Server(socketserver.UnixStreamServer):
    pass
def told(*_):
    print("told to end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
path = sys.argv[1]
if os.path.exists(path):
    os.unlink(path)
print("serving", flush=True)
Server(path, Handler).serve_forever()
"""
DEADLINE = 60


class Watched(Console):
    """A console whose lines can be waited for."""

    def __init__(self):
        super().__init__(stream=io.StringIO())
        self.lines = []
        self._news = asyncio.Event()

    def line(self, name, text, *, alarm=False):
        self.lines.append((name, text))
        self._news.set()

    async def until(self, wanted, count=1):
        async with asyncio.timeout(DEADLINE):
            while True:
                found = [line for line in self.lines if wanted in line[1]]
                if len(found) >= count:
                    return found[count - 1]
                self._news.clear()
                await self._news.wait()

    def pids(self):
        return [int(text.rpartition(" ")[2]) for _, text in self.lines if text.startswith("started, pid")]


def process(tmp_path, name, program=SERVER, **options):
    socket = str(tmp_path / f"{name}.sock")
    argv = (sys.executable, "-c", program, socket)
    return Process(name, argv, dict(os.environ), str(tmp_path), Endpoint(socket=socket), **options)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Run:
    """`supervise` in a task, told to stop by SIGTERM as from outside."""

    def __init__(self, *replicas):
        self.console = Watched()
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(supervise(replicas, self.console, self.ready.set))

    async def until_ready(self):
        waiting = asyncio.create_task(self.ready.wait())
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([waiting, self.task], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.task.done():
            self.task.result()

    async def stop(self):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            await self.task


async def test_start_in_order_and_end_in_the_opposite_one(tmp_path):
    run = Run([process(tmp_path, "proxy"), process(tmp_path, "runtime")])
    await run.until_ready()
    await run.stop()
    said = [line for line in run.console.lines if line[1] in ("serving", "told to end")]
    assert said == [
        ("proxy", "serving"),
        ("runtime", "serving"),
        ("runtime", "told to end"),
        ("proxy", "told to end"),
    ]
    assert all(gone(pid) for pid in run.console.pids())


async def test_a_killed_process_is_reported_and_started_again(tmp_path):
    run = Run([process(tmp_path, "proxy")])
    await run.until_ready()
    os.kill(run.console.pids()[0], signal.SIGKILL)
    name, text = await run.console.until("starting it again")
    assert name == "proxy"
    assert "killed by SIGKILL" in text
    assert text.endswith("\n    serving")
    await run.console.until("ready again")
    assert len(run.console.pids()) == 2
    await run.stop()


async def test_what_ends_before_it_is_ready_ends_the_run_with_its_last_lines(tmp_path):
    run = Run([process(tmp_path, "proxy"), process(tmp_path, "runtime", "raise SystemExit('no such handler')")])
    with pytest.raises(CliError) as caught:
        await run.until_ready()
    message = caught.value.message
    assert "runtime ended before it was ready (exit code 1)" in message
    assert "no such handler" in message
    assert all(gone(pid) for pid in run.console.pids())


async def test_a_program_that_is_not_there(tmp_path):
    missing = Process("runtime", ("/nowhere/python",), {}, str(tmp_path), Endpoint(socket="x"))
    run = Run([missing])
    with pytest.raises(CliError, match="/nowhere/python cannot be started"):
        await run.until_ready()


async def test_what_never_becomes_ready_ends_the_run(tmp_path):
    argv = ("/bin/sh", "-c", "echo the store is away; exec sleep 1000")
    slow = Process("proxy", argv, dict(os.environ), str(tmp_path), Endpoint(socket="x"), start_timeout=1.0)
    run = Run([slow])
    with pytest.raises(CliError, match=r"proxy was not ready after 1 s\n    the store is away"):
        await run.until_ready()
    assert all(gone(pid) for pid in run.console.pids())


async def test_what_dies_too_often_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("asya_cli.supervise._BACKOFF", 0.0)
    run = Run([process(tmp_path, "proxy")])
    await run.until_ready()
    for death in range(MAX_DEATHS + 1):
        os.kill(run.console.pids()[-1], signal.SIGKILL)
        if death < MAX_DEATHS:
            await run.console.until("ready again", death + 1)
    with pytest.raises(CliError, match=f"ended {MAX_DEATHS + 1} times"):
        async with asyncio.timeout(DEADLINE):
            await run.task


async def test_what_does_not_end_is_killed_with_its_children(tmp_path):
    stubborn = SERVER.replace("sys.exit(0)", "return").replace(
        'print("serving"', "import subprocess; child = subprocess.Popen(['sleep', '1000']); print('child', child.pid"
    )
    run = Run([process(tmp_path, "proxy", stubborn, stop_timeout=0.3)])
    await run.until_ready()
    _, line = await run.console.until("child ")
    await run.stop()
    assert ("proxy", "still there after 0.3 s: killed") in run.console.lines
    pid = int(line.split()[1])
    async with asyncio.timeout(DEADLINE):
        # Its parent is dead, so that init collects it in its own time; a zombie counts as ended.
        while not gone(pid) and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            await asyncio.sleep(0.01)


async def test_asked_twice_it_hurries(tmp_path):
    stubborn = SERVER.replace("sys.exit(0)", "return")
    run = Run([process(tmp_path, "proxy", stubborn, stop_timeout=DEADLINE)])
    await run.until_ready()
    os.kill(os.getpid(), signal.SIGTERM)
    await run.console.until("told to end")
    await run.stop()
    assert ("proxy", "asked twice: killed") in run.console.lines


async def test_long_and_odd_output_is_passed_on_bounded(tmp_path):
    noisy = SERVER.replace(
        'print("serving", flush=True)',
        "sys.stdout.buffer.write(b'a' * 200000 + b'\\n\\xff\\r\\n\\nlast\\n'); sys.stdout.flush()",
    )
    run = Run([process(tmp_path, "proxy", noisy)])
    await run.until_ready()
    await run.console.until("last")
    await run.stop()
    texts = [text for name, text in run.console.lines if name == "proxy" and not text.startswith(("started", "told"))]
    assert "".join(texts[:-3]) == "a" * 200000
    assert max(map(len, texts)) <= 2 * 64 * 2**10
    assert texts[-3:] == ["\ufffd", "", "last"]


async def test_probe_of_nothing_is_no():
    assert not await is_ready(Endpoint(socket="/nowhere/x.sock"))


async def test_probe_of_silence_is_no_in_time(tmp_path):
    socket = str(tmp_path / "s")
    left = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    async with await asyncio.start_unix_server(silent, socket):
        assert not await is_ready(Endpoint(socket=socket), timeout=0.05)
        await asyncio.wait_for(left.wait(), DEADLINE)


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (74, "exit code 74"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_exits_in_words(code, words):
    assert describe_exit(code) == words


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_standard_output_nothing_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    console = Console()
    console.say("hello")
    assert console.gone is None


def test_names_are_coloured_on_a_terminal_only(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        console = Console(18, stream)
        console.line("chat-agent/proxy", "hello")
        console.line("chat-agent/runtime", "")
    assert pipe.getvalue() == "chat-agent/proxy   | hello\nchat-agent/runtime |\n"
    assert terminal.getvalue().startswith("\x1b[36mchat-agent/proxy   |\x1b[0m hello\n\x1b[32m")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Console(4, plain).say("hello")
    assert plain.getvalue() == "asya | hello\n"
