"""The CRD and the model are twins: same fields, types, enums, defaults, bounds and patterns."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from asya_operator.api import AsyncActor
from asya_operator.api.rules import OWNED_ENV, RESERVED_PATHS, SECRET_ENV, SETTABLE_PROXY_ENV

CRD = yaml.safe_load((Path(__file__).resolve().parents[2] / "crds" / "asyncactors.yaml").read_text())
VERSION = CRD["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
MODEL = AsyncActor.model_json_schema(by_alias=True)
BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "pattern", "maxItems", "maxProperties", "enum", "default")


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A node of the model's JSON schema without $ref, `| None` and title."""
    if "$ref" in schema:
        named = MODEL["$defs"][schema["$ref"].rpartition("/")[2]]
        return plain({**named, **{k: v for k, v in schema.items() if k != "$ref"}})
    if "anyOf" in schema:
        rest = [option for option in schema["anyOf"] if option != {"type": "null"}]
        default = {"default": schema["default"]} if schema.get("default") is not None else {}
        if len(rest) == 1:
            return plain({**rest[0], **default})
        merged = {k: v for option in rest for k, v in plain(option).items() if k != "type"}
        return {"x-kubernetes-int-or-string": True, **merged, **default}
    return schema


def pairs(crd: dict[str, Any], model: dict[str, Any], path: str):
    """Every (path, node in the CRD, node in the model), down to where podTemplate is free."""
    model = plain(model)
    yield path, crd, model
    if path.endswith(".podTemplate"):
        return
    for name in sorted(crd.get("properties", {}).keys() | model.get("properties", {}).keys()):
        here = f"{path}.{name}"
        assert name in crd.get("properties", {}), f"{here} is not in the CRD"
        assert name in model.get("properties", {}), f"{here} is not in the model"
        yield from pairs(crd["properties"][name], model["properties"][name], here)
    if "items" in crd:
        yield from pairs(crd["items"], model["items"], path + "[]")
    if "additionalProperties" in crd:
        yield from pairs(crd["additionalProperties"], model["additionalProperties"], path + ".*")


PAIRS = {
    path: (crd, model) for path, crd, model in pairs(SCHEMA["properties"]["spec"], MODEL["properties"]["spec"], "spec")
}


@pytest.mark.parametrize("path", PAIRS)
def test_field(path):
    crd, model = PAIRS[path]
    if crd.get("x-kubernetes-int-or-string"):
        assert model["x-kubernetes-int-or-string"]
    else:
        assert crd["type"] == model["type"]
    assert sorted(crd.get("required", [])) == sorted(model.get("required", []))
    ours = {key: model[key] for key in BOUNDS if model.get(key) is not None}
    if path == "spec.service":
        assert crd["default"] == {}
        ours["default"] = {}
    theirs = {key: crd[key] for key in BOUNDS if key in crd}
    if path == "spec.resources.requests" or path.endswith(("requests", "limits")):
        assert theirs.pop("maxProperties") == ours.pop("maxProperties")
    assert theirs == ours


def nodes(schema: dict[str, Any], path: str):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            yield from nodes(schema[key], path + suffix)


ALL = dict(nodes(SCHEMA, ""))


def test_every_field_is_described():
    free = ("", ".metadata", ".podTemplate.metadata.labels.*", ".podTemplate.metadata.annotations.*")
    bare = [
        path
        for path, node in ALL.items()
        if not node.get("description") and not path.endswith(free[1:])
        and not node.get("x-kubernetes-preserve-unknown-fields")
        and not path.endswith((".command[]", ".args[]"))
    ]  # fmt: skip
    assert bare == []


def test_every_list_and_text_of_the_spec_is_bounded():
    unbounded = [
        path
        for path, node in ALL.items()
        if path.startswith(".spec") and ".podTemplate" not in path
        and ((node.get("type") == "array" and "maxItems" not in node)
             or (node.get("type") == "string" and "maxLength" not in node and "enum" not in node))
    ]  # fmt: skip
    assert unbounded == []


def rules_at(path: str) -> str:
    return "\n".join(rule["rule"] for rule in ALL[path].get("x-kubernetes-validations", []))


def test_the_rules_name_what_the_model_names():
    for name in OWNED_ENV:
        assert f"'{name}'" in rules_at(".spec.env[]")
    for name in (*SETTABLE_PROXY_ENV, *SECRET_ENV):
        assert f"'{name}'" in rules_at(".spec.stateProxy.env[]")
    for reserved in RESERVED_PATHS:
        assert f"'{reserved}'" in rules_at(".spec.stateProxy.mountPath")
        assert f"'{reserved}'" in rules_at(".spec.stateProxy.mounts[].mountPath")
    assert all(
        rule in rules_at(".spec.stateProxy.mounts[]")
        for rule in rules_at(".spec.stateProxy").split("\n")
        if "bucket" in rule
    )


def test_subresources_and_columns():
    assert VERSION["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    assert set(VERSION["subresources"]) == {"status", "scale"}
    assert [column["name"] for column in VERSION["additionalPrinterColumns"] if not column.get("priority")] == [
        "Ready", "Reason", "Replicas", "Backend", "Consistency", "Age",
    ]  # fmt: skip
    assert ALL[".status.conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert CRD["spec"]["names"]["shortNames"] == ["aa", "asya"]
