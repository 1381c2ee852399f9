"""The command line of `asya`: options and their words. What a command does is in the module of its name."""

from __future__ import annotations

from pathlib import Path

import click

import asya_contract
from asya_cli.backends import DEFAULT_STATE_DIR
from asya_cli.errors import EXIT_CODES
from asya_cli.run import run

_BACKEND_HELP = (
    "sqlite; manifest (the manifest's own, credentials from this environment); or a URL: sqlite:///DIR, redis://HOST, "
    "nats://HOST, s3://BUCKET?endpoint=URL, gcs://BUCKET, memory:"
)


@click.group(epilog=EXIT_CODES)
@click.version_option(asya_contract.__version__, prog_name="asya")
def main() -> None:
    """Run an actor on this machine, look into its state, start one of your own."""


@main.command("run", epilog=EXIT_CODES)
@click.argument("manifest", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--actor", metavar="NAME", help="Which actor, where the manifest holds several.")
@click.option("--backend", default="sqlite", show_default=True, metavar="BACKEND", help=_BACKEND_HELP)
@click.option(
    "--state", "state_dir", default=DEFAULT_STATE_DIR, show_default=True, help="Directory of the SQLite state."
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
    run(manifest, actor, backend, state_dir, replicas, port)


if __name__ == "__main__":
    main(prog_name="asya")
