"""`asya-operator`: run, webhook, render, inject. Here files are read and printed; everything else is elsewhere."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from asya_contract import __version__
from asya_operator import render
from asya_operator.api import ManifestError, load_manifest, warnings
from asya_operator.inject import Refused
from asya_operator.settings import Settings, parse_settings

CONFIG_VARIABLE = "ASYA_OPERATOR_CONFIG"
USAGE_ERROR = 2


def _settings(path: str | None) -> Settings:
    """Settings from a file; without one, those of an installation with this release's image and no more."""
    if not path:
        return Settings.model_validate({"proxyImage": f"asya-state-proxy:{__version__}"})
    return parse_settings(Path(path).read_text(encoding="utf-8"), path)


def _read(name: str) -> str:
    return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="asya-operator", description="The control plane of Asya actors.")
    parser.add_argument("--version", action="version", version=f"asya-operator {__version__}")
    parser.add_argument(
        "--config",
        default=os.environ.get(CONFIG_VARIABLE),
        metavar="FILE",
        help=f"the installation's settings, JSON (default: ${CONFIG_VARIABLE})",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="reconcile AsyncActors until SIGTERM")
    webhook = commands.add_parser("webhook", help="answer admission reviews until SIGTERM")
    webhook.add_argument("--tls-cert", required=True, metavar="FILE", help="certificate chain, PEM; reloaded on change")
    webhook.add_argument("--tls-key", required=True, metavar="FILE", help="its private key, PEM")
    webhook.add_argument("--host", default="0.0.0.0", help="address to listen on (default: %(default)s)")
    webhook.add_argument("--port", type=int, default=9443, help="port of the reviews (default: %(default)s)")
    webhook.add_argument(
        "--health-port", type=int, default=8080, help="port of health and metrics (default: %(default)s)"
    )
    show = commands.add_parser("render", help="print what the operator would make of an actor")
    show.add_argument("-f", "--file", required=True, metavar="FILE", help="manifests of actors; - is standard input")
    show.add_argument(
        "--as", dest="form", choices=("deployment", "job"), default="deployment", help="the form (default: %(default)s)"
    )
    show.add_argument("-n", "--namespace", help="the namespace, where the manifest has none")
    show.add_argument("arguments", nargs="*", metavar="ARG", help="with --as job: the program, as `-- seed.py --all`")
    inject = commands.add_parser("inject", help="print what the webhook would make of pods and pod templates")
    inject.add_argument("-f", "--file", required=True, metavar="FILE", help="manifests; - is standard input")
    inject.add_argument("-n", "--namespace", default="default", help="the namespace, where the manifest has none")
    return parser


def _render(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.form == "job" and not arguments.arguments:
        print("asya-operator: render --as job: give the program after --, as in `-- seed.py`", file=sys.stderr)
        return USAGE_ERROR
    if arguments.form != "job" and arguments.arguments:
        print(f"asya-operator: render: {arguments.arguments[0]!r} is for --as job only", file=sys.stderr)
        return USAGE_ERROR
    documents = []
    for actor in load_manifest(_read(arguments.file), arguments.file):
        if arguments.namespace and actor.metadata.namespace is None:
            placed = actor.metadata.model_copy(update={"namespace": arguments.namespace})
            actor = actor.model_copy(update={"metadata": placed})
        for warning in warnings(actor):
            print(f"warning: {actor.name}: {warning}", file=sys.stderr)
        if arguments.form == "job":
            documents.append(render.job(actor, settings, arguments.arguments))
        else:
            documents.extend(render.manifests(actor, settings))
    print(render.to_yaml(documents), end="")
    return 0


def _inject(arguments: argparse.Namespace, settings: Settings) -> int:
    try:
        bodies = [body for body in yaml.safe_load_all(_read(arguments.file)) if body is not None]
    except yaml.YAMLError as error:
        print(f"asya-operator: {arguments.file}: {error}", file=sys.stderr)
        return 1
    documents = []
    for body in bodies:
        if not isinstance(body, dict):
            print(f"asya-operator: {arguments.file}: expected Kubernetes objects", file=sys.stderr)
            return 1
        documents.append(render.injected(body, arguments.namespace, settings))
    print(render.to_yaml(documents), end="")
    return 0


def _webhook(arguments: argparse.Namespace, settings: Settings) -> int:
    from asya_operator import logs
    from asya_operator.webhook import Addresses, Files, serve

    logs.set_up(settings.log_level)
    files = Files(Path(arguments.tls_cert), Path(arguments.tls_key))
    asyncio.run(serve(settings, files, Addresses(arguments.host, arguments.port, arguments.health_port)))
    return 0


def _run(_: argparse.Namespace, settings: Settings) -> int:
    from asya_operator import logs
    from asya_operator.operate import operate

    logs.set_up(settings.log_level)
    return operate(settings)


_COMMANDS = {"run": _run, "webhook": _webhook, "render": _render, "inject": _inject}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 where something was refused, 2 for a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments, _settings(arguments.config))
    except (ManifestError, Refused) as error:
        print(f"asya-operator: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"asya-operator: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
