"""Whether the cluster's resource definition `asyncactors.asya.sh` is the API that this operator speaks; pure.

Another project may define that name too, and a cluster has room for one. Labels prove nothing (they survive an
overwriting apply, and a repository of manifests may drop them): what counts is the schema.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from asya_contract.names import GROUP, KIND, PLURAL, VERSION
from asya_operator.api import Spec

NAME = f"{PLURAL}.{GROUP}"
# What no API but this one has in these places: path below `spec` -> type.
_SHAPE = {
    ("image",): "string",
    ("handler",): "string",
    ("stateProxy",): "object",
    ("stateProxy", "backend"): "string",
    ("stateProxy", "bucket"): "string",
    ("stateProxy", "mountPath"): "string",
}


class ForeignDefinition(Exception):
    """The definition is somebody else's; the text says what differs and what to do."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the cluster's resource definition {NAME} is not of this project ({why}), and two cannot share one name; "
            "its objects are left alone. Remove the other project from the cluster, or use another cluster"
        )


def check(definition: Mapping[str, Any]) -> None:
    """Pass for a definition of this API, of an older or newer release too.

    Raises:
        ForeignDefinition: with the first difference.
    """
    why = next(_differences(definition.get("spec") or {}), None)
    if why is not None:
        raise ForeignDefinition(why)


def _differences(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("scope") != "Namespaced" or (spec.get("names") or {}).get("kind") != KIND:
        yield f"it is no namespaced {KIND}"
    versions = spec.get("versions") or []
    ours = next((v for v in versions if v.get("name") == VERSION and v.get("served")), None)
    if ours is None:
        yield f"it serves {', '.join(str(v.get('name')) for v in versions if v.get('served'))} and no {VERSION}"
        return
    schema = _below((ours.get("schema") or {}).get("openAPIV3Schema") or {}, "spec")
    for path, kind in _SHAPE.items():
        found: Mapping[str, Any] = schema
        for name in path:
            found = _below(found, name)
        if found.get("type") != kind:
            yield f"spec.{'.'.join(path)} is {found.get('type', 'absent')} there, and {kind} here"
    known = {field.alias for field in Spec.model_fields.values()}
    for name in schema.get("required") or []:
        if name not in known:
            yield f"it requires spec.{name}"
    if "status" not in (ours.get("subresources") or {}):
        yield "it has no status subresource"


def _below(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (schema.get("properties") or {}).get(name) or {}
    return found
