"""A resource definition of this project's name that another project made."""

from typing import Any


def foreign() -> dict[str, Any]:
    """As a claim of Asya's own Crossplane definition: the same group, kind and version, another API."""
    text, many = {"type": "string"}, {"type": "array", "items": {"type": "object", "properties": {}}}
    schema = {
        "type": "object",
        "required": ["actor", "image", "handler"],
        "properties": {"actor": text, "image": text, "handler": text, "stateProxy": many},
    }
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": schema, "status": {"type": "object"}}}},
    }
    version["schema"]["openAPIV3Schema"]["properties"]["status"]["x-kubernetes-preserve-unknown-fields"] = True
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "asyncactors.asya.sh", "labels": {"app.kubernetes.io/part-of": "asya"}},
        "spec": {
            "group": "asya.sh",
            "scope": "Namespaced",
            "names": {
                "kind": "AsyncActor",
                "plural": "asyncactors",
                "singular": "asyncactor",
                "listKind": "AsyncActorList",
            },
            "versions": [version],
        },
    }
