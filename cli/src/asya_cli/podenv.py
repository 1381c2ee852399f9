"""`env` of a manifest, with the values a pod would get: references answered by the local environment.

Rules: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from asya_cli.errors import Missing
from asya_operator.api.model import EnvFrom, EnvSource, EnvVar

_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")


def resolve_env(entries: Iterable[EnvVar], environ: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Names and values of `entries`, in order.

    A reference to a Secret, a ConfigMap or a resource takes the local variable of the entry's own name; a fieldRef
    is answered from `fields` (`metadata.name` and the like), else by that variable too.

    Raises:
        Missing: one or more of those variables are not set; the message names them all.
    """
    values: dict[str, str] = {}
    missing: list[str] = []
    for entry in entries:
        if entry.value_from is None:
            values[entry.name] = _expand(entry.value or "", values)
            continue
        field = entry.value_from.field_ref
        if field is not None and field.field_path in fields:
            values[entry.name] = fields[field.field_path]
        elif entry.name in environ:
            values[entry.name] = environ[entry.name]
        elif not _optional(entry.value_from):
            missing.append(f"{entry.name} (in a cluster: {_origin(entry.value_from)})")
    if missing:
        names = [line.split(" ", 1)[0] for line in missing]
        exports = " ".join(f"{name}=..." for name in names)
        raise Missing(
            f"set in this shell what the manifest takes from elsewhere: {', '.join(missing)}: export {exports}"
        )
    return values


def unread_sources(entries: Iterable[EnvFrom]) -> list[str]:
    """What `envFrom` names: a Secret's keys are not known here, so that nothing can be asked for."""
    named = [("Secret", entry.secret_ref) for entry in entries] + [("ConfigMap", e.config_map_ref) for e in entries]
    return [f"{kind} {reference.name}" for kind, reference in named if reference is not None]


def _expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` of an earlier entry; `$$` is a dollar sign; an unknown name stays as it is."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else values.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def _optional(source: EnvSource) -> bool:
    reference = source.secret_key_ref or source.config_map_key_ref
    return reference is not None and bool(reference.optional)


def _origin(source: EnvSource) -> str:
    if source.secret_key_ref is not None:
        return f"key {source.secret_key_ref.key} of Secret {source.secret_key_ref.name}"
    if source.config_map_key_ref is not None:
        return f"key {source.config_map_key_ref.key} of ConfigMap {source.config_map_key_ref.name}"
    if source.resource_field_ref is not None:
        return f"resource {source.resource_field_ref.resource}"
    return f"field {source.field_ref.field_path}" if source.field_ref is not None else "an empty valueFrom"
