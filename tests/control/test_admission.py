"""Admission reviews: every one gets a definite answer; the patch makes of the pod what `inject` makes of it."""

import base64
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asya_operator import admission
from asya_operator.inject import inject
from support.pods import PODS, SETTINGS, pod


def review(obj=None, **changes):
    request = {
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "team-a",
        "object": pod() if obj is None else obj,
        **changes,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def ask(body):
    return admission.answer(admission.parse(json.dumps(body).encode()), SETTINGS)


def apply_patch(document, operations):
    """RFC 6902, as far as our patches go: add, replace, remove."""
    document = json.loads(json.dumps(document))  # a copy in which nothing is shared
    for operation in operations:
        parts = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        here = document
        for part in parts[:-1]:
            here = here[int(part) if isinstance(here, list) else part]
        last = int(parts[-1]) if isinstance(here, list) else parts[-1]
        if operation["op"] == "remove":
            del here[last]
        else:
            here[last] = operation["value"]
    return document


def operations(answer):
    response = answer.body["response"]
    return json.loads(base64.b64decode(response["patch"])) if "patch" in response else []


@pytest.mark.parametrize("name", PODS)
def test_the_patch_is_the_injection(name):
    answer = ask(review(PODS[name]))
    assert answer.body["response"]["allowed"] is True
    assert apply_patch(PODS[name], operations(answer)) == inject(PODS[name], "team-a", SETTINGS)
    assert answer.result == ("unchanged" if name == "no-state" else "injected")


def test_a_patch_does_not_send_a_pods_variables_back():
    big = pod()
    runtime = big["spec"]["containers"][0]
    runtime["env"] += [{"name": f"V{n}", "value": "x" * 100} for n in range(2000)]
    assert len(json.dumps(operations(ask(review(big))))) < 10_000


def test_a_dry_run_is_answered_alike():
    assert operations(ask(review(dryRun=True))) == operations(ask(review()))


def test_a_second_review_has_no_patch():
    assert operations(ask(review(inject(pod(), "team-a", SETTINGS)))) == []


@pytest.mark.parametrize(
    "changes",
    [{"operation": "UPDATE"}, {"operation": "DELETE", "object": None}, {"subResource": "ephemeralcontainers"}],
)
def test_what_is_not_a_creation_passes(changes):
    answer = ask(review(**changes))
    assert answer.body["response"] == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object": None}, "request.object: missing"),
        ({"object": []}, "request.object: missing"),
        ({"kind": {"kind": "Deployment"}}, "is not Pod"),
        ({"kind": None}, "is not Pod"),
        ({"namespace": None}, "request.namespace: missing"),
        ({"namespace": "../x"}, "request.namespace: missing, or no name"),
        ({"namespace": "a\n"}, "request.namespace: missing, or no name"),
    ],
)
def test_a_faulty_request_is_denied_with_its_uid(changes, message):
    answer = ask(review(**changes))
    response = answer.body["response"]
    assert (response["uid"], response["allowed"]) == ("u-1", False)
    assert message in response["status"]["message"]


def test_a_refusal_says_why():
    broken = pod()
    broken["metadata"]["annotations"].clear()
    status = ask(review(broken)).body["response"]["status"]
    assert status["message"].startswith("asya state: the pod has the label asya.sh/state-proxy and no annotation")
    assert status["code"] == 403


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"nonsense", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b"[]", "the body is no object"),
        (json.dumps({**review(), "apiVersion": "admission.k8s.io/v1beta1"}).encode(), "expected admission.k8s.io/v1"),
        (json.dumps({**review(), "kind": "Pod"}).encode(), "expected admission.k8s.io/v1 AdmissionReview"),
        (json.dumps({**review(), "request": None}).encode(), "request: missing"),
        (json.dumps(review(uid=None)).encode(), "request.uid: missing"),
        (json.dumps(review(uid="")).encode(), "request.uid: missing"),
        (json.dumps(review(uid=7)).encode(), "request.uid: missing"),
    ],
)
def test_what_is_no_review(body, message):
    with pytest.raises(admission.NotAReview) as caught:
        admission.parse(body)
    assert message in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def places(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from places(value[index], (*path, index))


BASES = [review(PODS[name]) for name in ("minimal", "listed-containers", "again-irsa", "three-mounts")]
PLACES = [list(places(base))[1:] for base in BASES]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_gets_a_definite_answer(data):
    """Up to three places of a real review replaced by anything: a 400, or an answer with the uid; no exception."""
    number = data.draw(st.integers(0, len(BASES) - 1))
    body = copy.deepcopy(BASES[number])
    for path in data.draw(st.lists(st.sampled_from(PLACES[number]), min_size=1, max_size=3)):
        here = body
        try:
            for part in path[:-1]:
                here = here[part]
            if data.draw(st.booleans()):
                here[path[-1]] = data.draw(JSON)
            else:
                del here[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
    try:
        parsed = admission.parse(json.dumps(body).encode())
    except admission.NotAReview:
        return
    answer = admission.answer(parsed, SETTINGS)
    assert answer.body["response"]["uid"] == body["request"]["uid"]
    json.dumps(answer.body)
    if answer.result == "injected":
        done = apply_patch(body["request"]["object"], operations(answer))
        assert inject(done, body["request"]["namespace"], SETTINGS) == done


@settings(max_examples=80, deadline=None)
@given(JSON)
def test_any_config_gets_a_definite_answer(config):
    body = pod()
    body["metadata"]["annotations"]["asya.sh/state-config"] = json.dumps(config)
    assert ask(review(body)).result == "refused"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_get_a_definite_answer(body):
    with pytest.raises(admission.NotAReview):
        admission.parse(body)
