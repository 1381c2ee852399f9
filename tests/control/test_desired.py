"""Actors -> Deployments and Services as golden files, and the promises every rendered pod template keeps."""

import copy
import itertools
import json

import pytest

from asya_contract.env import RuntimeEnv, ShimEnv, parse_mounts
from asya_operator.api import parse_actor
from asya_operator.desired import deployment, desired
from asya_operator.merge import merge
from asya_operator.render import injected, job, manifests, to_yaml
from asya_operator.settings import parse_settings
from asya_proxy.health import FIRST_PATIENCE
from asya_runtime.service import START_PATIENCE
from support.actors import GOOD, actor
from support.pods import NEW_IMAGE, OLD_IMAGE, SETTINGS

DEFAULTS = parse_settings(
    json.dumps(
        {
            "proxyImage": NEW_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "proxyImagePullPolicy": "IfNotPresent",
            "backends": {
                "s3": {
                    "endpoint": "http://minio.minio:9000",
                    "region": "us-east-1",
                    "secretName": "minio",
                    "env": [{"name": "AWS_MAX_ATTEMPTS", "value": "1"}, {"name": "STATE_LOG_LEVEL", "value": "debug"}],
                    "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "128Mi"}},
                }
            },
        }
    )
)
TEMPLATE = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"prometheus.io/scrape": "true"}},
    "spec": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "terminationGracePeriodSeconds": 90,
        "securityContext": {"runAsUser": 12345, "runAsNonRoot": True},
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "initContainers": [{"name": "fetch", "image": "curl"}],
        "containers": [
            {"name": "helper", "image": "helper"},
            {
                "name": "asya-runtime",
                "securityContext": {"readOnlyRootFilesystem": True},
                "ports": [{"containerPort": 9000, "name": "metrics"}],
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
            },
        ],
    },
}
CASES = {
    **{name: (body, SETTINGS) for name, body in GOOD.items()},
    "uid": (actor(metadata__uid="8d2f", metadata__namespace="team-a"), SETTINGS),
    "defaults-of-the-installation": (actor(), DEFAULTS),
    "actor-over-defaults": (
        actor(
            spec__imagePullPolicy="Always",
            spec__stateProxy__endpoint="https://s3.example.com",
            spec__stateProxy__credentials={"secretName": "own"},
            spec__stateProxy__env=[{"name": "STATE_LOG_LEVEL", "value": "error"}],
            spec__stateProxy__resources={"limits": {"memory": "512Mi"}},
        ),
        DEFAULTS,
    ),
    "pod-template": (actor(spec__podTemplate=TEMPLATE), SETTINGS),
}


def template_of(body, settings=SETTINGS):
    return desired(parse_actor(body), settings)[0]["spec"]["template"]


def container(template, name="asya-runtime"):
    return next(c for c in template["spec"]["containers"] if c["name"] == name)


@pytest.mark.parametrize("name", CASES)
def test_actor_in_and_manifests_out(name, golden):
    body, settings = CASES[name]
    found = parse_actor(body)
    before = copy.deepcopy(found)
    golden.check(f"actors/{name}.yaml", to_yaml(manifests(found, settings)))
    assert found == before


@pytest.mark.parametrize("name", CASES)
def test_every_template_fails_safe(name):
    body, settings = CASES[name]
    template = template_of(body, settings)
    state = parse_actor(body).spec.state_proxy
    pod = template["spec"]
    # Nothing of the webhook's part is there, and what is there cannot write.
    assert "state-sockets" not in json.dumps(template)
    paths = [] if state is None else [state.mount_path, *(m.mount_path for m in state.mounts)]
    for entry in (*pod["containers"], *pod["initContainers"]):
        mounts = {m["mountPath"]: m for m in entry.get("volumeMounts", [])}
        assert "PYTHONPATH" not in {e["name"] for e in entry.get("env", [])} or name == "env"
        if entry["name"] == "asya-install":
            continue
        for path in paths:
            assert mounts[path]["readOnly"] is True
            assert mounts[path]["name"] == "asya-guard"
    assert "replicas" not in desired(parse_actor(body), settings)[0]["spec"]


@pytest.mark.parametrize("name", CASES)
def test_the_handler_can_read_what_the_operator_writes(name):
    body, settings = CASES[name]
    spec = parse_actor(body).spec
    environ = {
        e["name"]: e["value"].replace("$$", "$") for e in container(template_of(body, settings))["env"] if "value" in e
    }
    runtime, shim = RuntimeEnv.from_env(environ), ShimEnv.from_env(environ)
    assert (runtime.handler, runtime.http_port, runtime.concurrency) == (spec.handler, spec.port, spec.concurrency)
    paths = [mount.path for mount in parse_mounts(shim.mounts)]
    state = spec.state_proxy
    assert paths == ([] if state is None else [state.mount_path, *(m.mount_path for m in state.mounts)])


def test_without_state_there_is_one_container_and_one_volume():
    template = template_of(GOOD["no-state"])
    assert [c["name"] for c in template["spec"]["containers"]] == ["asya-runtime"]
    assert [v["name"] for v in template["spec"]["volumes"]] == ["asya-shim"]
    assert "asya.sh/state-proxy" not in template["metadata"]["labels"]
    assert list(template["metadata"]["annotations"]) == ["kubectl.kubernetes.io/default-container"]


def test_the_kubelet_waits_longer_than_a_held_answer():
    deployed = injected(deployment(parse_actor(GOOD["minimal"]), SETTINGS, NEW_IMAGE), "team-a", SETTINGS)
    pod = deployed["spec"]["template"]["spec"]
    (proxy,) = (c for c in pod["initContainers"] if c["name"] == "asya-state-proxy")
    (runtime,) = pod["containers"]
    assert proxy["startupProbe"]["timeoutSeconds"] > FIRST_PATIENCE + 0.5
    assert runtime["readinessProbe"]["timeoutSeconds"] > START_PATIENCE + 0.5


def test_entrypoint_image_leaves_the_command_to_the_image():
    found = container(template_of(actor(spec__entrypoint="image")))
    assert "command" not in found
    assert found["args"] == ["python3", "/opt/asya/run.py"]


def test_the_grace_period_covers_turn_commit_and_drain():
    assert template_of(actor())["spec"]["terminationGracePeriodSeconds"] == 300 + 30 + 25 + 5
    assert template_of(actor(spec__turnTimeout="500ms"))["spec"]["terminationGracePeriodSeconds"] == 1 + 60
    short = container(template_of(actor(spec__podTemplate=TEMPLATE)))
    assert {"name": "ASYA_DRAIN_TIMEOUT", "value": "30s"} in short["env"]


def test_dollars_are_kept_from_the_kubelet():
    found = container(template_of(actor(spec__stateProxy__mountPath="/a$(HOME)")))
    assert {"name": "ASYA_STATE_PROXY_MOUNTS", "value": "state:/a$$(HOME):write=buffered"} in found["env"]


def test_a_default_that_changes_rolls_exactly_the_actors_it_concerns():
    def annotation(body, settings):
        return template_of(body, settings)["metadata"]["annotations"]["asya.sh/state-config"]

    redis = actor(spec__stateProxy={"backend": "redis"})
    assert annotation(actor(), SETTINGS) != annotation(actor(), DEFAULTS)
    assert annotation(redis, SETTINGS) == annotation(redis, DEFAULTS)


def test_another_key_prefix_rolls_exactly_the_actors_with_state():
    """Old pods and new ones would write at two places, and no CAS hold between them."""
    other = SETTINGS.model_copy(update={"key_prefix": "other/"})
    none = SETTINGS.model_copy(update={"key_prefix": ""})
    found = [template_of(actor(), settings) for settings in (SETTINGS, other, none)]
    assert all(one != two for one, two in itertools.combinations(found, 2))
    assert template_of(GOOD["no-state"], SETTINGS) == template_of(GOOD["no-state"], other)


def test_an_older_proxy_image_can_be_held():
    held = desired(parse_actor(actor()), SETTINGS, OLD_IMAGE)[0]["spec"]["template"]["spec"]["initContainers"][0]
    assert held["image"] == OLD_IMAGE


def test_no_secret_value_is_in_the_annotation():
    body = actor(
        spec__stateProxy__env=[
            {"name": "AWS_SESSION_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]
    )
    config = json.loads(template_of(body)["metadata"]["annotations"]["asya.sh/state-config"])
    assert config["env"] == [{"name": "AWS_SESSION_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]


def test_job(golden):
    found = job(parse_actor(actor(spec__podTemplate=TEMPLATE)), SETTINGS, ["-m", "seed", "--all"])
    golden.check("job.yaml", to_yaml([found, injected(found, "team-a", SETTINGS)]))
    assert found["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert container(found["spec"]["template"])["command"] == ["python3", "/opt/asya/run.py", "-m", "seed", "--all"]
    # Neither the Service nor the Deployment takes its pods for the actor's.
    assert "asya.sh/actor" not in found["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    ("base", "patch", "want"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": 1}, {"a": None}, {}),
        ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
        (
            {"containers": [{"name": "a", "image": "x"}]},
            {"containers": [{"name": "b"}, {"name": "a", "tty": True}]},
            {"containers": [{"name": "a", "image": "x", "tty": True}, {"name": "b"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/a", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "w"}, {"mountPath": "/b", "name": "v"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "w"}, {"mountPath": "/b", "name": "v"}]},
        ),
        ({"ports": [{"containerPort": 1}]}, {"ports": [{"containerPort": 2}]},
         {"ports": [{"containerPort": 1}, {"containerPort": 2}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
    ],
)  # fmt: skip
def test_merge(base, patch, want):
    before = copy.deepcopy((base, patch))
    assert merge(base, patch) == want
    assert (base, patch) == before


@pytest.mark.parametrize(("uid", "user"), [(64101, {"runAsUser": 64101, "runAsGroup": 64101}), (0, {})])
def test_the_platform_may_assign_the_proxys_user(uid, user):
    settings = parse_settings(json.dumps({"proxyImage": "p:1", "proxyUid": uid}))
    (install,) = deployment(parse_actor(actor()), settings, "p:1")["spec"]["template"]["spec"]["initContainers"]
    context = install["securityContext"]
    assert {name: context[name] for name in ("runAsUser", "runAsGroup") if name in context} == user
    assert context["runAsNonRoot"] is True
