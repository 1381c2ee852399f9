"""`asya-state-proxy`: serve, install, check, purge, ls, cat. Everything else comes from the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asya_contract import __version__

if TYPE_CHECKING:
    from asya_proxy.settings import Settings

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where something was refused, 2 for bad settings."""
    arguments = _parser().parse_args(argv)
    command: str = arguments.command
    if command == "install":
        return _install(Path(arguments.directory))
    if command in ("ls", "cat"):
        return _look(command, os.fsencode(arguments.path))
    if command == "serve":
        return _serve(None if arguments.install is None else Path(arguments.install))
    return _with_settings(command, races=command == "check" and arguments.races)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asya-state-proxy", description="The state proxy of Asya actors.")
    parser.add_argument("--version", action="version", version=f"asya-state-proxy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the mounts that STATE_* variables describe")
    serve.add_argument("--install", metavar="DIR", help="first do what `install DIR` does")
    install = commands.add_parser("install", help="write run.py and lib/ for the handler's container")
    install.add_argument("directory", metavar="DIR")
    check = commands.add_parser("check", help="test whether the backend keeps its promises")
    check.add_argument("--races", action="store_true", help="also let many writers race")
    commands.add_parser("purge", help="delete all state below the prefix of each mount that is not read-only")
    for name, text in (("ls", "list state files, through the socket"), ("cat", "print a state file")):
        look = commands.add_parser(name, help=text)
        words = "such as history.json or /state/history.json"
        look.add_argument("path", metavar="PATH", nargs="?" if name == "ls" else None, default="", help=words)
    return parser


def _install(directory: Path) -> int:
    from asya_proxy.install import InstallError, install

    try:
        written, equal = install(directory)
    except InstallError as error:
        return _complain(str(error))
    print(f"{directory}: {written} files written, {equal} unchanged")
    return 0


def _look(command: str, path: bytes) -> int:
    from asya_contract.names import DEFAULT_MOUNT, DEFAULT_MOUNT_PATH, SOCKET_DIR
    from asya_proxy.client import Client, ClientError

    client = Client(os.environ.get("STATE_SOCKET") or f"{SOCKET_DIR}/{DEFAULT_MOUNT}.sock")
    path = (path + b"/").removeprefix(f"{DEFAULT_MOUNT_PATH}/".encode()).strip(b"/")
    out = sys.stdout.buffer
    try:
        if command == "cat":
            for piece in client.content(path):
                out.write(piece)
        else:
            size = client.size(path) if path else None
            names = client.names(path + b"/" if path else b"") if size is None else [(path, size)]
            for name, found in names:
                out.write(f"{'-' if found is None else found:>12}  ".encode() + name + b"\n")
        out.flush()
    except ClientError as error:
        return _complain(str(error))
    except BrokenPipeError:
        sys.stderr.close()
    return 0


def _settings() -> Settings | None:
    """None where they are bad, which was said."""
    from asya_contract.env import EnvError
    from asya_proxy import logs, settings

    try:
        loaded = settings.load(os.environ)
    except EnvError as error:
        _complain(str(error))
        return None
    logs.set_up(loaded.env.log_level)
    return loaded


def _serve(directory: Path | None) -> int:
    loaded = _settings()
    if loaded is None:
        return USAGE_ERROR
    port = None
    if loaded.address is not None:
        from asya_proxy.sockets import AddressRefused, listen_on

        try:
            # Before the slow imports: a probe that comes meanwhile waits, where a refused one would cost a period.
            port = listen_on(loaded.address)
        except AddressRefused as error:
            from asya_proxy.server import say_why

            say_why(f"STATE_HTTP_ADDR={loaded.env.http_addr!r}: {error}")
            return 1
    if directory is not None and _install(directory) != 0:
        return 1
    import uvloop

    from asya_proxy.server import serve

    return uvloop.run(serve(loaded, port))


def _with_settings(command: str, *, races: bool) -> int:
    loaded = _settings()
    if loaded is None:
        return USAGE_ERROR
    import uvloop

    if command == "check":
        from asya_proxy.check import check

        return uvloop.run(check(loaded, races=races))
    from asya_proxy.purge import purge

    return uvloop.run(purge(loaded))


def _complain(message: str) -> int:
    print(f"asya-state-proxy: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
