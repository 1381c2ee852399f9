"""The policy files name exactly what the stores ask of their backends."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

POLICIES = Path(__file__).parents[2] / "docs" / "policies"


def test_s3_actions_and_places() -> None:
    objects, bucket = json.loads((POLICIES / "s3-namespace.json").read_text())["Statement"]
    assert set(objects["Action"]) == {
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload",
    }
    assert objects["Resource"] == "arn:aws:s3:::BUCKET/NAMESPACE/*"
    assert (bucket["Action"], bucket["Resource"]) == ("s3:ListBucket", "arn:aws:s3:::BUCKET")
    assert bucket["Condition"] == {"StringLike": {"s3:prefix": "NAMESPACE/*"}}


def test_gcs_role_and_condition() -> None:
    role = yaml.safe_load((POLICIES / "gcs-role.yaml").read_text())
    assert role["includedPermissions"] == [f"storage.objects.{verb}" for verb in ("create", "delete", "get", "list")]
    (binding,) = json.loads((POLICIES / "gcs-namespace.json").read_text())["bindings"]
    expression = binding["condition"]["expression"]
    assert "startsWith('projects/_/buckets/BUCKET/objects/NAMESPACE/')" in expression
    assert "objectListPrefix', '').startsWith('NAMESPACE/')" in expression


OBJECTS = "projects/_/buckets/BUCKET/objects/"
BUCKET = ("projects/_/buckets/BUCKET", "storage.googleapis.com/Bucket")
OBJECT = "storage.googleapis.com/Object"


@pytest.mark.parametrize(
    ("name", "kind", "listed", "allowed"),
    [
        (f"{OBJECTS}NAMESPACE/actor/f", OBJECT, "", True),
        (f"{OBJECTS}other/actor/f", OBJECT, "", False),
        (f"{OBJECTS}NAMESPACE-too/actor/f", OBJECT, "", False),
        (f"{OBJECTS}other/NAMESPACE/f", OBJECT, "NAMESPACE/", False),
        ("projects/_/buckets/BUCKET2/objects/NAMESPACE/actor/f", OBJECT, "", False),
        (*BUCKET, "NAMESPACE/actor/", True),
        (*BUCKET, "other/actor/", False),
        (*BUCKET, "NAMESPACE", False),
        (*BUCKET, "", False),
    ],
)
def test_the_condition_of_gcs_means_the_namespace(name: str, kind: str, listed: str, allowed: bool) -> None:
    """No emulator enforces it. It is CEL, of which it uses what Python has under other names."""
    (binding,) = json.loads((POLICIES / "gcs-namespace.json").read_text())["bindings"]
    text = (
        binding["condition"]["expression"].replace("||", "or").replace("&&", "and").replace("startsWith", "startswith")
    )
    attributes = {"storage.googleapis.com/objectListPrefix": listed} if listed else {}
    known = {
        "resource": SimpleNamespace(name=name, type=kind),
        "api": SimpleNamespace(getAttribute=lambda key, default: attributes.get(key, default)),
        "__builtins__": {},
    }
    assert eval(text, known) is allowed


def test_every_file_is_explained() -> None:
    text = (POLICIES / "README.md").read_text()
    for path in POLICIES.iterdir():
        assert path.name == "README.md" or f"]({path.name})" in text
