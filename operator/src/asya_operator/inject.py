"""`inject(pod, namespace, settings) -> pod`: the webhook's part of a pod, as contract says; pure.

The proxy's container is made anew each time, from the annotation and from the webhook's own
configuration, so that a second run repairs what another webhook did to it (a stripped
`restartPolicy`, another order, another image) and a forged one gains nothing. The only things taken
over from a pod are the identity that the platform gave it and the image `asya-install` names, if
that image is on the list.
"""

from collections.abc import Mapping
from typing import Any

from asya_contract.names import (
    INSTALL_CONTAINER,
    PROXY_CONTAINER,
    RUNTIME_CONTAINER,
    SHIM_DIR,
    SHIM_VOLUME,
    SOCKET_DIR,
    SOCKET_VOLUME,
    STATE_CONFIG_ANNOTATION,
    STATE_LABEL,
)
from asya_operator.api import ManifestError
from asya_operator.api.podtemplate import CREDENTIALS_VOLUME
from asya_operator.desired import DEFAULT_CONTAINER_ANNOTATION, dump_env, env_list, restricted
from asya_operator.identity import identity_env, token_mounts
from asya_operator.settings import Settings
from asya_operator.state import KEY_PREFIX_ANNOTATION, StateConfig, credentials_dir, from_annotation, proxy_variables

Pod = dict[str, Any]
PORT_NAME = "state-health"
_KEYED = (("env", "name"), ("volumeMounts", "mountPath"), ("ports", "name"))


class Refused(ValueError):
    """A pod that cannot work, or that is not what it says; the sentence names it and the next step."""


def wants_state(pod: Mapping[str, Any]) -> bool:
    """True where the pod carries the label that the operator sets."""
    metadata = pod.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return isinstance(labels, dict) and labels.get(STATE_LABEL) == "true"


def inject(pod: Mapping[str, Any], namespace: str, settings: Settings) -> Pod:
    """The pod with sidecar, sockets and mounts; `pod` itself is left alone. Idempotent.

    Args:
        pod: a Pod as plain data; without the label it comes back unchanged. The result may share parts with it.
        namespace: where it is created, from whoever knows (the admission request), never from the pod.
        settings: the webhook's own.

    Raises:
        Refused: why the pod cannot be admitted.
    """
    if not wants_state(pod):
        return dict(pod)
    _check_shape(pod)
    config = _config(pod)
    _check(pod, config)
    _check_prefix(pod, settings)
    # Copied is what changes, and nothing else: a pod may have thousands of variables.
    metadata, spec = dict(pod["metadata"]), dict(pod["spec"])
    init = spec.get("initContainers") or []
    ours = [c for c in init if c["name"] in (INSTALL_CONTAINER, PROXY_CONTAINER)]
    others = [c for c in init if c["name"] not in (INSTALL_CONTAINER, PROXY_CONTAINER)]
    seeing = [c for c in (*spec["containers"], *others) if c["name"] in config.containers]
    proxy = _proxy(config, namespace, settings, _image(ours, settings), [*seeing, *ours])
    spec["initContainers"] = _ordered([_with_sockets(c, config) for c in others], proxy, settings)
    spec["containers"] = [_with_sockets(c, config) for c in spec["containers"]]
    spec["volumes"] = _volumes(spec.get("volumes") or [], config)
    metadata["annotations"] = {DEFAULT_CONTAINER_ANNOTATION: RUNTIME_CONTAINER, **metadata["annotations"]}
    return {**pod, "metadata": metadata, "spec": spec}


def _check_shape(pod: Mapping[str, Any]) -> None:
    """What every later step takes for granted of a pod that anybody may have written."""
    metadata, spec = pod.get("metadata"), pod.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("annotations") or {}, dict):
        raise Refused("metadata: expected a mapping with annotations")
    if not isinstance(spec, dict):
        raise Refused("spec: expected a mapping")
    for field in ("containers", "initContainers", "volumes"):
        entries = spec.get(field) or []
        if not isinstance(entries, list):
            raise Refused(f"spec.{field}: expected a list")
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
                raise Refused(f"spec.{field}[{index}]: expected a mapping with a name")
            for inner, key in _KEYED:
                items = entry.get(inner) or []
                if not isinstance(items, list) or not all(
                    isinstance(item, dict) and isinstance(item.get(key, ""), str) for item in items
                ):
                    raise Refused(f"spec.{field}[{index}].{inner}: expected a list of mappings with a {key}")
    if not spec.get("containers"):
        raise Refused("spec.containers: missing")


def _config(pod: Mapping[str, Any]) -> StateConfig:
    annotations = pod["metadata"].get("annotations") or {}
    text = annotations.get(STATE_CONFIG_ANNOTATION)
    if not isinstance(text, str):
        raise Refused(
            f"the pod has the label {STATE_LABEL} and no annotation {STATE_CONFIG_ANNOTATION}; both come from the "
            "operator: create an AsyncActor, or take the pod from `asya-operator render`"
        )
    try:
        return from_annotation(text)
    except ManifestError as error:
        raise Refused(f"annotation {STATE_CONFIG_ANNOTATION}: {error}") from None


def _check(pod: Mapping[str, Any], config: StateConfig) -> None:
    spec = pod["spec"]
    containers = spec["containers"]
    everyone = [*containers, *(spec.get("initContainers") or [])]
    names = [container["name"] for container in everyone]
    missing = [name for name in config.containers if name not in names]
    if missing:
        raise Refused(
            f"annotation {STATE_CONFIG_ANNOTATION} names container {missing[0]!r}, and the pod has {', '.join(names)}"
        )
    for container in containers:
        if container["name"] in (PROXY_CONTAINER, INSTALL_CONTAINER):
            raise Refused(f"spec.containers: {container['name']!r} is the name of a sidecar of Asya; take another")
    if not any(volume["name"] == SHIM_VOLUME for volume in spec.get("volumes") or []):
        raise Refused(
            f"spec.volumes: {SHIM_VOLUME!r} is missing; take the pod from an AsyncActor or `asya-operator render`"
        )
    if ((spec.get("os") or {}).get("name") if isinstance(spec.get("os"), dict) else None) == "windows":
        raise Refused("spec.os.name: windows is not supported; state needs Linux")
    for container in everyone:
        if container["name"] in (PROXY_CONTAINER, INSTALL_CONTAINER):
            continue
        for port in container.get("ports") or []:
            if port.get("containerPort") == config.http_port and port.get("protocol", "TCP") == "TCP":
                raise Refused(
                    f"container {container['name']!r}: port {config.http_port} is the state proxy's; give the actor "
                    "another stateProxy.httpPort"
                )


def _check_prefix(pod: Mapping[str, Any], settings: Settings) -> None:
    """Operator and webhook learn of a new key prefix one after the other; no pod may come between and stay."""
    made_for = pod["metadata"]["annotations"].get(KEY_PREFIX_ANNOTATION, "")
    if made_for != settings.key_prefix:
        raise Refused(
            f"annotation {KEY_PREFIX_ANNOTATION}: the pod was made for key prefix {str(made_for)[:200]!r}, and the "
            f"webhook's is {settings.key_prefix!r}; wait until the operator has the same settings, or render it anew "
            "with them"
        )


def _image(ours: list[Pod], settings: Settings) -> str:
    """The image the template names, if it is on the list: a new one spreads by rollouts, not by restarts."""
    allowed = [settings.proxy_image, *settings.allowed_images]
    for name in (INSTALL_CONTAINER, PROXY_CONTAINER):
        for container in ours:
            if container["name"] == name and container.get("image") in allowed:
                return str(container["image"])
    return settings.proxy_image


def _proxy(config: StateConfig, namespace: str, settings: Settings, image: str, sources: list[Pod]) -> Pod:
    """The native sidecar. `sources` are the containers whose platform identity it shares."""
    env = env_list(proxy_variables(config, namespace, settings.key_prefix)) + dump_env(config.env)
    taken = {entry["name"] for entry in env}
    env += [entry for entry in identity_env(sources) if entry["name"] not in taken]
    probe = {"periodSeconds": 1, "timeoutSeconds": 5}
    container: Pod = {
        "name": PROXY_CONTAINER,
        "image": image,
        "command": ["asya-state-proxy", "serve", "--install", SHIM_DIR],
        "restartPolicy": "Always",
        "env": env,
        "ports": [{"name": PORT_NAME, "containerPort": config.http_port, "protocol": "TCP"}],
        # Without it the kubelet would go on as soon as the process exists.
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": config.http_port},
            **probe,
            "failureThreshold": 600,
        },
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": config.http_port},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "resources": {"requests": dict(config.requests), "limits": dict(config.limits)},
        "securityContext": restricted(settings.proxy_uid),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": SHIM_VOLUME, "mountPath": SHIM_DIR},
            {"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR},
            *(
                {"name": _credentials_volume(mount.name), "mountPath": credentials_dir(mount), "readOnly": True}
                for mount in config.mounts
            ),
            *token_mounts(sources),
        ],
    }
    if settings.proxy_image_pull_policy is not None:
        container["imagePullPolicy"] = settings.proxy_image_pull_policy
    return container


def _ordered(others: list[Pod], proxy: Pod, settings: Settings) -> list[Pod]:
    """The proxy before everything but the mesh's own containers at the head of the list."""
    place = 0
    while place < len(others) and others[place]["name"] in settings.mesh_containers:
        place += 1
    return [*others[:place], proxy, *others[place:]]


def _credentials_volume(mount: str) -> str:
    return f"{CREDENTIALS_VOLUME}-{mount}"


def credentials_volumes(config: StateConfig) -> list[Pod]:
    """The Secret of each mount, in the order of the mounts."""
    volumes = []
    for mount in config.mounts:
        secret: Pod = {"secretName": mount.secret_name, "defaultMode": 0o444}
        if mount.secret_optional:
            secret["optional"] = True
        volumes.append({"name": _credentials_volume(mount.name), "secret": secret})
    return volumes


def _volumes(volumes: list[Pod], config: StateConfig) -> list[Pod]:
    ours: list[Pod] = [{"name": SOCKET_VOLUME, "emptyDir": {}}, *credentials_volumes(config)]
    names = {volume["name"] for volume in ours}
    return [*(volume for volume in volumes if volume["name"] not in names), *ours]


def _with_sockets(container: Pod, config: StateConfig) -> Pod:
    """A container that sees the state, with the sockets in the place of any other mount there."""
    if container["name"] not in config.containers:
        return container
    others = [m for m in container.get("volumeMounts") or [] if m.get("mountPath", "").rstrip("/") != SOCKET_DIR]
    mount = {"name": SOCKET_VOLUME, "mountPath": SOCKET_DIR, "readOnly": True}
    return {**container, "volumeMounts": [*others, mount]}
