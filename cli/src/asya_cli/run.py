"""`asya run`: an actor on this machine, with the processes and the environment of a pod."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

from asya_cli.backends import parse_backend
from asya_cli.console import OWN_NAME, Console
from asya_cli.errors import Missing, Refused
from asya_cli.manifest import read_actor
from asya_cli.plan import LOOPBACK, Place, Plan, plan
from asya_cli.supervise import supervise
from asya_proxy.install import InstallError, install

# sun_path of unix(7) holds 107 bytes and a NUL; mount names have at most 32.
_LONGEST_SOCKET_DIR = 60
_EXAMPLE = json.dumps({"prompt": "Hello"})


def run(manifest: Path, name: str | None, backend: str, state_dir: str, replicas: int, port: int | None) -> None:
    """Run the actor of `manifest` until Ctrl-C or SIGTERM.

    Raises:
        CliError: as `errors` lists them.
    """
    if sys.platform != "linux":
        raise Missing(
            f"asya run needs Linux (here is {sys.platform}): the handler's files are Linux memory files. "
            "Run it in a Linux container, a virtual machine or WSL 2"
        )
    actor = read_actor(manifest, name)
    chosen = parse_backend(backend, state_dir)
    if actor.spec.state_proxy is not None and chosen is not None and chosen.kind == "sqlite":
        _writable(chosen.variables["SQLITE_DIR"])
    first = actor.spec.port if port is None else port
    if first + replicas - 1 > 65535:
        raise Refused(f"--port {first} with {replicas} replicas: the last port would be above 65535")
    directory = _short_directory()
    try:
        places = _places(directory, replicas, first)
        todo = plan(actor, chosen, places, os.path.dirname(os.path.abspath(manifest)), os.environ)
        console = Console(max([len(OWN_NAME), *(len(p.name) for replica in todo.replicas for p in replica)]))
        for line in todo.warnings:
            console.say(f"warning: {line}", alarm=True)
        asyncio.run(supervise(todo.replicas, console, lambda: _ready(todo, console)))
        console.say("stopped")
    finally:
        shutil.rmtree(directory)


def _writable(directory: str) -> None:
    """Make the directory of the state, if it is not there.

    Raises:
        Missing: it cannot be written to.
    """
    try:
        os.makedirs(directory, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise Missing(f"the state cannot lie in {directory} ({error.strerror}): choose another --state DIR") from None


def _short_directory() -> str:
    """A directory of our own for sockets, with a path short enough for them."""
    directory = tempfile.mkdtemp(prefix="asya-")
    if len(os.fsencode(directory)) <= _LONGEST_SOCKET_DIR:
        return directory
    os.rmdir(directory)
    return tempfile.mkdtemp(prefix="asya-", dir="/tmp")


def _places(directory: str, replicas: int, first: int) -> list[Place]:
    places = []
    run_file = _installed(directory)
    for number in range(1, replicas + 1):
        sockets = f"{directory}/{number}"
        os.mkdir(sockets)
        port = first + number - 1
        _free(port)
        places.append(Place(number, port, _free(0), sockets, run_file))
    return places


def _installed(directory: str) -> str:
    """What `asya-install` puts into a pod, so that any Python can serve the handler; the path of `run.py`."""
    target = Path(directory, "opt")
    try:
        install(target)
    except InstallError as error:
        raise Missing(str(error)) from None
    return str(target / "run.py")


def _free(port: int) -> int:
    """`port`, or for 0 any one, that nothing listens on now.

    Raises:
        Missing: something does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Missing(f"port {port} cannot be had ({error.strerror}): choose another one with --port") from None
        found: int = probe.getsockname()[1]
        return found


def _ready(todo: Plan, console: Console) -> None:
    console.say(f"{todo.actor.name} is ready: {' '.join(todo.urls)}")
    for line in todo.state:
        console.say(line)
    console.say("try it in another terminal (Ctrl-C here stops the actor):")
    console.say(f"  curl -s {todo.urls[0]} -H 'content-type: application/json' -d '{_EXAMPLE}'")
