"""What the four processes answer to a scrape, after a little work each."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from asya_operator.operate import Operator
from asya_operator.webhook import Addresses, Files, Server
from support.pods import SETTINGS
from support.ports import free_port

ROOT = Path(__file__).parents[2]


def exposed(directory: Path) -> list[str]:
    """The texts of proxy, runtime, operator and webhook."""
    return [_proxy(directory), _runtime(directory), *asyncio.run(_control(directory))]


def _get(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=20) as reply:
        return str(reply.read().decode())


@contextmanager
def _process(command: list[str], url: str, **options: Any) -> Iterator[None]:
    """A process that answers at `url`, ended by its own handle."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                _get(url)
                break
            except OSError:
                assert process.poll() is None, command
                assert time.monotonic() < deadline, command
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _environ(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STATE_", "ASYA_"))}
    return {**kept, **variables}


def _proxy(directory: Path) -> str:
    address = f"127.0.0.1:{free_port()}"
    variables = _environ(
        STATE_BACKEND="memory", STATE_BUCKET="b", STATE_SOCKET=f"{directory}/s.sock", STATE_HTTP_ADDR=address
    )
    with _process([sys.executable, "-m", "asya_proxy", "serve"], f"http://{address}/readyz", env=variables):
        subprocess.run(
            [sys.executable, "-m", "asya_proxy", "ls"], env=variables, check=True, capture_output=True, timeout=30
        )
        return _get(f"http://{address}/metrics")


def _runtime(directory: Path) -> str:
    (directory / "agent.py").write_text("def process(state):\n    return state\n")
    port = free_port()
    source = ROOT / "shim" / "src"
    variables = _environ(
        PYTHONPATH=str(source), ASYA_HANDLER="agent.process", ASYA_HTTP_HOST="127.0.0.1", ASYA_HTTP_PORT=str(port)
    )
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(source / "asya_runtime" / "run.py")]
    with _process(command, f"{address}/readyz", env=variables, cwd=directory):
        _get(f"{address}/", json.dumps(1).encode())
        return _get(f"{address}/metrics")


class _Listed:
    """An API server that has one actor."""

    async def list(self, _kind: str, _namespace: str | None) -> list[dict[str, Any]]:
        condition = {"type": "Degraded", "status": "True", "reason": "NameTaken"}
        metadata = {"namespace": "n", "name": "a", "resourceVersion": "1"}
        return [{"metadata": metadata, "status": {"conditions": [condition]}}]


async def _control(directory: Path) -> list[str]:
    kube: Any = _Listed()
    operator = Operator(kube, SETTINGS)
    await operator.compare()
    runner = web.AppRunner(operator.health_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    webhook = Server(SETTINGS, Files(directory / "tls.crt", directory / "tls.key"), Addresses("127.0.0.1", 0, 0))
    await webhook.start()
    texts = []
    try:
        async with ClientSession() as session:
            for port in (runner.addresses[0][1], webhook.addresses.health_port):
                async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
                    texts.append(await reply.text())
    finally:
        operator.queue.close()
        await webhook.stop(lame_duck=0)
        await runner.cleanup()
    return texts
