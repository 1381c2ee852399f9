"""What depends on two fields of an AsyncActor: the twin of the CRD's CEL rules.

Each rule yields `Problem`s with the path of the field to change. A rule that stands in the CRD
stands here too, in the same order; here are also those that CEL cannot afford (podTemplate).
"""

import re
from collections.abc import Iterator, Sequence

from asya_contract.env import ProxyEnv, RuntimeEnv, ShimEnv, parse_seconds, parse_size, variables
from asya_operator.api import patterns, podtemplate
from asya_operator.api.model import AsyncActor, EnvFrom, EnvVar, FurtherMount, Mounted, Resources, StateProxy
from asya_operator.api.problems import Path, Problem
from asya_operator.api.quantity import parse_quantity

RESERVED_PATHS = ("/opt/asya", "/var/run/asya", "/proc", "/sys", "/dev", "/etc", "/tmp")  # noqa: S108
DEFAULT_HTTP_PORT = 9464

# Written by the operator from other fields; the runtime's other variables may be set in `env`.
_OWNED_FIELDS = {
    RuntimeEnv: (
        "handler",
        "http_port",
        "http_host",
        "socket",
        "concurrency",
        "turn_timeout",
        "conflict_retries",
        "drain_timeout",
        "actor",
    ),
    ShimEnv: tuple(variables(ShimEnv)),
}
OWNED_ENV = tuple(sorted({variables(cls)[field].name for cls, fields in _OWNED_FIELDS.items() for field in fields}))
SETTABLE_PROXY_ENV = tuple(sorted(v.name for v in variables(ProxyEnv).values() if v.settable))
# Written as text they would be readable by everybody who may read the actor.
SECRET_ENV = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "NATS_CREDS_FILE", "NATS_PASSWORD", "REDIS_PASSWORD")


def within(path: str, other: str) -> bool:
    """True where one path is the other, or lies above or below it."""
    return (path + "/").startswith(other + "/") or (other + "/").startswith(path + "/")


def check(actor: AsyncActor) -> Iterator[Problem]:
    """Everything that is wrong with an actor whose single fields are right."""
    spec = actor.spec
    yield from _duration(("spec", "turnTimeout"), spec.turn_timeout, "100ms", "24h")
    yield from _env(("spec", "env"), spec.env)
    for index, variable in enumerate(spec.env):
        if variable.name in OWNED_ENV:
            yield Problem(
                ("spec", "env", index, "name"),
                f"{variable.name} is set by the operator; use the field for it (refused are {', '.join(OWNED_ENV)})",
            )
    yield from _env_from(spec.env_from)
    yield from _resources(("spec", "resources"), spec.resources)
    if spec.state_proxy is not None:
        yield from _state(actor, spec.state_proxy)
    yield from podtemplate.check(spec)


def _duration(path: Path, text: str, low: str, high: str) -> Iterator[Problem]:
    if not parse_seconds(low) <= parse_seconds(text) <= parse_seconds(high):
        yield Problem(path, f"{text!r} is out of range; allowed are {low} to {high}")


def _env(path: Path, env: Sequence[EnvVar]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(env):
        here = (*path, index)
        if variable.name in seen:
            yield Problem((*here, "name"), f"{variable.name} is there twice")
        seen.add(variable.name)
        source = variable.value_from
        if source is None:
            continue
        if variable.value is not None:
            yield Problem(here, "has value and valueFrom; give one of them")
        given = [
            name
            for name, ref in (
                ("fieldRef", source.field_ref),
                ("resourceFieldRef", source.resource_field_ref),
                ("configMapKeyRef", source.config_map_key_ref),
                ("secretKeyRef", source.secret_key_ref),
            )
            if ref is not None
        ]
        if len(given) != 1:
            allowed = "fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef"
            yield Problem((*here, "valueFrom"), f"has {', '.join(given) or 'no source'}; exactly one of {allowed}")


def _env_from(sources: list[EnvFrom]) -> Iterator[Problem]:
    for index, source in enumerate(sources):
        if (source.config_map_ref is None) == (source.secret_ref is None):
            yield Problem(("spec", "envFrom", index), "give exactly one of configMapRef, secretRef")


def _resources(path: Path, resources: Resources | None) -> Iterator[Problem]:
    if resources is None:
        return
    limits = resources.limits or {}
    for name, amount in (resources.requests or {}).items():
        limit = limits.get(name)
        if limit is not None and parse_quantity(limit) != 0 and parse_quantity(amount) > parse_quantity(limit):
            yield Problem((*path, "requests", name), f"{amount} is more than the limit {limit}")


def _state(actor: AsyncActor, state: StateProxy) -> Iterator[Problem]:
    spec, path = actor.spec, ("spec", "stateProxy")
    yield from _mount(actor, path, state, state.mount_path)
    if state.http_port is not None and state.http_port == spec.port:
        yield Problem((*path, "httpPort"), f"{state.http_port} is spec.port as well; the proxy needs one of its own")
    if state.http_port is None and spec.port == DEFAULT_HTTP_PORT:
        yield Problem(
            ("spec", "port"), f"{spec.port} is the proxy's own port; choose another, or give stateProxy.httpPort"
        )
    yield from _duration((*path, "requestTimeout"), state.request_timeout, "100ms", "1h")
    if not 2**20 <= parse_size(state.max_file_size) <= 16 * 2**30:
        yield Problem((*path, "maxFileSize"), f"{state.max_file_size!r} is out of range; allowed are 1Mi to 16Gi")
    yield from _env((*path, "env"), state.env)
    yield from _proxy_env((*path, "env"), state.env)
    yield from _resources((*path, "resources"), state.resources)
    if len(set(state.containers)) != len(state.containers):
        yield Problem((*path, "containers"), "names a container twice")
    yield from _further_mounts(actor, path, state)


def _further_mounts(actor: AsyncActor, path: Path, state: StateProxy) -> Iterator[Problem]:
    taken: list[tuple[str, str]] = [("stateProxy.mountPath", state.mount_path)]
    names: set[str] = {"state"}
    for index, mount in enumerate(state.mounts):
        here = (*path, "mounts", index)
        if mount.name == "state":
            yield Problem((*here, "name"), "'state' is the name of the mount that stateProxy itself describes")
        elif mount.name in names:
            yield Problem((*here, "name"), f"{mount.name!r} is there twice")
        names.add(mount.name)
        yield from _mount(actor, here, mount, mount.mount_path)
        for field, other in taken:
            if within(mount.mount_path, other):
                yield Problem(
                    (*here, "mountPath"),
                    f"{mount.mount_path!r} is, or lies above or below, {other!r} of {field}",
                )
        taken.append((f"stateProxy.mounts[{index}].mountPath", mount.mount_path))


def _mount(actor: AsyncActor, path: Path, mount: StateProxy | FurtherMount, mount_path: str) -> Iterator[Problem]:
    if any(segment in (".", "..") for segment in mount_path.split("/")):
        yield Problem((*path, "mountPath"), f"{mount_path!r} has a . or .. segment; give the path without")
    for reserved in RESERVED_PATHS:
        if within(mount_path, reserved):
            yield Problem(
                (*path, "mountPath"),
                f"{mount_path!r} is, or lies above or below, {reserved}; refused are {', '.join(RESERVED_PATHS)}",
            )
    yield from _backend(path, mount)
    if mount.from_actor is not None and mount.from_actor == actor.name:
        yield Problem((*path, "fromActor"), f"{mount.from_actor!r} is this actor itself; leave it out")


def _backend(path: Path, mount: Mounted) -> Iterator[Problem]:
    backend = mount.backend
    if mount.bucket is None:
        if backend in ("s3", "gcs"):
            yield Problem((*path, "bucket"), f"missing, and backend {backend} needs it: the name of the bucket")
    elif not re.match(patterns.BUCKET_OF[backend], mount.bucket):
        yield Problem(
            (*path, "bucket"), f"{mount.bucket!r} is no bucket name of {backend}: {patterns.BUCKET_WORDS[backend]}"
        )
    if mount.endpoint is not None:
        scheme = mount.endpoint.partition("://")[0]
        if scheme not in patterns.SCHEMES_OF[backend]:
            schemes = ", ".join(f"{s}://" for s in patterns.SCHEMES_OF[backend])
            yield Problem((*path, "endpoint"), f"{mount.endpoint!r}: backend {backend} takes {schemes}")
    if mount.region is not None and backend != "s3":
        yield Problem((*path, "region"), f"backend {backend} has no region; only s3 takes one")


def _proxy_env(path: Path, env: Sequence[EnvVar]) -> Iterator[Problem]:
    for index, variable in enumerate(env):
        problem = refused_proxy_env(variable.name)
        if problem:
            yield Problem((*path, index, "name"), problem)
        elif variable.value is not None and (variable.name in SECRET_ENV or "@" in _authority(variable.value)):
            yield Problem((*path, index), f"{variable.name} is a credential; it belongs in the Secret or in valueFrom")


def _authority(value: str) -> str:
    """The part of a URL that may hold user and password; empty where the value is no URL."""
    return value.partition("://")[2].split("/")[0] if "://" in value else ""


def refused_proxy_env(name: str) -> str:
    """Why `stateProxy.env` may not set `name`, or nothing."""
    if name.startswith(("PYTHON", "LD_")):
        return f"{name} would change the proxy itself; PYTHON* and LD_* are refused"
    known = {v.name for v in variables(ProxyEnv).values()}
    if name in SETTABLE_PROXY_ENV or (name not in known and not name.startswith("STATE_")):
        return ""
    return f"{name} is set by the operator; settable are {', '.join(SETTABLE_PROXY_ENV)}"
