"""`desired(actor, settings) -> manifests`: the Deployment and the Service of an actor, as plain dicts.

Pure. The pod template already fails safe: without the webhook's part no turn is served and nothing
reaches a disk. Replicas are left out: they have a field manager of their own.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from asya_contract.env import RuntimeEnv, ShimEnv, parse_seconds, write_env
from asya_contract.names import (
    ACTOR_LABEL,
    API_VERSION,
    INSTALL_CONTAINER,
    KIND,
    RUN_FILE,
    RUNTIME_CONTAINER,
    SHIM_DIR,
    SHIM_VOLUME,
    STATE_CONFIG_ANNOTATION,
    STATE_LABEL,
)
from asya_operator import guard
from asya_operator.api import AsyncActor, EnvVar
from asya_operator.api.rules import OWNED_ENV
from asya_operator.merge import merge
from asya_operator.rollout import Trial
from asya_operator.settings import Settings
from asya_operator.state import KEY_PREFIX_ANNOTATION, MountState, StateConfig, resolve, shim_env

Manifest = dict[str, Any]

MANAGED_BY = "asya-operator"
DEFAULT_CONTAINER_ANNOTATION = "kubectl.kubernetes.io/default-container"
# Seconds from SIGTERM: the turn, then the last commit, then the proxy's own drain, then ending.
COMMIT_SECONDS = 30
PROXY_DRAIN_SECONDS = 25
END_SECONDS = 5
INSTALL_RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}}


def restricted(uid: int) -> Manifest:
    """A security context that passes Pod Security `restricted`; with uid 0 the platform assigns the user."""
    user = {} if uid == 0 else {"runAsUser": uid, "runAsGroup": uid}
    return {
        "runAsNonRoot": True,
        **user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def env_list(values: Mapping[str, str]) -> list[Manifest]:
    """Variables for a container, with `$` kept from being expanded by the kubelet."""
    return [{"name": name, "value": value.replace("$", "$$")} for name, value in values.items()]


def dump_env(env: Iterable[EnvVar]) -> list[Manifest]:
    """A user's variables as they stand in a container."""
    return [variable.model_dump(by_alias=True, exclude_none=True) for variable in env]


def owned_env(env: RuntimeEnv | ShimEnv) -> dict[str, str]:
    """All variables that are the operator's to say, defaults as well: the image may have set them."""
    return {name: text for name, text in write_env(env, every=True).items() if name in OWNED_ENV and text}


def labels(actor: AsyncActor) -> dict[str, str]:
    """What everything of an actor is found by."""
    return {
        ACTOR_LABEL: actor.name,
        "app.kubernetes.io/name": actor.name,
        "app.kubernetes.io/managed-by": MANAGED_BY,
    }


def selector(actor: AsyncActor) -> dict[str, str]:
    """Which pods are the actor's."""
    return {ACTOR_LABEL: actor.name}


def grace_seconds(actor: AsyncActor) -> int:
    """Seconds from SIGTERM to SIGKILL that let the longest turn end and its state be stored."""
    after = COMMIT_SECONDS + PROXY_DRAIN_SECONDS if actor.spec.state_proxy is not None else 0
    return math.ceil(parse_seconds(actor.spec.turn_timeout)) + after + END_SECONDS


def runtime_env(actor: AsyncActor, grace: int) -> RuntimeEnv:
    """What `run.py` reads in a pod whose grace period is `grace` seconds."""
    spec = actor.spec
    turn = parse_seconds(spec.turn_timeout)
    return RuntimeEnv(
        handler=spec.handler,
        http_port=spec.port,
        concurrency=spec.concurrency,
        turn_timeout=turn,
        conflict_retries=spec.conflict_retries,
        # A shorter grace period leaves less of it to open turns.
        drain_timeout=max(1.0, min(turn, turn - (grace_seconds(actor) - grace))),
        actor=f"{actor.namespace}/{actor.name}",
    )


def desired(
    actor: AsyncActor, settings: Settings, proxy_image: str | None = None, trial: Trial | None = None
) -> list[Manifest]:
    """The objects an actor consists of. `proxy_image` holds an older image while a new one is rolled out; `trial` is
    the actor's part in that."""
    manifests = [deployment(actor, settings, proxy_image or settings.proxy_image)]
    if trial is not None:
        manifests[0]["metadata"]["annotations"] = trial.annotations()
    if actor.spec.service.enabled:
        manifests.append(service(actor))
    return manifests


def metadata(actor: AsyncActor) -> Manifest:
    """Metadata of a child: named like the actor, owned by it."""
    out: Manifest = {"name": actor.name, "namespace": actor.namespace, "labels": labels(actor)}
    if actor.metadata.uid is not None:
        out["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": actor.name,
                "uid": actor.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return out


def service(actor: AsyncActor) -> Manifest:
    """The Service, on the same port as the runtime."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(actor),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(actor),
            "ports": [{"name": "http", "port": actor.spec.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }


def deployment(actor: AsyncActor, settings: Settings, proxy_image: str) -> Manifest:
    """The Deployment, without replicas."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(actor),
        "spec": {
            "selector": {"matchLabels": selector(actor)},
            "template": pod_template(actor, settings, proxy_image),
        },
    }


def pod_template(actor: AsyncActor, settings: Settings, proxy_image: str) -> Manifest:
    """The template: ours with the user's merged in, then what belongs into every container."""
    config = resolve(actor, settings, RUNTIME_CONTAINER) if actor.spec.state_proxy is not None else None
    user = actor.spec.pod_template or {}
    grace = user.get("spec", {}).get("terminationGracePeriodSeconds", grace_seconds(actor))
    template = merge(_own_template(actor, settings, proxy_image, config, grace), user)
    if config is not None:
        pod = template["spec"]
        for kind in ("initContainers", "containers"):
            pod[kind] = [_with_state(actor, config, container) for container in pod.get(kind, [])]
    return template


def _own_template(
    actor: AsyncActor, settings: Settings, proxy_image: str, config: StateConfig | None, grace: int
) -> Manifest:
    spec = actor.spec
    annotations = {DEFAULT_CONTAINER_ANNOTATION: RUNTIME_CONTAINER}
    pod_labels = labels(actor)
    volumes: list[Manifest] = [{"name": SHIM_VOLUME, "emptyDir": {}}]
    if config is not None and spec.state_proxy is not None:
        pod_labels[STATE_LABEL] = "true"
        annotations[STATE_CONFIG_ANNOTATION] = config.to_annotation()
        if settings.key_prefix:
            annotations[KEY_PREFIX_ANNOTATION] = settings.key_prefix
        annotations |= {guard.annotation(mount.name): guard.text(actor, mount) for mount in config.mounts}
        kinds = [spec.state_proxy.guard, *(mount.guard for mount in spec.state_proxy.mounts)]
        volumes.append(
            guard.volume([(mount, kind == "directory") for mount, kind in zip(config.mounts, kinds, strict=True)])
        )
    pod: Manifest = {
        "terminationGracePeriodSeconds": grace,
        "initContainers": [install_container(settings, proxy_image)],
        "containers": [_runtime_container(actor, settings, grace)],
        "volumes": volumes,
    }
    if spec.service_account_name is not None:
        pod["serviceAccountName"] = spec.service_account_name
    pod |= pull_secrets(actor)
    return {"metadata": {"labels": pod_labels, "annotations": annotations}, "spec": pod}


def pull_secrets(actor: AsyncActor) -> Manifest:
    """The field of a pod that says with what its images are pulled; nothing where the actor names no Secret."""
    names = [{"name": secret.name} for secret in actor.spec.image_pull_secrets or []]
    return {"imagePullSecrets": names} if names else {}


def install_container(settings: Settings, proxy_image: str) -> Manifest:
    """The init container that writes run.py and lib/ for the handler. With state, the proxy takes its place."""
    container: Manifest = {
        "name": INSTALL_CONTAINER,
        "image": proxy_image,
        "command": ["asya-state-proxy", "install", SHIM_DIR],
        "volumeMounts": [{"name": SHIM_VOLUME, "mountPath": SHIM_DIR}],
        "resources": INSTALL_RESOURCES,
        "securityContext": restricted(settings.proxy_uid),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if settings.proxy_image_pull_policy is not None:
        container["imagePullPolicy"] = settings.proxy_image_pull_policy
    return container


def _runtime_container(actor: AsyncActor, settings: Settings, grace: int) -> Manifest:
    spec = actor.spec
    line = [spec.python_executable, RUN_FILE]
    env = owned_env(runtime_env(actor, grace))
    if spec.state_proxy is not None:
        env |= owned_env(shim_env(actor, spec.state_proxy))
    container: Manifest = {
        "name": RUNTIME_CONTAINER,
        "image": spec.image,
        # With `entrypoint: image` the image's own ENTRYPOINT runs first and executes its arguments.
        ("command" if spec.entrypoint == "override" else "args"): line,
        "env": env_list(env) + dump_env(spec.env),
        "ports": [{"name": "http", "containerPort": spec.port, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 5,
            "failureThreshold": 6,
            "timeoutSeconds": 5,
        },
        # A TCP connect is answered by the kernel: a handler that holds the interpreter, or a long import,
        # is not restarted. The threshold covers an ENTRYPOINT that works for minutes before the runtime listens.
        "livenessProbe": {
            "tcpSocket": {"port": "http"},
            "periodSeconds": 10,
            "failureThreshold": 60,
            "timeoutSeconds": 5,
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [_shim_mount()],
    }
    policy = spec.image_pull_policy or settings.image_pull_policy
    if policy is not None:
        container["imagePullPolicy"] = policy
    if spec.env_from:
        container["envFrom"] = [source.model_dump(by_alias=True, exclude_none=True) for source in spec.env_from]
    if spec.resources is not None:
        container["resources"] = spec.resources.model_dump(by_alias=True, exclude_none=True)
    return container


def _shim_mount() -> Manifest:
    return {"name": SHIM_VOLUME, "mountPath": SHIM_DIR, "readOnly": True}


def _with_state(actor: AsyncActor, config: StateConfig, container: Manifest) -> Manifest:
    """A container with the guards where it has no mount of its own, and with the shim if it sees the state."""
    if container["name"] == INSTALL_CONTAINER:
        return container
    out = dict(container)
    mounts: list[Manifest] = list(out.get("volumeMounts", []))
    if out["name"] in config.containers and out["name"] != RUNTIME_CONTAINER:
        state = actor.spec.state_proxy
        assert state is not None
        out["env"] = merge({"env": out.get("env", [])}, {"env": env_list(owned_env(shim_env(actor, state)))})["env"]
        mounts.append(_shim_mount())
    mounts.extend(guard.volume_mount(mount) for mount in config.mounts if not _occupied(mounts, mount))
    out["volumeMounts"] = mounts
    return out


def _occupied(mounts: list[Manifest], mount: MountState) -> bool:
    """True where the container has a mount of its own at, above or below the path."""
    for entry in mounts:
        place = "/" + str(entry.get("mountPath", "")).strip("/")
        if (place.rstrip("/") + "/").startswith(mount.path + "/") or mount.path.startswith(place.rstrip("/") + "/"):
            return True
    return False
