"""AsyncActors that are right and wrong, for the model and for the API server alike."""

import copy
from typing import Any

MINIMAL: dict[str, Any] = {
    "apiVersion": "asya.sh/v1alpha1",
    "kind": "AsyncActor",
    "metadata": {"name": "chat-agent"},
    "spec": {
        "image": "my-chat-agent:latest",
        "handler": "agent.process",
        "stateProxy": {"backend": "s3", "bucket": "asya-actor-state", "consistency": "lww"},
    },
}


def actor(**changes: Any) -> dict[str, Any]:
    """MINIMAL with values put at paths: `spec__stateProxy__bucket="b"`; `...` removes a field."""
    body = copy.deepcopy(MINIMAL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        here = body
        for part in parents:
            here = here.setdefault(part, {})
        if value is ...:
            here.pop(last, None)
        else:
            here[last] = value
    return body


def _template(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


_STATE = "spec__stateProxy__"
_MOUNT = {"name": "shared", "backend": "s3", "bucket": "other-bucket", "mountPath": "/shared"}
_SEED = {"containers": [{"name": "seed", "image": "busybox"}]}

GOOD: dict[str, dict[str, Any]] = {
    "minimal": actor(),
    "no-state": actor(spec__stateProxy=...),
    "redis-without-bucket": actor(spec__stateProxy={"backend": "redis"}),
    "longest-name": actor(metadata__name="a" * 63),
    "env": actor(
        spec__env=[
            {"name": "A", "value": ""},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k.txt", "optional": True}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "PYTHONPATH", "value": "/app"},
            {"name": "ASYA_LOG_LEVEL", "value": "debug"},
        ],
        spec__envFrom=[{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}}],
    ),
    "resources": actor(
        spec__resources={"requests": {"cpu": "100m", "memory": 1}, "limits": {"cpu": 1, "nvidia.com/gpu": "1"}},
        spec__stateProxy__resources={"limits": {"memory": "0"}, "requests": {"memory": "1Gi"}},
    ),
    "everything": actor(
        spec__imagePullPolicy="Always",
        spec__imagePullSecrets=[{"name": "registry"}],
        spec__pythonExecutable="/usr/bin/python3.12",
        spec__entrypoint="image",
        spec__replicas=0,
        spec__port=9000,
        spec__concurrency=4,
        spec__turnTimeout="1.5h",
        spec__conflictRetries=3,
        spec__serviceAccountName="robot.one",
        spec__service={"enabled": False},
        spec__deletionPolicy="Delete",
        spec__podTemplate={
            "metadata": {"labels": {"team": "a"}, "annotations": {"x": "y"}},
            "spec": {
                "hostNetwork": True,
                "nodeSelector": {"disk": "ssd"},
                "volumes": [{"name": "cache", "emptyDir": {}}],
                "containers": [
                    {"name": "asya-runtime", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]},
                    {"name": "seed", "image": "busybox"},
                ],
            },
        },
        spec__stateProxy={
            "backend": "gcs",
            "bucket": "my_bucket.example",
            "consistency": "cas",
            "mountPath": "/var/lib/state",
            "readOnly": False,
            "fromActor": "other",
            "endpoint": "http://fake-gcs:4443/storage",
            "credentials": {"secretName": "gcs.creds"},
            "env": [
                {"name": "STATE_LOG_LEVEL", "value": "debug"},
                {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            ],
            "maxFileSize": "1Gi",
            "requestTimeout": "500ms",
            "httpPort": 9500,
            "guard": "directory",
            "containers": ["seed"],
            "mounts": [
                _MOUNT,
                {"name": "m2", "backend": "nats", "mountPath": "/shared2", "guard": "directory", "region": ...},
            ],
        },
    ),
    "schemes": actor(
        spec__stateProxy={"backend": "redis", "endpoint": "rediss+sentinel://a:26379,b:26379/0", "mountPath": "/st"},
    ),
}
GOOD["everything"]["spec"]["stateProxy"]["mounts"][1].pop("region")

# name -> (manifest, path of the problem, part of its message)
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "kind": (
        actor(kind="AsyncActr"),
        "kind",
        "'AsyncActr' is not allowed; one of AsyncActor; did you mean 'AsyncActor'?",
    ),
    "name-uppercase": (actor(metadata__name="Chat"), "metadata.name", "'Chat' is not a name that starts with a-z"),
    "name-dot": (actor(metadata__name="chat.agent"), "metadata.name", "'chat.agent' is not a name that starts"),
    "name-digit": (actor(metadata__name="1chat"), "metadata.name", "'1chat' is not a name that starts"),
    "name-long": (actor(metadata__name="a" * 64), "metadata.name", "has 64 characters; at most 63 are allowed"),
    "image-missing": (actor(spec__image=...), "spec.image", "missing, and it is required"),
    "image-empty": (actor(spec__image=""), "spec.image", "is empty; give it a value or remove it"),
    "image-blank": (actor(spec__image="a b"), "spec.image", "'a b' is not an image reference without blanks"),
    "handler": (actor(spec__handler="agent:process"), "spec.handler", "not module.function or module.Class.method"),
    "handler-bare": (actor(spec__handler="process"), "spec.handler", "not module.function or module.Class.method"),
    "unknown-field": (actor(spec__turntimeout="5m"), "spec.turntimeout", "no such field; did you mean 'turnTimeout'?"),
    "unknown-in-state": (
        actor(spec__stateProxy__mountpath="/s"),
        "spec.stateProxy.mountpath",
        "did you mean 'mountPath'?",
    ),
    "replicas-negative": (actor(spec__replicas=-1), "spec.replicas", "-1 is out of range; allowed are 0 to 10000"),
    "replicas-text": (actor(spec__replicas="3"), "spec.replicas", "expected a whole number, got '3'"),
    "replicas-bool": (actor(spec__replicas=True), "spec.replicas", "expected a whole number, got true"),
    "port-zero": (actor(spec__port=0), "spec.port", "0 is out of range; allowed are 1 to 65535"),
    "entrypoint": (
        actor(spec__entrypoint="images"),
        "spec.entrypoint",
        "one of override, image; did you mean 'image'?",
    ),
    "pull-policy": (
        actor(spec__imagePullPolicy="always"),
        "spec.imagePullPolicy",
        "'always' is not allowed; one of Always, IfNotPresent, Never; did you mean 'Always'?",
    ),
    "timeout-without-unit": (actor(spec__turnTimeout="30"), "spec.turnTimeout", "'30' is not a duration with its unit"),
    "timeout-zero": (
        actor(spec__turnTimeout="0s"),
        "spec.turnTimeout",
        "'0s' is out of range; allowed are 100ms to 24h",
    ),
    "timeout-huge": (actor(spec__turnTimeout="25h"), "spec.turnTimeout", "out of range; allowed are 100ms to 24h"),
    "deletion": (actor(spec__deletionPolicy="Keep"), "spec.deletionPolicy", "one of Retain, Delete"),
    "service-typo": (actor(spec__service={"enable": False}), "spec.service.enable", "did you mean 'enabled'?"),
    "cpu-quantity": (
        actor(spec__resources={"requests": {"cpu": "1O0m"}}),
        "spec.resources.requests.cpu",
        "'1O0m' is not a quantity such as 100m, 0.5, 64Mi or 2",
    ),
    "cpu-negative": (actor(spec__resources={"limits": {"cpu": -1}}), "spec.resources.limits.cpu", "out of range"),
    "request-over-limit": (
        actor(spec__resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "1000M"}}),
        "spec.resources.requests.memory",
        "2Gi is more than the limit 1000M",
    ),
    "env-owned": (
        actor(spec__env=[{"name": "ASYA_HANDLER", "value": "x.y"}]),
        "spec.env[0].name",
        "ASYA_HANDLER is set by the operator; use the field for it",
    ),
    "env-name": (actor(spec__env=[{"name": "1A", "value": "x"}]), "spec.env[0].name", "'1A' is not a variable name"),
    "env-twice": (
        actor(spec__env=[{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]),
        "spec.env[1].name",
        "A is there twice",
    ),
    "env-value-and-from": (
        actor(spec__env=[{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        "spec.env[0]",
        "has value and valueFrom; give one of them",
    ),
    "env-no-source": (actor(spec__env=[{"name": "A", "valueFrom": {}}]), "spec.env[0].valueFrom", "has no source"),
    "env-number": (
        actor(spec__env=[{"name": "A", "value": 12345678}]),
        "spec.env[0].value",
        "expected text, got int (a value in quotes is text)",
    ),
    "env-from-none": (
        actor(spec__envFrom=[{"prefix": "A"}]),
        "spec.envFrom[0]",
        "exactly one of configMapRef, secretRef",
    ),
    "env-from-both": (
        actor(spec__envFrom=[{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]),
        "spec.envFrom[0]",
        "exactly one of configMapRef, secretRef",
    ),
    "backend": (
        actor(spec__stateProxy__backend="s4"),
        "spec.stateProxy.backend",
        "'s4' is not allowed; one of s3, gcs, redis, nats; did you mean 's3'?",
    ),
    "backend-missing": (actor(spec__stateProxy__backend=...), "spec.stateProxy.backend", "missing, and it is required"),
    "bucket-missing": (
        actor(spec__stateProxy__bucket=...),
        "spec.stateProxy.bucket",
        "missing, and backend s3 needs it: the name of the bucket",
    ),
    "bucket-uppercase": (
        actor(spec__stateProxy__bucket="Bucket"),
        "spec.stateProxy.bucket",
        "'Bucket' is no bucket name of s3: 3 to 63 of a-z",
    ),
    "bucket-short": (actor(spec__stateProxy__bucket="ab"), "spec.stateProxy.bucket", "no bucket name of s3"),
    "bucket-slash": (actor(spec__stateProxy__bucket="a/b"), "spec.stateProxy.bucket", "'a/b' is not a bucket name"),
    "bucket-nats": (
        actor(spec__stateProxy={"backend": "nats", "bucket": "a.b"}),
        "spec.stateProxy.bucket",
        "'a.b' is no bucket name of nats",
    ),
    "consistency": (
        actor(spec__stateProxy__consistency="strong"),
        "spec.stateProxy.consistency",
        "'strong' is not allowed; one of lww, cas",
    ),
    "mount-relative": (
        actor(spec__stateProxy__mountPath="state"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-root": (actor(spec__stateProxy__mountPath="/"), "spec.stateProxy.mountPath", "is not an absolute path"),
    "mount-trailing": (
        actor(spec__stateProxy__mountPath="/s/"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-double": (
        actor(spec__stateProxy__mountPath="/a//b"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-colon": (actor(spec__stateProxy__mountPath="/a:b"), "spec.stateProxy.mountPath", "is not an absolute path"),
    "mount-semicolon": (
        actor(spec__stateProxy__mountPath="/a;b"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-newline": (
        actor(spec__stateProxy__mountPath="/a\nb"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-newline-end": (
        actor(spec__stateProxy__mountPath="/a\n"),
        "spec.stateProxy.mountPath",
        "is not an absolute path",
    ),
    "mount-dot": (actor(spec__stateProxy__mountPath="/a/../b"), "spec.stateProxy.mountPath", "has a . or .. segment"),
    "mount-single-dot": (
        actor(spec__stateProxy__mountPath="/a/."),
        "spec.stateProxy.mountPath",
        "has a . or .. segment",
    ),
    "mount-reserved": (actor(spec__stateProxy__mountPath="/etc"), "spec.stateProxy.mountPath", "above or below, /etc;"),
    "mount-below-reserved": (actor(spec__stateProxy__mountPath="/tmp/s"), "spec.stateProxy.mountPath", "below, /tmp;"),
    "mount-above-reserved": (
        actor(spec__stateProxy__mountPath="/opt"),
        "spec.stateProxy.mountPath",
        "below, /opt/asya;",
    ),
    "from-itself": (
        actor(spec__stateProxy__fromActor="chat-agent"),
        "spec.stateProxy.fromActor",
        "is this actor itself",
    ),
    "endpoint-scheme": (
        actor(spec__stateProxy__endpoint="redis://r"),
        "spec.stateProxy.endpoint",
        "backend s3 takes http://, https://",
    ),
    "endpoint-credentials": (
        actor(spec__stateProxy={"backend": "redis", "endpoint": "redis://:pw@r:6379"}),
        "spec.stateProxy.endpoint",
        "without user and password",
    ),
    "region": (
        actor(spec__stateProxy={"backend": "redis", "region": "eu-central-1"}),
        "spec.stateProxy.region",
        "backend redis has no region; only s3 takes one",
    ),
    "http-port-is-port": (
        actor(spec__stateProxy__httpPort=8080),
        "spec.stateProxy.httpPort",
        "8080 is spec.port as well; the proxy needs one of its own",
    ),
    "port-is-http-port": (actor(spec__port=9464), "spec.port", "9464 is the proxy's own port"),
    "http-port-low": (actor(spec__stateProxy__httpPort=80), "spec.stateProxy.httpPort", "80 is out of range"),
    "file-size-small": (
        actor(spec__stateProxy__maxFileSize="1k"),
        "spec.stateProxy.maxFileSize",
        "allowed are 1Mi to 16Gi",
    ),
    "file-size-number": (
        actor(spec__stateProxy__maxFileSize=1048576),
        "spec.stateProxy.maxFileSize",
        "expected text, got 1048576",
    ),
    "proxy-env-python": (
        actor(spec__stateProxy__env=[{"name": "PYTHONPATH", "value": "/x"}]),
        "spec.stateProxy.env[0].name",
        "PYTHON* and LD_* are refused",
    ),
    "proxy-env-preload": (
        actor(spec__stateProxy__env=[{"name": "LD_PRELOAD", "value": "/x"}]),
        "spec.stateProxy.env[0].name",
        "PYTHON* and LD_* are refused",
    ),
    "proxy-env-prefix": (
        actor(spec__stateProxy__env=[{"name": "STATE_PREFIX", "value": "other/"}]),
        "spec.stateProxy.env[0].name",
        "STATE_PREFIX is set by the operator; settable are STATE_ATTEMPT_TIMEOUT",
    ),
    "proxy-env-unknown": (
        actor(spec__stateProxy__env=[{"name": "STATE_X", "value": "other/"}]),
        "spec.stateProxy.env[0].name",
        "STATE_X is set by the operator; settable are",
    ),
    "proxy-env-secret": (
        actor(spec__stateProxy__env=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2"}]),
        "spec.stateProxy.env[0]",
        "AWS_SECRET_ACCESS_KEY is a credential; it belongs in the Secret or in valueFrom",
    ),
    "proxy-env-url": (
        actor(
            spec__stateProxy={"backend": "redis", "env": [{"name": "REDIS_URL", "value": "redis://u:hunter2@r:6379/0"}]}
        ),
        "spec.stateProxy.env[0]",
        "REDIS_URL is a credential",
    ),
    "mount-name-state": (
        actor(spec__stateProxy__mounts=[{**_MOUNT, "name": "state"}]),
        "spec.stateProxy.mounts[0].name",
        "'state' is the name of the mount that stateProxy itself describes",
    ),
    "mount-name-long": (
        actor(spec__stateProxy__mounts=[{**_MOUNT, "name": "m" * 33}]),
        "spec.stateProxy.mounts[0].name",
        "has 33 characters; at most 32",
    ),
    "mount-name-twice": (
        actor(spec__stateProxy__mounts=[_MOUNT, {**_MOUNT, "mountPath": "/other"}]),
        "spec.stateProxy.mounts[1].name",
        "'shared' is there twice",
    ),
    "mount-same-path": (
        actor(spec__stateProxy__mounts=[{**_MOUNT, "mountPath": "/state"}]),
        "spec.stateProxy.mounts[0].mountPath",
        "'/state' is, or lies above or below, '/state' of stateProxy.mountPath",
    ),
    "mount-nested": (
        actor(spec__stateProxy__mounts=[{**_MOUNT, "mountPath": "/state/shared"}]),
        "spec.stateProxy.mounts[0].mountPath",
        "is, or lies above or below, '/state' of stateProxy.mountPath",
    ),
    "mounts-nested": (
        actor(spec__stateProxy__mounts=[_MOUNT, {**_MOUNT, "name": "b", "mountPath": "/shared/b"}]),
        "spec.stateProxy.mounts[1].mountPath",
        "'/shared' of stateProxy.mounts[0].mountPath",
    ),
    "mount-without-path": (
        actor(spec__stateProxy__mounts=[{"name": "m", "backend": "redis"}]),
        "spec.stateProxy.mounts[0].mountPath",
        "missing, and it is required",
    ),
    "mount-from-itself": (
        actor(spec__stateProxy__mounts=[{**_MOUNT, "fromActor": "chat-agent"}]),
        "spec.stateProxy.mounts[0].fromActor",
        "is this actor itself",
    ),
    "mount-bucket": (
        actor(spec__stateProxy__mounts=[{"name": "m", "backend": "gcs", "mountPath": "/m"}]),
        "spec.stateProxy.mounts[0].bucket",
        "backend gcs needs it",
    ),
    "containers-unknown": (
        actor(spec__stateProxy__containers=["sed"], spec__podTemplate=_template(**_SEED)),
        "spec.stateProxy.containers[0]",
        "'sed' is no container of podTemplate (it has seed); did you mean 'seed'?",
    ),
    "containers-runtime": (
        actor(spec__stateProxy__containers=["asya-runtime"]),
        "spec.stateProxy.containers[0]",
        "sees the state anyway",
    ),
    "host-network": (
        actor(spec__podTemplate=_template(hostNetwork=True)),
        "spec.stateProxy.httpPort",
        "missing, and hostNetwork needs it",
    ),
    "share-process-namespace": (
        actor(spec__podTemplate=_template(shareProcessNamespace=True)),
        "spec.podTemplate.spec.shareProcessNamespace",
        "through /proc",
    ),
    "host-pid": (
        actor(spec__podTemplate=_template(hostPID=True)),
        "spec.podTemplate.spec.hostPID",
        "through /proc",
    ),
    "template-label": (
        actor(spec__podTemplate={"metadata": {"labels": {"asya.sh/state-proxy": "true"}}}),
        "spec.podTemplate.metadata.labels.asya.sh/state-proxy",
        "names under asya.sh/ are the operator's own",
    ),
    "template-restart": (
        actor(spec__podTemplate=_template(restartPolicy="Never")),
        "spec.podTemplate.spec.restartPolicy",
        "the operator owns it",
    ),
    "template-account": (
        actor(spec__podTemplate=_template(serviceAccountName="x")),
        "spec.podTemplate.spec.serviceAccountName",
        "use spec.serviceAccountName",
    ),
    "template-volume": (
        actor(spec__podTemplate=_template(volumes=[{"name": "asya-shim", "emptyDir": {}}])),
        "spec.podTemplate.spec.volumes[0].name",
        "'asya-shim' is a volume of the operator's own",
    ),
    "template-command": (
        actor(spec__podTemplate=_template(containers=[{"name": "asya-runtime", "command": ["x"]}])),
        "spec.podTemplate.spec.containers[0].command",
        "use spec.pythonExecutable and spec.entrypoint",
    ),
    "template-env": (
        actor(spec__podTemplate=_template(containers=[{"name": "asya-runtime", "env": [{"name": "A"}]}])),
        "spec.podTemplate.spec.containers[0].env",
        "use spec.env",
    ),
    "template-probe": (
        actor(spec__podTemplate=_template(containers=[{"name": "asya-runtime", "livenessProbe": {}}])),
        "spec.podTemplate.spec.containers[0].livenessProbe",
        "the operator owns it; leave it out",
    ),
    "template-sidecar": (
        actor(spec__podTemplate=_template(containers=[{"name": "asya-state-proxy", "image": "evil"}])),
        "spec.podTemplate.spec.containers[0].name",
        "a container of the operator's own",
    ),
    "template-init-runtime": (
        actor(spec__podTemplate=_template(initContainers=[{"name": "asya-runtime"}])),
        "spec.podTemplate.spec.initContainers[0].name",
        "a container of the operator's own",
    ),
}

# Refused by the model alone: what CEL cannot afford. The operator reports these as a condition.
BAD_FOR_THE_MODEL: dict[str, tuple[dict[str, Any], str, str]] = {
    "state-empty": (actor(spec__stateProxy=None), "spec.stateProxy", "has no value; give it one or remove it"),
    "template-unknown": (actor(spec__podTemplate={"spek": {}}), "spec.podTemplate.spek", "did you mean 'spec'?"),
    "template-mount": (
        actor(
            spec__podTemplate=_template(
                containers=[{"name": "asya-runtime", "volumeMounts": [{"name": "v", "mountPath": "/state/sub"}]}]
            )
        ),
        "spec.podTemplate.spec.containers[0].volumeMounts[0].mountPath",
        "'/state/sub' is, or lies above or below, '/state' (stateProxy.mountPath)",
    ),
    "template-mount-above": (
        actor(
            spec__podTemplate=_template(
                containers=[{"name": "asya-runtime", "volumeMounts": [{"name": "v", "mountPath": "/opt/"}]}]
            )
        ),
        "spec.podTemplate.spec.containers[0].volumeMounts[0].mountPath",
        "'/opt/asya' (the operator's own)",
    ),
    "template-port": (
        actor(spec__podTemplate=_template(containers=[{"name": "other", "ports": [{"containerPort": 9464}]}])),
        "spec.podTemplate.spec.containers[0].ports[0].containerPort",
        "9464 is the proxy's port",
    ),
    "template-list": (actor(spec__podTemplate={"spec": []}), "spec.podTemplate.spec", "expected a mapping, got a list"),
}
