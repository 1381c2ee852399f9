"""`--backend`: each form becomes STATE_BACKEND, a bucket and the variables of that SDK; the rest is refused by name."""

import os

import pytest

from asya_cli.backends import parse_backend
from asya_cli.errors import Refused


@pytest.mark.parametrize(
    ("text", "kind", "bucket", "variables"),
    [
        ("sqlite:///srv/state", "sqlite", "state", {"SQLITE_DIR": "/srv/state"}),
        ("sqlite:///srv/my%20state/", "sqlite", "state", {"SQLITE_DIR": "/srv/my state"}),
        ("memory:", "memory", "memory", {}),
        ("redis://localhost:6379/2", "redis", "", {"REDIS_URL": "redis://localhost:6379/2"}),
        ("redis://h?bucket=chat&ssl_cert_reqs=none", "redis", "chat", {"REDIS_URL": "redis://h?ssl_cert_reqs=none"}),
        ("rediss://u:p@h:1/", "redis", "", {"REDIS_URL": "rediss://u:p@h:1/"}),
        ("nats://h:4222?bucket=kv", "nats", "kv", {"NATS_URL": "nats://h:4222"}),
        ("tls://h", "nats", "", {"NATS_URL": "tls://h"}),
        ("s3://b", "s3", "b", {}),
        (
            "s3://b?endpoint=http://127.0.0.1:9000&region=eu-west-1",
            "s3",
            "b",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_REGION": "eu-west-1"},
        ),
        ("gcs://b?endpoint=http://127.0.0.1:1", "gcs", "b", {"STORAGE_EMULATOR_HOST": "http://127.0.0.1:1"}),
        ("gs://b", "gcs", "b", {}),
    ],
)
def test_forms(text, kind, bucket, variables):
    backend = parse_backend(text, "unused")
    assert (backend.kind, backend.bucket, dict(backend.variables)) == (kind, bucket, variables)


def test_sqlite_lies_in_the_state_directory_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_backend("sqlite", "./x").variables == {"SQLITE_DIR": os.path.join(tmp_path, "x")}


def test_manifest_leaves_the_choice_to_the_manifest():
    assert parse_backend("manifest", "x") is None


@pytest.mark.parametrize("text", ["", "s3", "S4://b", "postgres://h", "redis", "file:///x", "/srv/state"])
def test_anything_else_is_refused_with_the_choices(text):
    with pytest.raises(Refused, match="expected sqlite, manifest, ") as caught:
        parse_backend(text, "x")
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sqlite://relative/x", "absolute directory"),
        ("sqlite:", "absolute directory"),
        ("redis://", "the host is missing"),
        ("redis://h:port", "[Pp]ort"),
        ("nats:///x", "the host is missing"),
        ("s3://", "expected s3://BUCKET without a path"),
        ("s3://b/path", "expected s3://BUCKET without a path"),
        ("s3://b?endpont=x", "'endpont' is none of the options endpoint, region"),
        ("gcs://b?region=x", "'region' is none of the options endpoint"),
    ],
)
def test_a_slip_inside_a_form_is_named(text, reason):
    with pytest.raises(Refused, match=reason):
        parse_backend(text, "x")


def test_a_password_is_not_shown():
    assert parse_backend("redis://user:secret@h:1/0", "x").words == "redis://h:1/0"
