"""What a user's `podTemplate` may not say: the fields that the operator owns, by name.

`podTemplate` is a partial PodTemplateSpec of any fields; only those looked at here are checked, the
API server answers for the rest. Merging is done elsewhere (`asya_operator.merge`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from asya_contract.names import (
    GROUP,
    INSTALL_CONTAINER,
    PROXY_CONTAINER,
    RUNTIME_CONTAINER,
    SHIM_DIR,
    SHIM_VOLUME,
    SOCKET_VOLUME,
)
from asya_operator.api.model import Spec
from asya_operator.api.problems import Path, Problem, nearest, show

SOCKET_ROOT = "/var/run/asya"
GUARD_VOLUME = "asya-guard"
CREDENTIALS_VOLUME = "asya-credentials"
OWN_VOLUMES = (SHIM_VOLUME, SOCKET_VOLUME, GUARD_VOLUME)
# Field of the runtime's container -> what to use instead.
_OWNED_IN_RUNTIME = {
    "command": "spec.pythonExecutable and spec.entrypoint",
    "args": "spec.pythonExecutable and spec.entrypoint",
    "image": "spec.image",
    "imagePullPolicy": "spec.imagePullPolicy",
    "env": "spec.env",
    "envFrom": "spec.envFrom",
    "resources": "spec.resources",
    "readinessProbe": "",
    "livenessProbe": "",
    "startupProbe": "",
}
_OWNED_IN_SPEC = {"serviceAccountName": "spec.serviceAccountName", "imagePullSecrets": "spec.imagePullSecrets"}
# With one of them, /proc/PID/root of the proxy is open to other containers of its user.
_SHOWS_PROCESSES = ("shareProcessNamespace", "hostPID")
_OWNED_BY_DEPLOYMENT = ("restartPolicy", "ephemeralContainers", "nodeName")
_TEMPLATE_FIELDS = ("metadata", "spec")
_METADATA_FIELDS = ("labels", "annotations")


def check(spec: Spec) -> Iterator[Problem]:
    """Every field of `spec.podTemplate` that is refused, and every reference into it that leads nowhere."""
    path: Path = ("spec", "podTemplate")
    template = spec.pod_template or {}
    for name in template:
        if name not in _TEMPLATE_FIELDS:
            yield Problem(
                (*path, name), f"no such field{nearest(name, _TEMPLATE_FIELDS)} (fields here: metadata, spec)"
            )
    yield from _metadata((*path, "metadata"), template.get("metadata"))
    pod = template.get("spec")
    if pod is not None and not isinstance(pod, dict):
        yield Problem((*path, "spec"), f"expected a mapping, got {show(pod)}")
        pod = None
    pod = pod or {}
    yield from _pod(spec, (*path, "spec"), pod)
    yield from _references(spec, pod)


def _metadata(path: Path, metadata: Any) -> Iterator[Problem]:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        yield Problem(path, f"expected a mapping, got {show(metadata)}")
        return
    for name, entries in metadata.items():
        if name not in _METADATA_FIELDS:
            yield Problem((*path, name), f"the operator owns it; fields here are {', '.join(_METADATA_FIELDS)}")
        elif not isinstance(entries, dict):
            yield Problem((*path, name), f"expected a mapping, got {show(entries)}")
        else:
            for key, value in entries.items():
                if str(key).startswith(f"{GROUP}/"):
                    yield Problem((*path, name, key), f"names under {GROUP}/ are the operator's own")
                elif not isinstance(value, str):
                    yield Problem((*path, name, key), f"expected text, got {show(value)}; quote it")


def _named(path: Path, pod: Mapping[str, Any], field: str) -> Iterator[tuple[Path, Mapping[str, Any] | Problem]]:
    """The entries of a list of named objects, or a Problem where one is not such an object."""
    entries = pod.get(field, [])
    if not isinstance(entries, list):
        yield (*path, field), Problem((*path, field), f"expected a list, got {show(entries)}")
        return
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        here = (*path, field, index)
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            yield here, Problem(here, "expected a mapping with a name")
        elif entry["name"] in seen:
            yield here, Problem((*here, "name"), f"{entry['name']!r} is there twice")
        else:
            seen.add(entry["name"])
            yield here, entry


def _pod(spec: Spec, path: Path, pod: Mapping[str, Any]) -> Iterator[Problem]:
    for name in _OWNED_BY_DEPLOYMENT:
        if name in pod:
            yield Problem((*path, name), "the operator owns it; leave it out")
    for name, instead in _OWNED_IN_SPEC.items():
        if name in pod:
            yield Problem((*path, name), f"the operator owns it; use {instead}")
    grace = pod.get("terminationGracePeriodSeconds", 1)
    if not isinstance(grace, int) or isinstance(grace, bool) or grace < 1:
        yield Problem((*path, "terminationGracePeriodSeconds"), f"{show(grace)}: expected seconds, at least 1")
    for name in _SHOWS_PROCESSES:
        shown = pod.get(name, False)
        if not isinstance(shown, bool):
            yield Problem((*path, name), f"expected true or false, got {show(shown)}")
        elif shown and spec.state_proxy is not None:
            why = "with stateProxy, other containers could read the proxy's credentials through /proc; leave it out"
            yield Problem((*path, name), why)
    network = pod.get("hostNetwork", False)
    if not isinstance(network, bool):
        yield Problem((*path, "hostNetwork"), f"expected true or false, got {show(network)}")
    elif network and spec.state_proxy is not None and spec.state_proxy.http_port is None:
        yield Problem(
            ("spec", "stateProxy", "httpPort"),
            "missing, and hostNetwork needs it: a port that is free on every node",
        )
    for here, volume in _named(path, pod, "volumes"):
        if isinstance(volume, Problem):
            yield volume
        elif volume["name"] in OWN_VOLUMES or volume["name"].startswith(CREDENTIALS_VOLUME):
            yield Problem((*here, "name"), f"{volume['name']!r} is a volume of the operator's own")
    for field in ("initContainers", "containers"):
        for here, container in _named(path, pod, field):
            if isinstance(container, Problem):
                yield container
            else:
                yield from _container(spec, here, field, container)


def _container(spec: Spec, path: Path, field: str, container: Mapping[str, Any]) -> Iterator[Problem]:
    name = container["name"]
    if name in (INSTALL_CONTAINER, PROXY_CONTAINER) or (name == RUNTIME_CONTAINER and field != "containers"):
        yield Problem((*path, "name"), f"{name!r} is a container of the operator's own")
        return
    if name == RUNTIME_CONTAINER:
        for owned, instead in _OWNED_IN_RUNTIME.items():
            if owned in container:
                yield Problem(
                    (*path, owned), "the operator owns it; " + (f"use {instead}" if instead else "leave it out")
                )
    yield from _ports(spec, path, container)
    yield from _volume_mounts(spec, path, container)


def _ports(spec: Spec, path: Path, container: Mapping[str, Any]) -> Iterator[Problem]:
    ports = container.get("ports", [])
    if not isinstance(ports, list):
        yield Problem((*path, "ports"), f"expected a list, got {show(ports)}")
        return
    taken = {spec.port: "spec.port"}
    if spec.state_proxy is not None:
        taken[spec.state_proxy.http_port or 9464] = "the proxy's port (stateProxy.httpPort)"
    for index, port in enumerate(ports):
        if not isinstance(port, dict):
            yield Problem((*path, "ports", index), f"expected a mapping, got {show(port)}")
        elif port.get("containerPort") in taken and port.get("protocol", "TCP") == "TCP":
            number = port["containerPort"]
            yield Problem((*path, "ports", index, "containerPort"), f"{number} is {taken[number]}")
        elif container["name"] == RUNTIME_CONTAINER and port.get("name") == "http":
            yield Problem((*path, "ports", index, "name"), "'http' is the name of spec.port")


def _volume_mounts(spec: Spec, path: Path, container: Mapping[str, Any]) -> Iterator[Problem]:
    mounts = container.get("volumeMounts", [])
    if not isinstance(mounts, list):
        yield Problem((*path, "volumeMounts"), f"expected a list, got {show(mounts)}")
        return
    state = spec.state_proxy
    ours = {SHIM_DIR: "the operator's own", SOCKET_ROOT: "the operator's own"}
    sees_state = container["name"] == RUNTIME_CONTAINER
    if state is not None:
        sees_state = sees_state or container["name"] in state.containers
        if sees_state:
            ours[state.mount_path] = "stateProxy.mountPath"
            ours.update({m.mount_path: f"mountPath of stateProxy.mounts {m.name!r}" for m in state.mounts})
    if not sees_state:
        return  # a mount of its own there hides nothing of ours: such a container gets no guard
    for index, mount in enumerate(mounts):
        here = (*path, "volumeMounts", index)
        if not isinstance(mount, dict) or not isinstance(mount.get("mountPath"), str):
            yield Problem(here, "expected a mapping with a mountPath")
            continue
        if mount.get("name") in OWN_VOLUMES:
            yield Problem((*here, "name"), f"{mount['name']!r} is a volume of the operator's own")
        place = "/" + mount["mountPath"].strip("/")
        for other, owner in ours.items():
            if (place + "/").startswith(other + "/") or (other + "/").startswith(place.rstrip("/") + "/"):
                yield Problem((*here, "mountPath"), f"{place!r} is, or lies above or below, {other!r} ({owner})")


def _references(spec: Spec, pod: Mapping[str, Any]) -> Iterator[Problem]:
    state = spec.state_proxy
    if state is None:
        return
    known = [
        entry["name"]
        for field in ("containers", "initContainers")
        for _, entry in _named((), pod, field)
        if not isinstance(entry, Problem) and entry["name"] != RUNTIME_CONTAINER
    ]
    for index, name in enumerate(state.containers):
        if name == RUNTIME_CONTAINER:
            yield Problem(("spec", "stateProxy", "containers", index), f"{name!r} sees the state anyway; leave it out")
        elif name not in known:
            yield Problem(
                ("spec", "stateProxy", "containers", index),
                f"{name!r} is no container of podTemplate (it has {', '.join(known) or 'none'}){nearest(name, known)}",
            )
