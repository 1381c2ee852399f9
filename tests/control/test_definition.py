"""Which resource definition is this project's: by its schema, whoever put it there and whatever its labels are."""

import copy

import pytest
import yaml

from asya_operator import definition
from support.definitions import foreign
from support.kube import CRD

OURS = yaml.safe_load(CRD.read_text())


def changed(change):
    body = copy.deepcopy(OURS)
    change(body["spec"], body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return body


TAKEN = {
    "ours": OURS,
    "without-labels": {**OURS, "metadata": {"name": definition.NAME}},
    "with-another-version-too": changed(
        lambda spec, _: spec["versions"].insert(0, {"name": "v1", "served": True, "storage": False})
    ),
    "with-a-field-more": changed(lambda _, schema: schema["properties"].update(later={"type": "string"})),
}
REFUSED = {
    "upstream": (foreign(), "spec.stateProxy is array there, and object here"),
    "labelled-as-ours": (
        {**foreign(), "metadata": OURS["metadata"]}, "spec.stateProxy is array there, and object here",
    ),
    "cluster-wide": (changed(lambda spec, _: spec.update(scope="Cluster")), "it is no namespaced AsyncActor"),
    "kind": (changed(lambda spec, _: spec["names"].update(kind="Actor")), "it is no namespaced AsyncActor"),
    "version": (
        changed(lambda spec, _: spec["versions"][0].update(name="v1")), "it serves v1 and no v1alpha1",
    ),
    "not-served": (
        changed(lambda spec, _: spec["versions"][0].update(served=False)), "it serves  and no v1alpha1",
    ),
    "no-handler": (
        changed(lambda _, schema: schema["properties"].pop("handler")),
        "spec.handler is absent there, and string here",
    ),
    "more-required": (
        changed(lambda _, schema: schema["required"].append("transport")), "it requires spec.transport",
    ),
    "no-status": (
        changed(lambda spec, _: spec["versions"][0]["subresources"].pop("status")), "it has no status subresource",
    ),
    "empty": ({}, "it is no namespaced AsyncActor"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_taken(name):
    definition.check(TAKEN[name])


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    body, why = REFUSED[name]
    with pytest.raises(definition.ForeignDefinition) as caught:
        definition.check(body)
    assert f"is not of this project ({why})" in str(caught.value)
