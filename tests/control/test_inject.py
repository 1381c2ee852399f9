"""Pods in -> out as golden files, every one injected twice; and what every injected pod must be."""

import copy
import json

import pytest

from asya_contract.env import ProxyEnv
from asya_contract.names import STATE_CONFIG_ANNOTATION
from asya_operator.inject import Refused, inject
from asya_operator.render import to_yaml
from support.pods import NEW_IMAGE, OLD_IMAGE, PODS, SETTINGS, pod

NAMESPACE = "team-a"
STATEFUL = [name for name in PODS if name != "no-state"]


def injected(name):
    return inject(PODS[name], NAMESPACE, SETTINGS)


def proxy_of(out):
    (found,) = [c for c in out["spec"]["initContainers"] if c["name"] == "asya-state-proxy"]
    return found


def test_there_are_enough_pods():
    assert len(PODS) >= 40


@pytest.mark.parametrize("name", PODS)
def test_pod_in_and_out(name, golden):
    before = copy.deepcopy(PODS[name])
    out = injected(name)
    assert PODS[name] == before, "the argument was changed"
    assert inject(out, NAMESPACE, SETTINGS) == out, "a second run changes something"
    golden.check(f"pods/{name}.yaml", to_yaml([PODS[name], out]))


@pytest.mark.parametrize("name", STATEFUL)
def test_every_injected_pod(name):
    out = injected(name)
    spec = out["spec"]
    init = [c["name"] for c in spec["initContainers"]]
    assert "asya-install" not in init
    ahead = init[: init.index("asya-state-proxy")]
    assert all(entry in SETTINGS.mesh_containers for entry in ahead)
    proxy = proxy_of(out)
    assert proxy["restartPolicy"] == "Always"
    assert proxy["image"] in (NEW_IMAGE, OLD_IMAGE)
    assert proxy["startupProbe"]["failureThreshold"] == 600
    assert "readinessProbe" not in proxy
    # What Pod Security `restricted` asks of a container.
    context = proxy["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "privileged" not in context
    # Every volume that is mounted exists, once, and none of ours is on the host.
    volumes = [v["name"] for v in spec["volumes"]]
    assert len(set(volumes)) == len(volumes)
    for container in (*spec["containers"], *spec["initContainers"]):
        mounts = container.get("volumeMounts", [])
        assert {m["name"] for m in mounts} <= set(volumes)
        paths = [m["mountPath"] for m in mounts]
        assert len(set(paths)) == len(paths), container["name"]
        assert len({e["name"] for e in container.get("env", [])}) == len(container.get("env", []))
    assert next(v for v in spec["volumes"] if v["name"] == "state-sockets") == {"name": "state-sockets", "emptyDir": {}}
    # Secrets are the proxy's alone.
    for container in (*spec["containers"], *(c for c in spec["initContainers"] if c["name"] != "asya-state-proxy")):
        assert not any(m["name"].startswith("asya-credentials") for m in container.get("volumeMounts", []))
    config = json.loads(out["metadata"]["annotations"][STATE_CONFIG_ANNOTATION])
    for container in (*spec["containers"], *spec["initContainers"]):
        sees = container["name"] in config["containers"]
        sockets = [m for m in container.get("volumeMounts", []) if m["name"] == "state-sockets"]
        assert [m.get("readOnly", False) for m in sockets] == (
            [False] if container["name"] == "asya-state-proxy" else [True] if sees else []
        )


@pytest.mark.parametrize("name", STATEFUL)
def test_the_proxy_can_read_what_the_webhook_writes(name):
    environ = {e["name"]: e["value"].replace("$$", "$") for e in proxy_of(injected(name))["env"] if "value" in e}
    env = ProxyEnv.from_env(environ)
    config = json.loads(PODS[name]["metadata"]["annotations"][STATE_CONFIG_ANNOTATION])
    assert env.backend == config["mounts"][0]["backend"]
    assert env.prefix.startswith(f"prod/{NAMESPACE}/")
    assert env.actor == f"{NAMESPACE}/chat-agent"
    assert len(env.mounts) == len(config["mounts"]) - 1
    for mount in env.mounts:
        assert mount["STATE_PREFIX"].startswith(f"prod/{NAMESPACE}/")


def test_a_pod_without_the_label_is_left_alone():
    assert injected("no-state") == PODS["no-state"]


def test_the_image_the_template_names_is_kept_if_it_is_on_the_list():
    assert proxy_of(injected("old-image-allowed"))["image"] == OLD_IMAGE
    assert proxy_of(injected("image-swapped"))["image"] == NEW_IMAGE
    assert proxy_of(injected("own-forged-proxy"))["image"] == NEW_IMAGE


def test_identity_is_shared_and_static_keys_are_not():
    def names(name):
        return {e["name"] for e in proxy_of(injected(name))["env"] if not e["name"].startswith("STATE_")}

    assert names("irsa-before") == {"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_REGION"}
    assert names("again-irsa") == names("irsa-before")
    assert "AWS_CONTAINER_CREDENTIALS_FULL_URI" in names("pod-identity-before")
    assert names("azure-before") == {"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"}
    assert names("gke-federation-before") == {"GOOGLE_APPLICATION_CREDENTIALS"}
    assert names("static-keys-in-handler") == set()
    assert names("region-alone") == set()


def forged(**changes):
    body = pod()
    config = json.loads(body["metadata"]["annotations"][STATE_CONFIG_ANNOTATION])
    config.update(changes)
    body["metadata"]["annotations"][STATE_CONFIG_ANNOTATION] = json.dumps(config)
    return body


_MOUNT = json.loads(pod()["metadata"]["annotations"][STATE_CONFIG_ANNOTATION])["mounts"][0]


def without_annotation():
    body = pod()
    del body["metadata"]["annotations"][STATE_CONFIG_ANNOTATION]
    return body


def changed(change):
    body = pod()
    change(body)
    return body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (without_annotation(), "has the label asya.sh/state-proxy and no annotation asya.sh/state-config"),
        (forged(actor="../other"), "actor: '../other' is not a name that starts with a-z"),
        (forged(actor="a/b"), "actor: 'a/b' is not a name"),
        (forged(mounts=[{**_MOUNT, "actor": "other@x"}]), "mounts[0].actor: 'other@x' is not a name"),
        (forged(mounts=[{**_MOUNT, "name": "x/../../y"}]), "mounts[0].name"),
        (forged(mounts=[{**_MOUNT, "prefix": "else/"}]), "mounts[0].prefix: no such field"),
        (forged(mounts=[_MOUNT, _MOUNT]), "no name is there twice"),
        (forged(mounts=[]), "mounts"),
        (forged(mounts=[{**_MOUNT, "bucket": "Bad"}]), "'Bad' is no name of s3"),
        (forged(mounts=[{**_MOUNT, "endpoint": "http://u:p@h"}]), "without user and password"),
        (forged(version=2), "version: 2 is not allowed; one of 1"),
        (forged(env=[{"name": "LD_PRELOAD", "value": "/x"}]), "PYTHON* and LD_* are refused"),
        (forged(env=[{"name": "STATE_PREFIX", "value": "x/"}]), "STATE_PREFIX is set by the operator"),
        (forged(image="evil"), "image: no such field"),
        (forged(containers=["nobody"]), "names container 'nobody', and the pod has asya-runtime, asya-install"),
        (changed(lambda p: p["metadata"]["annotations"].update({STATE_CONFIG_ANNOTATION: "{"})), "is not JSON"),
        (changed(lambda p: p["metadata"]["annotations"].update({STATE_CONFIG_ANNOTATION: "[" * 5000})), "is not JSON"),
        (changed(lambda p: p["metadata"]["annotations"].update({STATE_CONFIG_ANNOTATION: "[]"})), "expected an object"),
        (
            changed(lambda p: p["metadata"]["annotations"].update({"asya.sh/key-prefix": "other/"})),
            "was made for key prefix 'other/', and the webhook's is 'prod/'; wait until the operator",
        ),
        (changed(lambda p: p["metadata"]["annotations"].pop("asya.sh/key-prefix")), "made for key prefix ''"),
        (changed(lambda p: p["spec"].update(os={"name": "windows"})), "windows is not supported"),
        (changed(lambda p: p["spec"]["volumes"].clear()), "'asya-shim' is missing"),
        (
            changed(lambda p: p["spec"]["containers"].append({"name": "x", "ports": [{"containerPort": 9464}]})),
            "container 'x': port 9464 is the state proxy's",
        ),
        (
            changed(lambda p: p["spec"]["containers"].append({"name": "asya-state-proxy", "image": "x"})),
            "'asya-state-proxy' is the name of a sidecar of Asya",
        ),
        (changed(lambda p: p["spec"].update(containers="x")), "spec.containers: expected a list"),
        (changed(lambda p: p["spec"].update(containers=[])), "spec.containers: missing"),
        (changed(lambda p: p["spec"]["containers"][0].update(env=[1])), "spec.containers[0].env: expected a list of"),
        (changed(lambda p: p.update(spec=None)), "spec: expected a mapping"),
    ],
)
def test_what_cannot_work_is_refused(body, message):
    with pytest.raises(Refused) as caught:
        inject(body, NAMESPACE, SETTINGS)
    assert message in str(caught.value)
