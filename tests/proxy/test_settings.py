"""From the environment to settings, and what each mistake is told."""

from __future__ import annotations

import json

import pytest

from asya_contract.env import EnvError
from asya_proxy.settings import load

LEAST = {"STATE_BACKEND": "memory", "STATE_BUCKET": "b", "STATE_SOCKET": "/run/state.sock"}


def test_the_least() -> None:
    settings = load(LEAST)
    (mount,) = settings.mounts
    assert (mount.name, mount.backend, mount.consistency, mount.cas) == ("state", "memory", "lww", False)
    assert settings.address == ("", 9464)
    assert mount.store_config().write_window >= 2 * (5 + 30)


def test_no_address() -> None:
    assert load({**LEAST, "STATE_HTTP_ADDR": "off"}).address is None
    assert load({**LEAST, "STATE_HTTP_ADDR": "[::1]:0"}).address == ("::1", 0)


@pytest.mark.parametrize(
    "names", [("bucket", "read_only", "consistency"), ("STATE_BUCKET", "STATE_READ_ONLY", "STATE_CONSISTENCY")]
)
def test_further_mounts(names: tuple[str, str, str]) -> None:
    further = {"name": "shared", names[0]: "other", names[1]: True, names[2]: "cas", "AWS_REGION": "eu-north-1"}
    first, second = load({**LEAST, "STATE_MOUNTS": json.dumps([further]), "AWS_REGION": "eu-west-1"}).mounts
    assert (first.env.bucket, first.read_only, first.environ["AWS_REGION"]) == ("b", False, "eu-west-1")
    assert (second.name, second.socket, second.env.bucket) == ("shared", "/run/shared.sock", "other")
    assert (second.read_only, second.cas, second.environ["AWS_REGION"]) == (True, True, "eu-north-1")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"STATE_BACKEND": "s4"}, "STATE_BACKEND='s4'.*s3, gcs"),
        ({"STATE_BUCKET": ""}, "STATE_BUCKET is not set"),
        ({"STATE_CONSISTANCY": "cas"}, "did you mean STATE_CONSISTENCY"),
        ({"STATE_PREFIX": "a/b"}, "ends with a slash"),
        ({"STATE_SOCKET": "state.sock"}, "absolute path"),
        ({"STATE_SOCKET": "/" + "x" * 110}, "at most 106 bytes"),
        ({"STATE_HTTP_ADDR": "9464"}, "expected host:port"),
        ({"STATE_HTTP_ADDR": ":99999"}, "expected host:port"),
        ({"STATE_REQUEST_TIMEOUT": "soon"}, "a duration such as 30s"),
        ({"STATE_MOUNTS": "{}"}, "expected a JSON list"),
        ({"STATE_MOUNTS": "[{}]"}, r"STATE_MOUNTS\[0\]: expected an object with a name"),
        ({"STATE_MOUNTS": '[{"name": "state"}]'}, "two mounts have the name 'state'"),
        ({"STATE_MOUNTS": '[{"name": "a", "socket": "/run/state.sock"}]'}, "two mounts have the socket"),
        ({"STATE_MOUNTS": '[{"name": "a", "colour": 1}]'}, "'colour' is unknown"),
        ({"STATE_MOUNTS": '[{"name": "a", "http_addr": ":1"}]'}, "the process's, not a mount's"),
        ({"STATE_MOUNTS": '[{"name": "a", "backend": "s4"}]'}, r"STATE_MOUNTS\[0\]: STATE_BACKEND='s4'"),
    ],
)
def test_mistakes_are_named(variables: dict[str, str], said: str) -> None:
    with pytest.raises(EnvError, match=said):
        load({**LEAST, **variables})
