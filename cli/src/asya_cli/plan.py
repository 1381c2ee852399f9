"""From a manifest to the processes of a local run. Pure: nothing is started, read or asked here.

The environments are a pod's, written by the same `to_env`: what differs is where the sockets lie, the loopback
address, and the backend where `--backend` says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from asya_cli.backends import Backend, endpoint_variables
from asya_cli.child import Process
from asya_cli.errors import Refused
from asya_cli.podenv import resolve_env, unread_sources
from asya_cli.probe import Endpoint
from asya_contract.env import ProxyEnv, RuntimeEnv, ShimEnv, variables
from asya_contract.names import DEFAULT_MOUNT, state_prefix
from asya_operator.api import AsyncActor, warnings
from asya_operator.api.model import FurtherMount, Mounted, StateProxy
from asya_operator.desired import grace_seconds, owned_env, runtime_env
from asya_operator.state import DEFAULT_BUCKET, shim_env

LOOPBACK = "127.0.0.1"
_OURS = frozenset(spec.name for cls in (ProxyEnv, RuntimeEnv, ShimEnv) for spec in variables(cls).values())


@dataclass(frozen=True, slots=True)
class Place:
    """What the machine gives one replica: its number from 1, ports, the directory of its sockets, and the
    file that serves a handler (`run.py`)."""

    number: int
    port: int
    metrics_port: int
    socket_dir: str
    run_file: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The processes of each replica in the order of their start, the addresses, and what a person is told."""

    actor: AsyncActor
    replicas: tuple[tuple[Process, ...], ...]
    urls: tuple[str, ...]
    state: tuple[str, ...]
    """One line for each mount: its path, backend and prefix."""
    warnings: tuple[str, ...]


def mounts_of(state: StateProxy) -> list[tuple[str, str, Mounted]]:
    """Name, path and definition of each mount, the actor's own first."""
    further: Sequence[FurtherMount] = state.mounts
    return [(DEFAULT_MOUNT, state.mount_path, state), *((m.name, m.mount_path, m) for m in further)]


def prefix_of(actor: AsyncActor, name: str, mount: Mounted) -> str:
    """Where the mount's files lie in its bucket: another actor's own state where it says `fromActor`."""
    if mount.from_actor is not None:
        return state_prefix(actor.namespace, mount.from_actor)
    return state_prefix(actor.namespace, actor.name, name)


def plan(
    actor: AsyncActor, backend: Backend | None, places: Sequence[Place], cwd: str, environ: Mapping[str, str]
) -> Plan:
    """What to start for `actor`, one replica in each of `places`, the handler in directory `cwd`.

    Raises:
        Refused: the backend cannot serve this actor.
        Missing: the manifest takes a value from elsewhere and the local environment lacks it.
    """
    state = actor.spec.state_proxy
    if state is not None and backend is not None and backend.kind == "memory" and len(places) > 1:
        raise Refused("--backend memory: each replica would have a memory of its own; use sqlite or one replica")
    replicas = []
    for place in places:
        label = actor.name if len(places) == 1 else f"{actor.name}-{place.number}"
        processes = [] if state is None else [_proxy(actor, state, backend, place, label, environ)]
        replicas.append((*processes, _runtime(actor, place, label, cwd, environ)))
    return Plan(
        actor,
        tuple(replicas),
        tuple(f"http://{LOOPBACK}:{place.port}/" for place in places),
        tuple(_describe(actor, backend, mount) for mount in mounts_of(state)) if state is not None else (),
        tuple(_warnings(actor, len(places))),
    )


def proxy_variables(
    actor: AsyncActor, name: str, mount: Mounted, backend: Backend | None, socket_dir: str
) -> tuple[ProxyEnv, dict[str, str]]:
    """One mount as the proxy reads it: our variables, and those of the backend's own SDK."""
    kind = backend.kind if backend is not None else mount.backend
    bucket = (backend.bucket if backend is not None else "") or mount.bucket or DEFAULT_BUCKET
    env = ProxyEnv(
        backend=kind,
        bucket=bucket,
        prefix=prefix_of(actor, name, mount),
        consistency=mount.consistency,
        socket=f"{socket_dir}/{name}.sock",
        read_only=mount.is_read_only,
        actor=f"{actor.namespace}/{actor.name}",
    )
    own = endpoint_variables(mount.backend, mount.endpoint, mount.region) if backend is None else backend.variables
    return env, dict(own)


def _proxy(
    actor: AsyncActor,
    state: StateProxy,
    backend: Backend | None,
    place: Place,
    label: str,
    environ: Mapping[str, str],
) -> Process:
    (name, _, first), *others = mounts_of(state)
    main, sdk = proxy_variables(actor, name, first, backend, place.socket_dir)
    further = [
        _difference(name, main, sdk, *proxy_variables(actor, name, mount, backend, place.socket_dir))
        for name, _, mount in others
    ]
    main = replace(main, http_addr=f"{LOOPBACK}:{place.metrics_port}", mounts=tuple(further))
    settings = resolve_env(state.env, environ, _fields(actor, place))
    env = _inherited(environ) | sdk | settings | main.to_env()
    argv = (sys.executable, "-m", "asya_proxy", "serve")
    return Process(f"{label}/proxy", argv, env, os.sep, Endpoint(socket=main.socket))


def _difference(
    name: str, main: ProxyEnv, main_sdk: Mapping[str, str], mount: ProxyEnv, sdk: Mapping[str, str]
) -> dict[str, Any]:
    """A further mount as STATE_MOUNTS lists it: its name, and the variables in which it is not like the first."""
    specs = variables(ProxyEnv).items()
    own = {spec.name: getattr(mount, f) for f, spec in specs if getattr(mount, f) != getattr(main, f)}
    # What the first mount's server is told must not reach another's.
    told = dict.fromkeys(main_sdk, "") | dict(sdk)
    return {"name": name} | own | {variable: text for variable, text in told.items() if main_sdk.get(variable) != text}


def _runtime(actor: AsyncActor, place: Place, label: str, cwd: str, environ: Mapping[str, str]) -> Process:
    state = actor.spec.state_proxy
    ours = owned_env(replace(runtime_env(actor, grace_seconds(actor)), http_port=place.port, http_host=LOOPBACK))
    if state is not None:
        ours |= owned_env(replace(shim_env(actor, state), socket_dir=place.socket_dir))
    # Lines appear when they are printed; in a pod nobody waits for them at a terminal.
    own = resolve_env(actor.spec.env, environ, _fields(actor, place))
    env = {"PYTHONUNBUFFERED": "1"} | _inherited(environ) | own | ours
    argv = (handler_python(actor.spec.python_executable), place.run_file)
    return Process(f"{label}/runtime", argv, env, cwd, Endpoint(port=place.port))


def handler_python(executable: str) -> str:
    """The manifest's `pythonExecutable` where it is a path that exists here, else the Python that runs `asya`."""
    return executable if os.path.isabs(executable) and os.access(executable, os.X_OK) else sys.executable


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """The local environment without variables of ours: a pod would not have those of this shell."""
    return {name: value for name, value in environ.items() if name not in _OURS and not name.startswith("STATE_")}


def _fields(actor: AsyncActor, place: Place) -> dict[str, str]:
    """What a fieldRef answers, as far as a laptop has an answer."""
    return {
        "metadata.name": f"{actor.name}-{place.number}",
        "metadata.namespace": actor.namespace,
        "spec.serviceAccountName": actor.spec.service_account_name or "default",
        "spec.nodeName": "localhost",
        "status.hostIP": LOOPBACK,
        "status.podIP": LOOPBACK,
    }


def _describe(actor: AsyncActor, backend: Backend | None, row: tuple[str, str, Mounted]) -> str:
    name, path, mount = row
    where = backend.words if backend is not None else f"{mount.backend} bucket {mount.bucket or DEFAULT_BUCKET}"
    mode = f"{mount.consistency}, read-only" if mount.is_read_only else mount.consistency
    return f"{path} is {where}, prefix {prefix_of(actor, name, mount)} ({mode})"


def _warnings(actor: AsyncActor, replicas: int) -> list[str]:
    """What the operator would say of this actor with that many replicas, and what only a laptop lacks."""
    spec = actor.spec.model_copy(update={"replicas": replicas})
    lines = warnings(actor.model_copy(update={"spec": spec}))
    unread = unread_sources(actor.spec.env_from)
    if unread:
        lines.append(f"spec.envFrom is not read here: export what the handler needs of {', '.join(unread)}")
    return lines
