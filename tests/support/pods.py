"""Pods as other parties leave them before (or between) our webhook's runs: what the injection must cope with.

Each case is a change to the pod template of an actor; in -> want is kept as golden files.
"""

from collections.abc import Callable
from typing import Any

from asya_operator.api import parse_actor
from asya_operator.desired import desired
from asya_operator.inject import inject
from asya_operator.settings import Settings, parse_settings
from support.actors import GOOD, actor

OLD_IMAGE = "registry.example/asya-state-proxy@sha256:" + "0" * 64
NEW_IMAGE = "registry.example/asya-state-proxy@sha256:" + "1" * 64
SETTINGS: Settings = parse_settings(
    f'{{"proxyImage": "{NEW_IMAGE}", "allowedImages": ["{OLD_IMAGE}"], "keyPrefix": "prod/"}}'
)

Pod = dict[str, Any]


def pod(body: dict[str, Any] | None = None, image: str = NEW_IMAGE) -> Pod:
    """A pod as the ReplicaSet controller sends it: generateName, no name, no namespace."""
    template = desired(parse_actor(body or actor()), SETTINGS, image)[0]["spec"]["template"]
    metadata = {**template["metadata"], "generateName": "chat-agent-5d8f-"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _with(change: Callable[[Pod], Any], body: dict[str, Any] | None = None, **more: Any) -> Pod:
    out = pod(body, **more)
    change(out)
    return out


def _runtime(p: Pod) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in p["spec"]["containers"] if c["name"] == "asya-runtime")
    return found


def _everywhere(env: list[dict[str, Any]], mount: dict[str, Any], volume: dict[str, Any]) -> Callable[[Pod], None]:
    """What an identity webhook does: the same variables and token in every container there is."""

    def change(p: Pod) -> None:
        for container in (*p["spec"]["containers"], *p["spec"].get("initContainers", [])):
            container.setdefault("env", []).extend(env)
            container.setdefault("volumeMounts", []).append(mount)
        p["spec"].setdefault("volumes", []).append(volume)

    return change


_IRSA = _everywhere(
    [
        {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/r"},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"},
        {"name": "AWS_REGION", "value": "eu-west-1"},
    ],
    {"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": True},
    {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
)
_POD_IDENTITY = _everywhere(
    [
        {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
        {
            "name": "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            "value": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
        },
    ],
    {"name": "eks-pod-identity-token", "mountPath": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount"},
    {"name": "eks-pod-identity-token", "projected": {"sources": []}},
)
_AZURE = _everywhere(
    [
        {"name": "AZURE_CLIENT_ID", "value": "c"},
        {"name": "AZURE_TENANT_ID", "value": "t"},
        {"name": "AZURE_FEDERATED_TOKEN_FILE", "value": "/var/run/secrets/azure/tokens/azure-identity-token"},
    ],
    {"name": "azure-identity-token", "mountPath": "/var/run/secrets/azure/tokens"},
    {"name": "azure-identity-token", "projected": {"sources": []}},
)
_GKE = _everywhere(
    [
        {
            "name": "GOOGLE_APPLICATION_CREDENTIALS",
            "value": "/var/run/secrets/tokens/gcp-ksa/google-application-credentials.json",
        }
    ],
    {"name": "gcp-ksa", "mountPath": "/var/run/secrets/tokens/gcp-ksa"},
    {"name": "gcp-ksa", "projected": {"sources": []}},
)


def _strip_restart_policy(p: Pod) -> None:
    _proxy(p).pop("restartPolicy")


def _proxy(p: Pod) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in p["spec"]["initContainers"] if c["name"] == "asya-state-proxy")
    return found


def _again(change: Callable[[Pod], Any], body: dict[str, Any] | None = None) -> Pod:
    """A pod between our webhook's two runs, changed by another."""
    out = inject(pod(body), "team-a", SETTINGS)
    change(out)
    return out


def _init(*containers: dict[str, Any]) -> dict[str, Any]:
    return actor(spec__podTemplate={"spec": {"initContainers": list(containers)}})


def _insert_init(name: str, place: int = 0, **fields: Any) -> Callable[[Pod], None]:
    def change(p: Pod) -> None:
        p["spec"].setdefault("initContainers", []).insert(place, {"name": name, "image": "mesh", **fields})

    return change


def _mesh(p: Pod) -> None:
    _insert_init("istio-proxy", restartPolicy="Always")(p)
    _insert_init("istio-init")(p)


def _service_account_token(p: Pod) -> None:
    mount = {
        "name": "kube-api-access-x",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    for container in (*p["spec"]["containers"], *p["spec"]["initContainers"]):
        container.setdefault("volumeMounts", []).append(mount)
    p["spec"]["volumes"].append({"name": "kube-api-access-x", "projected": {"sources": []}})


_SEED_BODY = actor(
    spec__stateProxy__containers=["seed", "migrate"],
    spec__podTemplate={
        "spec": {
            "initContainers": [
                {"name": "first", "image": "busybox"},
                {"name": "migrate", "image": "app", "command": ["python3", "/opt/asya/run.py", "migrate.py"]},
            ],
            "containers": [
                {"name": "seed", "image": "app", "command": ["python3", "/opt/asya/run.py", "seed.py"]},
                {"name": "metrics", "image": "exporter", "volumeMounts": [{"name": "own", "mountPath": "/state"}]},
            ],
            "volumes": [{"name": "own", "emptyDir": {}}],
        }
    },
)
_MANY_ENV = actor(spec__env=[{"name": f"V{n:04}", "value": "x" * 20} for n in range(40)])

PODS: dict[str, Pod] = {
    "minimal": pod(),
    "everything": pod(GOOD["everything"]),
    "no-state": pod(actor(spec__stateProxy=...)),
    "redis": pod(actor(spec__stateProxy={"backend": "redis", "endpoint": "rediss://r:6379/0", "consistency": "cas"})),
    "nats": pod(actor(spec__stateProxy={"backend": "nats", "endpoint": "nats://n:4222", "bucket": "KV"})),
    "gcs-emulator": pod(actor(spec__stateProxy={"backend": "gcs", "bucket": "abc", "endpoint": "http://gcs:4443"})),
    "s3-compatible": pod(
        actor(spec__stateProxy__endpoint="http://minio:9000", spec__stateProxy__region="us-east-1",
              spec__stateProxy__credentials={"secretName": "minio"})
    ),
    "read-only-of-another": pod(actor(spec__stateProxy__fromActor="librarian")),
    "three-mounts": pod(
        actor(
            spec__stateProxy__endpoint="http://minio:9000",
            spec__stateProxy__readOnly=True,
            spec__stateProxy__mounts=[
                {"name": "shared", "backend": "s3", "bucket": "abc", "mountPath": "/shared", "fromActor": "librarian"},
                {"name": "fast", "backend": "redis", "mountPath": "/fast", "consistency": "cas"},
            ],
        )
    ),
    "guard-directory": pod(actor(spec__stateProxy__guard="directory", spec__stateProxy__mountPath="/app/data")),
    "listed-containers": pod(_SEED_BODY),
    "proxy-env": pod(
        actor(spec__stateProxy__env=[
            {"name": "STATE_LOG_LEVEL", "value": "debug"},
            {"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "PRICE", "value": "$5 $(HOME)"},
        ])
    ),
    "dollar-in-path": pod(actor(spec__stateProxy__mountPath="/a$(HOME)")),
    "one-resource-given": pod(actor(spec__stateProxy__resources={"limits": {"memory": "1Gi"}})),
    "no-limit": pod(actor(spec__stateProxy__resources={"limits": {"memory": 0}, "requests": {"cpu": "1"}})),
    "entrypoint-image": pod(actor(spec__entrypoint="image", spec__pythonExecutable="/opt/py/bin/python")),
    "many-variables": pod(_MANY_ENV),
    "user-init": pod(_init({"name": "fetch", "image": "curl"})),
    "user-native-sidecar": pod(_init({"name": "logs", "image": "fluent", "restartPolicy": "Always"})),
    "mesh-istio": _with(_mesh),
    "mesh-linkerd": _with(
        lambda p: (_insert_init("linkerd-proxy", restartPolicy="Always")(p), _insert_init("linkerd-init")(p))
    ),
    "mesh-after-user-init": _with(
        _insert_init("istio-proxy", 2, restartPolicy="Always"), _init({"name": "a", "image": "a"})
    ),
    "legacy-sidecar": _with(lambda p: p["spec"]["containers"].insert(0, {"name": "istio-proxy", "image": "istio"})),
    "irsa-before": _with(_IRSA),
    "pod-identity-before": _with(_POD_IDENTITY),
    "azure-before": _with(_AZURE),
    "gke-federation-before": _with(_GKE),
    "service-account-token": _with(_service_account_token),
    "static-keys-in-handler": _with(
        lambda p: _runtime(p)["env"].extend(
            [
                {"name": "AWS_ACCESS_KEY_ID", "value": "k"},
                {"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": "/app/key.json"},
            ]
        )
    ),
    "region-alone": _with(lambda p: _runtime(p)["env"].append({"name": "AWS_REGION", "value": "eu-west-1"})),
    "old-image-allowed": pod(image=OLD_IMAGE),
    "image-swapped": _with(lambda p: p["spec"]["initContainers"][0].update(image="evil.example/proxy:1")),
    "own-forged-proxy": _with(
        _insert_init("asya-state-proxy", image="evil.example/proxy:1", restartPolicy="Always",
                     env=[{"name": "STATE_PREFIX", "value": "other/"}],
                     securityContext={"privileged": True})
    ),
    "socket-volume-forged": _with(
        lambda p: p["spec"]["volumes"].append({"name": "state-sockets", "hostPath": {"path": "/"}})
    ),
    "default-container-kept": _with(
        lambda p: p["metadata"]["annotations"].update({"kubectl.kubernetes.io/default-container": "other"})
    ),
    "install-stripped": _with(lambda p: p["spec"].pop("initContainers")),
    "named-pod": _with(lambda p: p["metadata"].update(name="x", namespace="elsewhere")),
    "job-pod": _with(lambda p: p["spec"].update(restartPolicy="OnFailure")),
    "host-network": pod(
        actor(spec__stateProxy__httpPort=9500, spec__podTemplate={"spec": {"hostNetwork": True}})
    ),
    "again-unchanged": _again(lambda p: None),
    "again-restart-policy-stripped": _again(_strip_restart_policy),
    "again-image-changed": _again(lambda p: _proxy(p).update(image="mirror.example/proxy:1")),
    "again-reordered": _again(
        lambda p: p["spec"]["initContainers"].reverse(), _init({"name": "fetch", "image": "curl"})
    ),
    "again-mesh-added-first": _again(_mesh),
    "again-mesh-added-last": _again(_insert_init("istio-proxy", 9, restartPolicy="Always")),
    "again-init-added-first": _again(_insert_init("vault-agent-init")),
    "again-container-added": _again(lambda p: p["spec"]["containers"].append({"name": "extra", "image": "extra"})),
    "again-irsa": _again(_IRSA),
    "again-env-dropped": _again(lambda p: _proxy(p).update(env=[])),
    "again-mounts-dropped": _again(lambda p: _runtime(p).update(volumeMounts=_runtime(p)["volumeMounts"][:2])),
    "again-volumes-dropped": _again(lambda p: p["spec"].update(volumes=p["spec"]["volumes"][:2])),
}  # fmt: skip
