"""One model validates a manifest everywhere: what is right passes, what is wrong is told exactly."""

import json
import textwrap
from pathlib import Path

import pytest
import yaml

from asya_operator.api import ManifestError, load_manifest, parse_actor, warnings
from asya_operator.api.problems import render_path
from support.actors import BAD, BAD_FOR_THE_MODEL, GOOD, actor

ROOT = Path(__file__).resolve().parents[2]


def problems(text, source="actor.yaml"):
    with pytest.raises(ManifestError) as caught:
        load_manifest(textwrap.dedent(text), source)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", GOOD)
def test_right_manifests_pass(name):
    assert parse_actor(GOOD[name]).name == GOOD[name]["metadata"]["name"]


@pytest.mark.parametrize("name", BAD | BAD_FOR_THE_MODEL)
def test_wrong_manifests_are_told(name):
    body, path, message = (BAD | BAD_FOR_THE_MODEL)[name]
    with pytest.raises(ManifestError) as caught:
        parse_actor(body)
    found = {render_path(problem.path): problem.message for problem in caught.value.problems}
    assert list(found) == [path]
    assert message in found[path]


def test_the_manifest_of_the_contract():
    text = """
    apiVersion: asya.sh/v1alpha1
    kind: AsyncActor
    metadata: {name: chat-agent}
    spec:
      image: my-chat-agent:latest
      handler: agent.process
      stateProxy: {backend: s3, bucket: asya-actor-state, consistency: lww}
    """
    (chat,) = load_manifest(textwrap.dedent(text), "actor.yaml")
    assert (chat.name, chat.namespace, chat.spec.state_proxy.mount_path) == ("chat-agent", "default", "/state")
    assert warnings(chat) == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("actor.yaml")), ids=lambda p: p.parent.name)
def test_examples_load_without_a_warning(path):
    assert [warnings(found) for found in load_manifest(path.read_text(), str(path))] == [[]]


def test_all_problems_come_with_their_lines():
    assert problems(
        """\
        apiVersion: asya.sh/v1alpha1
        kind: AsyncActor
        metadata: {name: chat-agent}
        spec:
          image: x
          handler: agent.process
          turntimeout: 5m
          env:
          - name: VERBOSE
            value: yes
          stateProxy:
            backend: s4
        """
    ) == [
        "actor.yaml:7: spec.turntimeout: no such field; did you mean 'turnTimeout'? (fields here: image, "
        "imagePullPolicy, imagePullSecrets, handler, pythonExecutable, entrypoint, replicas, port, concurrency, "
        "turnTimeout, conflictRetries, env, envFrom, resources, serviceAccountName, podTemplate, service, "
        "deletionPolicy, stateProxy)",
        "actor.yaml:10: spec.env[0].value: expected text, got a boolean: YAML reads yes without quotes as one; "
        "write 'yes'",
        "actor.yaml:12: spec.stateProxy.backend: 's4' is not allowed; one of s3, gcs, redis, nats; did you mean 's3'?",
    ]


@pytest.mark.parametrize("word", ["yes", "No", "on", "OFF", "true", "False"])
def test_words_that_yaml_takes_for_booleans(word):
    text = yaml.safe_dump(actor(spec__env=[{"name": "A", "value": "@"}])).replace("'@'", word)
    assert f"YAML reads {word} without quotes as one; write '{word}'" in problems(text)[0]


def test_numbers_that_are_to_be_text():
    text = yaml.safe_dump(actor(spec__image=1.5, spec__turnTimeout=5))
    assert [line.partition("spec.")[2] for line in problems(text)] == [
        "image: expected text, got 1.5; quote it",
        "turnTimeout: expected text, got 5; quote it",
    ]
    (line,) = problems(yaml.safe_dump(actor(spec__turnTimeout="5")))
    assert "'5' is not a duration" in line


def test_dates_and_times_stay_text():
    text = yaml.safe_dump(actor(spec__env=[{"name": "A", "value": "@"}, {"name": "B", "value": "%"}]))
    (found,) = load_manifest(text.replace("'@'", "2024-01-31").replace("'%'", "12:30:45"), "x")
    assert [variable.value for variable in found.spec.env] == ["2024-01-31", "12:30:45"]


def test_a_key_given_twice():
    text = yaml.safe_dump(actor()).replace("spec:", "spec:\n  handler: other.one")
    assert problems(text) == ["actor.yaml:7: spec.handler: is there twice"]


def test_several_documents_and_other_kinds():
    text = "---\n".join(
        [
            yaml.safe_dump(actor()),
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n",
            "\n",
            yaml.safe_dump(actor(metadata__name="second")),
        ]
    )
    assert [found.name for found in load_manifest(text, "x")] == ["chat-agent", "second"]


def test_json_and_lists():
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [actor(), actor(metadata__name="b")]})
    assert [found.name for found in load_manifest(text, "x")] == ["chat-agent", "b"]


def test_what_the_api_server_adds_is_read():
    body = actor(
        metadata__uid="u", metadata__generation=3, metadata__managedFields=[{}], status={"conditions": [{"a": 1}]}
    )
    assert parse_actor(body).metadata.generation == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "actor.yaml: holds no AsyncActor; one starts with apiVersion: asya.sh/v1alpha1 and kind: AsyncActor"),
        (
            "just text",
            "actor.yaml:1: expected a Kubernetes object (a mapping with apiVersion and kind), got 'just text'",
        ),
        ("kind: AsyncActor", "actor.yaml:1: apiVersion: missing; an actor has apiVersion: asya.sh/v1alpha1"),
        ("a: [", "actor.yaml:1: is not YAML: expected the node content, but found '<stream end>'"),
        ("a: \x00", "actor.yaml: is not YAML: special characters are not allowed"),
        ("a: &a [*a]", "actor.yaml:1: is not YAML: the document is too large or too deep"),
        ("a: !!python/object:os.system {}", "actor.yaml:1: apiVersion: missing"),
    ],
)
def test_text_that_holds_no_actor(text, message):
    assert problems(text)[0].startswith(message)


def test_a_slip_in_the_api_version_is_not_another_kind():
    assert (
        "one of asya.sh/v1alpha1; did you mean 'asya.sh/v1alpha1'?"
        in problems(yaml.safe_dump(actor(apiVersion="asya.sh/v1")))[0]
    )
    assert "apiVersion" in problems(yaml.safe_dump(actor(apiVersion="assya.sh/v1alpha1")))[0]


def test_two_actors_of_one_name():
    text = "---\n".join([yaml.safe_dump(actor()), yaml.safe_dump(actor())])
    assert "metadata.name: 'chat-agent' is there twice" in problems(text)[0]


def test_aliases_do_not_blow_up():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
    )
    assert "the document is too large or too deep" in problems(bomb)[0]


def test_no_value_of_a_variable_is_repeated():
    body = actor(spec__env=[{"name": "PIN", "value": 31415926}])
    with pytest.raises(ManifestError) as caught:
        parse_actor(body)
    assert "31415926" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"spec__replicas": 2}, "spec.stateProxy.consistency: lww with spec.replicas: 2"),
        ({"spec__concurrency": 2}, "spec.stateProxy.consistency: lww with spec.concurrency: 2"),
        ({"spec__conflictRetries": 2}, "spec.conflictRetries has no effect with consistency: lww"),
        ({"spec__deletionPolicy": "Delete", "spec__stateProxy": ...}, "spec.deletionPolicy: Delete has no effect"),
        (
            {"spec__stateProxy__fromActor": "other", "spec__stateProxy__readOnly": False},
            "spec.stateProxy.readOnly: false: this actor may change the state of 'other'",
        ),
        ({"spec__stateProxy__guard": "directory"}, "spec.stateProxy.guard: directory is weaker"),
        ({"spec__stateProxy__endpoint": "http://minio:9000"}, "travel unencrypted"),
        (
            {"spec__podTemplate": {"spec": {"terminationGracePeriodSeconds": 30}}},
            "terminationGracePeriodSeconds: 30 is less than spec.turnTimeout: 5m",
        ),
    ],
)
def test_warnings(changes, part):
    (found,) = warnings(parse_actor(actor(**changes)))
    assert part in found


def test_cas_or_read_only_replicas_need_no_warning():
    assert warnings(parse_actor(actor(spec__replicas=3, spec__stateProxy__consistency="cas"))) == []
    assert warnings(parse_actor(actor(spec__replicas=3, spec__stateProxy__fromActor="other"))) == []
