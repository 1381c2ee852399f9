"""`env` of a manifest on a laptop: values as Kubernetes makes them, references from the local environment."""

import pytest

from asya_cli.errors import Missing
from asya_cli.podenv import resolve_env, unread_sources
from asya_operator.api.model import EnvFrom, EnvVar


def entries(*bodies):
    return [EnvVar.model_validate(body) for body in bodies]


def secret(name, optional=None):
    ref = {"name": "llm", "key": "token"} | ({} if optional is None else {"optional": optional})
    return {"name": name, "valueFrom": {"secretKeyRef": ref}}


def test_plain_values_and_references_to_earlier_ones():
    env = entries(
        {"name": "HOST", "value": "db"},
        {"name": "URL", "value": "http://$(HOST):$(PORT)/$$(HOST)"},
        {"name": "PORT", "value": "1"},
        {"name": "EMPTY"},
    )
    # Only what stands before is known, as the API reference says; `$$` is an escaped dollar.
    assert resolve_env(env, {"PORT": "9"}, {}) == {
        "HOST": "db",
        "URL": "http://db:$(PORT)/$(HOST)",
        "PORT": "1",
        "EMPTY": "",
    }


def test_a_secret_comes_from_the_local_variable_of_that_name():
    assert resolve_env(entries(secret("OPENAI_API_KEY")), {"OPENAI_API_KEY": "k"}, {}) == {"OPENAI_API_KEY": "k"}


def test_missing_variables_are_all_named_with_their_origin():
    config = {"name": "MODEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "model"}}}
    with pytest.raises(Missing) as caught:
        resolve_env(entries(secret("OPENAI_API_KEY"), config), {}, {})
    message = caught.value.message
    assert "OPENAI_API_KEY (in a cluster: key token of Secret llm)" in message
    assert "MODEL (in a cluster: key model of ConfigMap settings)" in message
    assert message.endswith("export OPENAI_API_KEY=... MODEL=...")
    assert caught.value.exit_code == 3


def test_an_optional_one_may_be_missing():
    assert resolve_env(entries(secret("A", optional=True)), {}, {}) == {}
    with pytest.raises(Missing):
        resolve_env(entries(secret("A", optional=False)), {}, {})


def test_fields_of_the_pod():
    pod = {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert resolve_env(entries(pod), {"POD": "local"}, {"metadata.name": "chat-1"}) == {"POD": "chat-1"}
    assert resolve_env(entries(pod), {"POD": "local"}, {}) == {"POD": "local"}
    with pytest.raises(Missing, match=r"field metadata\.name"):
        resolve_env(entries(pod), {}, {})


def test_unread_sources_are_named():
    sources = [{"secretRef": {"name": "a"}}, {"configMapRef": {"name": "b"}}]
    assert unread_sources([EnvFrom.model_validate(s) for s in sources]) == ["Secret a", "ConfigMap b"]
