"""The command line of `asya`: options and their words. What a command does is in the module of its name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import asya_contract
from asya_cli.backends import DEFAULT_STATE_DIR
from asya_cli.errors import EXIT_CODES
from asya_cli.places import Question
from asya_cli.state import show_content, show_list
from asya_contract.names import DEFAULT_MOUNT

_BACKEND_HELP = (
    "sqlite; manifest (the manifest's own, credentials from this environment); or a URL: sqlite:///DIR, redis://HOST, "
    "nats://HOST, s3://BUCKET?endpoint=URL, gcs://BUCKET, memory:"
)


_SETTINGS = {"help_option_names": ["-h", "--help"]}
"""Of each command and not of the first alone: click keeps a command's help option as its first context had it."""


@click.group(epilog=EXIT_CODES, context_settings=_SETTINGS)
@click.version_option(asya_contract.__version__, prog_name="asya")
def main() -> None:
    """Run an actor on this machine, look into its state, start one of your own."""
    # What a store warns of concerns its proxies; errors are ours to pass on.
    logging.basicConfig(level=logging.ERROR, format="%(message)s")


@main.command("run", epilog=EXIT_CODES, context_settings=_SETTINGS)
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--actor", metavar="NAME", help="Which actor, where the manifest holds several.")
@click.option("--backend", default="sqlite", show_default=True, metavar="BACKEND", help=_BACKEND_HELP)
@click.option(
    "--state",
    "state_dir",
    default=DEFAULT_STATE_DIR,
    show_default=True,
    metavar="DIR",
    help="Directory of the SQLite state.",
)
@click.option(
    "--replicas", type=click.IntRange(1, 64), default=1, show_default=True, help="How many, each with its own proxy."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the first one, the others follow [spec.port].")
def run_command(
    manifest: Path, actor: str | None, backend: str, state_dir: str, replicas: int, port: int | None
) -> None:
    """Run the actor of MANIFEST until Ctrl-C.

    Each replica is a state proxy and a runtime with the environment of a pod. The handler runs in the manifest's
    directory, in the Python that runs asya (or spec.pythonExecutable, where that path exists). What the manifest
    takes from Secrets and ConfigMaps is read from variables of the same name.
    """
    from asya_cli.run import run  # here, because `asya state` does without what it imports

    run(manifest, actor, backend, state_dir, replicas, port)


@main.command(
    "init", epilog=EXIT_CODES, context_settings=_SETTINGS, short_help="Write the files of an actor of your own."
)
@click.argument("name")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Where to write. [default: ./NAME]")
def init_command(name: str, directory: Path | None) -> None:
    """Write manifest, handler and Dockerfile of an actor NAME of your own. Files that are there are never replaced."""
    from asya_cli.init import write_actor

    paths = write_actor(name, directory if directory is not None else Path(name))
    for path in paths:
        click.echo(f"wrote {path}")
    click.echo(f"run it with: asya run {paths[0]}")


@main.group("state", epilog=EXIT_CODES, context_settings=_SETTINGS, short_help="Look into the state of an actor.")
def state_group() -> None:
    """Look into the state of an actor, whether it runs or not. Nothing is changed."""


_Command = Callable[..., None]


def _state_options(command: _Command) -> _Command:
    """The options that `asya state` commands share."""
    for option in reversed(
        (
            click.option("--manifest", type=click.Path(dir_okay=False, path_type=Path), help="Manifest of the actor."),
            click.option("--actor", metavar="NAME", help="Which actor; not needed where a state directory has one."),
            click.option(
                "--namespace", default="default", show_default=True, help="Without a manifest: its namespace."
            ),
            click.option("--mount", default=DEFAULT_MOUNT, show_default=True, help="Which mount of the actor."),
            click.option("--backend", default="sqlite", show_default=True, metavar="BACKEND", help=_BACKEND_HELP),
            click.option(
                "--state",
                "state_dir",
                default=DEFAULT_STATE_DIR,
                show_default=True,
                metavar="DIR",
                help="Directory of the SQLite state.",
            ),
            click.option("--json", "as_json", is_flag=True, help="JSON, with the version of each file."),
        )
    ):
        command = option(command)
    return command


@state_group.command("ls", epilog=EXIT_CODES, context_settings=_SETTINGS, short_help="List state files.")
@click.argument("path", default="")
@_state_options
def ls_command(path: str, as_json: bool, **options: Any) -> None:
    """List the state files below PATH: bytes, last write (UTC), name."""
    asyncio.run(show_list(Question(**options), path, as_json=as_json))


@state_group.command("cat", epilog=EXIT_CODES, context_settings=_SETTINGS, short_help="Print a state file.")
@click.argument("path")
@_state_options
def cat_command(path: str, as_json: bool, **options: Any) -> None:
    """Print the state file PATH, such as history.json or /state/history.json."""
    asyncio.run(show_content(Question(**options), path, as_json=as_json))


if __name__ == "__main__":
    main(prog_name="asya")
