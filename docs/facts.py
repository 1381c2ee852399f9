"""What there is to document, read from the code that does it. Nothing here is written a second time.

Each function gives one table: fields of the resource, variables, metrics, errors, commands, chart values, reasons.
`generate` makes pages of them, and `tests/house/test_docs.py` compares hand-written pages with them.
"""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import click
import yaml
from prometheus_client import CollectorRegistry

from asya_cli.__main__ import main as asya
from asya_contract import tracing, wire
from asya_contract.env import ProxyEnv, RuntimeEnv, ShimEnv, Var, variables
from asya_operator import __main__ as operator_command
from asya_operator import conditions, deletion, reconcile, refusals, reports
from asya_operator.operate import Metrics as OperatorMetrics
from asya_operator.webhook import Metrics as WebhookMetrics
from asya_operator.work import WorkQueue
from asya_proxy import __main__ as proxy_command
from asya_proxy.metrics import Metrics as ProxyMetrics
from asya_proxy.routes import Routes
from asya_runtime import admission, service
from asya_runtime.metrics import METRICS as RUNTIME_METRICS

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Field:
    """A field of the resource: its path from `spec` or `status`, what it may hold, what it means."""

    path: str
    kind: str
    required: bool
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Metric:
    """A metric as Prometheus sees it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Argument:
    """An argument or option of a command, as it is typed."""

    usage: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Command:
    """A command with all words that call it."""

    words: str
    meaning: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Value:
    """A value of the chart."""

    path: str
    default: str
    meaning: str


# The resource.


def resource() -> Mapping[str, Any]:
    """The one version of the AsyncActor resource definition."""
    (version,) = yaml.safe_load((ROOT / "crds" / "asyncactors.yaml").read_text())["spec"]["versions"]
    found: Mapping[str, Any] = version
    return found


def schema() -> Mapping[str, Any]:
    """Its schema."""
    found: Mapping[str, Any] = resource()["schema"]["openAPIV3Schema"]
    return found


def fields(node: Mapping[str, Any], path: str) -> Iterator[Field]:
    """The fields at and below `node`, in the order of the definition."""
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        if not path and name in ("apiVersion", "kind", "metadata"):
            continue
        here = f"{path}.{name}" if path else name
        yield _field(here, child, name in required)
        items = child.get("items", {})
        below, inner = (f"{here}[]", items) if items.get("properties") else (here, child)
        yield from fields(inner, below)


def _field(path: str, node: Mapping[str, Any], required: bool) -> Field:
    meaning = " ".join(node.get("description", "").split())
    return Field(path, _kind(node), required, _default(node), _allowed(node), meaning)


def _kind(node: Mapping[str, Any]) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "quantity"
    if node.get("type") == "array":
        return f"list of {_kind(node['items'])}"
    if isinstance(node.get("additionalProperties"), dict):
        return f"map of {_kind(node['additionalProperties'])}"
    return str(node.get("type", "any"))


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _allowed(node: Mapping[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    for least, most, what in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ):
        if most in node:
            return f"{node[least]} to {node[most]}{what}" if least in node else f"at most {node[most]}{what}"
    return f"at least {node['minimum']}" if "minimum" in node else ""


def rules(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """What depends on each other: the path that a rule stands at, and what it says to who breaks it."""
    for rule in node.get("x-kubernetes-validations", ()):
        yield path + rule.get("fieldPath", ""), " ".join(rule["message"].split())
    for name, child in node.get("properties", {}).items():
        yield from rules(child, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from rules(node["items"], f"{path}[]")


# Variables.


def environments() -> dict[str, list[tuple[Var, Any]]]:
    """By who reads them: each variable, and its default (None where it must be set)."""
    return {cls.__name__: _variables(cls) for cls in (ProxyEnv, RuntimeEnv, ShimEnv)}


def _variables(cls: Any) -> list[tuple[Var, Any]]:
    return [(spec, getattr(cls, field, None)) for field, spec in variables(cls).items()]


# Metrics.


def metrics() -> dict[str, list[Metric]]:
    """By component, in the order in which they are defined."""
    proxy = ProxyMetrics()
    proxy.mount("state")
    return {
        "proxy": [
            _metric(family.name, family.type, family._labelnames, family.documentation) for family in proxy.collect()
        ],
        "operator": _registered(OperatorMetrics(WorkQueue()).registry),
        "webhook": _registered(WebhookMetrics().registry),
        "runtime": [Metric(m.name, m.kind, m.labels, m.meaning) for m in RUNTIME_METRICS],
    }


def _registered(registry: CollectorRegistry) -> list[Metric]:
    out = []
    for collector in registry._collector_to_names:
        labels = getattr(collector, "_labelnames", ())
        out += [_metric(family.name, family.type, labels, family.documentation) for family in collector.collect()]
    return out


def _metric(name: str, kind: str, labels: Any, meaning: str) -> Metric:
    return Metric(f"{name}_total" if kind == "counter" else name, kind, tuple(labels), meaning)


# The wire.


def headers() -> list[str]:
    """The headers that the wire gives a meaning of its own."""
    return [*(value for name, value in vars(wire).items() if name.startswith("H_")), tracing.HEADER]


def routes() -> list[tuple[str, str, str]]:
    """Every request that the proxy knows: what its path points at, its method, its name in metrics."""
    mount: Any = SimpleNamespace(max_object_size=0, consistency="", backend="", actor="", name="")
    nothing: Any = None
    table = Routes(mount, nothing, nothing, nothing, nothing)._routes
    return [(place.name, method, op) for place, methods in table.items() for method, (op, _) in methods.items()]


def runtime_errors() -> list[str]:
    """Codes in the bodies of the runtime's errors."""
    found: set[str] = set()
    for module in (service, admission):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                arguments = {
                    "_error": node.args[1:2],
                    "_failed": node.args[1:2],
                    "error_body": node.args[:1],
                    "Unavailable": node.args[:1],
                }
                found |= {text for argument in arguments.get(name, ()) for text in _texts(argument)}
    # `Unavailable(self.state, ...)`
    return sorted(found | {"draining"})


# Commands.


def commands() -> dict[str, list[Command]]:
    """By program, all that can be typed."""
    return {
        "asya": list(_click_commands(asya, "asya")),
        "asya-state-proxy": list(_argparse_commands(proxy_command._parser(), "asya-state-proxy")),
        "asya-operator": list(_argparse_commands(_operator_parser(), "asya-operator")),
    }


def _operator_parser() -> argparse.ArgumentParser:
    """With the default of `--config` that there is where nobody has set its variable."""
    with mock.patch.dict(os.environ):
        os.environ.pop(operator_command.CONFIG_VARIABLE, None)
        return operator_command._parser()


def _click_commands(command: click.Command, words: str) -> Iterator[Command]:
    arguments = tuple(_click_argument(parameter) for parameter in command.params)
    yield Command(words, " ".join((command.help or "").split()), arguments)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _click_commands(below, f"{words} {name}")


def _click_argument(parameter: click.Parameter) -> Argument:
    if isinstance(parameter, click.Option):
        value = "" if parameter.is_flag else f" {parameter.metavar or _click_kind(parameter)}"
        default = str(parameter.default) if parameter.show_default and not parameter.is_flag else ""
        return Argument(", ".join(parameter.opts) + value, default, parameter.help or "")
    name = (parameter.name or "").upper()
    return Argument(name if parameter.required else f"[{name}]", "", "")


def _click_kind(parameter: click.Option) -> str:
    kind = parameter.type
    if isinstance(kind, click.IntRange):
        return f"{kind.min} to {kind.max}"
    return kind.name.upper()


def _argparse_commands(parser: argparse.ArgumentParser, words: str, meaning: str = "") -> Iterator[Command]:
    arguments, below = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            below += [(name, child, texts.get(name, "")) for name, child in action.choices.items()]
        elif not isinstance(action, argparse._HelpAction):
            arguments.append(_argparse_argument(action))
    yield Command(words, meaning or parser.description or "", tuple(arguments))
    for name, child, text in below:
        yield from _argparse_commands(child, f"{words} {name}", text)


def _argparse_argument(action: argparse.Action) -> Argument:
    choices = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper()
    value = str(action.metavar or choices)
    if not action.option_strings:
        usage = {"?": f"[{value}]", "*": f"[{value} ...]"}.get(str(action.nargs), value)
    elif action.nargs == 0:
        usage = ", ".join(action.option_strings)
    else:
        usage = f"{', '.join(action.option_strings)} {value}"
    text = (action.help or "").replace(" (default: %(default)s)", "")
    default = "" if action.default in (None, False, "", argparse.SUPPRESS) else str(action.default)
    return Argument(usage, default, text)


# The chart.

_COMMENT = "# -- "
# Fields of Kubernetes' own, which say themselves what they are.
KUBERNETES = {
    "podLabels": "Labels of the pods besides the chart's own.",
    "podAnnotations": "Annotations of the pods.",
    "nodeSelector": "As in a pod.",
    "tolerations": "As in a pod.",
    "affinity": "As in a pod.",
    "resources": "Requests and limits of the container.",
    "podDisruptionBudget.enabled": "Whether there is one.",
}


def chart_values() -> list[Value]:
    """Every value of the chart: path, default as in values.yaml, the comment above it."""
    text = (ROOT / "chart" / "values.yaml").read_text()
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return list(_values(node, text.splitlines(), ""))


def _values(node: yaml.MappingNode, lines: list[str], path: str) -> Iterator[Value]:
    for key, value in node.value:
        here = f"{path}.{key.value}" if path else key.value
        comment = _comment_above(lines, key.start_mark.line)
        if comment is None and isinstance(value, yaml.MappingNode) and value.value:
            yield from _values(value, lines, here)
            continue
        meaning = comment or _known(here)
        plain = yaml.safe_load(yaml.serialize(value))
        yield Value(here, _plain(plain), meaning)


def _known(path: str) -> str:
    return next((text for name, text in KUBERNETES.items() if path.endswith(f".{name}")), "")


def _comment_above(lines: list[str], line: int) -> str | None:
    """The comment that begins with `# -- ` and ends above `line`, in one line; None where there is none."""
    block: list[str] = []
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        block.insert(0, lines[line].strip())
        if block[0].startswith(_COMMENT):
            text = " ".join([block[0][len(_COMMENT) :], *(part.lstrip("# ") for part in block[1:])])
            return text.removeprefix("(string) ").removeprefix("(object) ").removeprefix("(object)").strip()
    return None


def _plain(value: Any) -> str:
    """A value in one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).split("\n...")[0].strip()


# Reasons.


def reasons() -> dict[str, set[str]]:
    """Every reason that a condition or an Event of an actor can carry: `condition`, `event` or both."""
    found: dict[str, set[str]] = {}
    for module in (conditions, deletion, reconcile, refusals, reports):
        for reason, where in _reasons_in(ast.parse(Path(str(module.__file__)).read_text())):
            found.setdefault(reason, set()).add(where)
    tables = {reason for _, reason in conditions._LAST_WORDS} | set(conditions._NEXT)
    for reason in tables | {reason for _, reason, _ in refusals.REFUSALS}:
        found.setdefault(reason, set()).add("condition")
    return found


# The position of the reason in a call, and what the call makes.
_CALLS = {
    "Condition": (2, "condition"),
    "Trouble": (0, "condition"),
    "Fault": (0, "condition"),
    "explain": (1, "condition"),
    "_release": (2, "event"),
    "event": (2, "event"),
}


def _reasons_in(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            position, where = _CALLS.get(name, (0, ""))
            if where and len(node.args) > position:
                yield from ((text, where) for text in _texts(node.args[position]))
        elif isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "reason" for t in node.targets):
            yield from ((text, "condition") for text in _texts(node.value))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "reason":
                    yield from ((text, "condition") for text in _texts(value))


def _texts(node: ast.expr) -> list[str]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str) and p.value]
