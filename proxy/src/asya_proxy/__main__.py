"""`asya-state-proxy`: serve, install, check, purge, ls, cat. Everything else comes from the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where something was refused, 2 for bad settings."""
    arguments = _parser().parse_args(argv)
    command: str = arguments.command
    if command == "install":
        return _install(Path(arguments.directory))
    if command in ("ls", "cat"):
        return _look(command, os.fsencode(arguments.path))
    if command == "serve" and arguments.install is not None and _install(Path(arguments.install)) != 0:
        return 1
    return _with_settings(command, races=command == "check" and arguments.races)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asya-state-proxy", description="The state proxy of Asya actors.")
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
        look.add_argument("path", metavar="PATH", nargs="?" if name == "ls" else None, default="")
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
    from asya_contract.names import DEFAULT_MOUNT, SOCKET_DIR
    from asya_proxy.client import Client, ClientError

    client = Client(os.environ.get("STATE_SOCKET") or f"{SOCKET_DIR}/{DEFAULT_MOUNT}.sock")
    path = path.strip(b"/")
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


def _with_settings(command: str, *, races: bool) -> int:
    from asya_contract.env import EnvError
    from asya_proxy import logs, settings

    try:
        loaded = settings.load(os.environ)
    except EnvError as error:
        _complain(str(error))
        return USAGE_ERROR
    logs.set_up(loaded.env.log_level)
    import uvloop

    if command == "check":
        from asya_proxy.check import check

        return uvloop.run(check(loaded, races=races))
    if command == "purge":
        from asya_proxy.purge import purge

        return uvloop.run(purge(loaded))
    from asya_proxy.server import serve

    return uvloop.run(serve(loaded))


def _complain(message: str) -> int:
    print(f"asya-state-proxy: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
