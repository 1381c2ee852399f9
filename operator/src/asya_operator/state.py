"""The resolved state configuration of an actor: what the operator writes into the pod template's
annotation and the webhook reads back.

It holds no secret and no key prefix. The webhook believes nothing of it that reaches outside the
namespace: the prefix is computed from the admission request's namespace and from names that match
the CRD's patterns.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from asya_contract.env import Mount, ProxyEnv, ShimEnv, format_mounts, parse_seconds, parse_size, variables, write_env
from asya_contract.names import DEFAULT_MOUNT, GROUP, SOCKET_DIR, default_secret, state_prefix
from asya_operator.api import AsyncActor, Mounted, StateProxy, patterns
from asya_operator.api.model import (
    ActorName,
    Backend,
    Base,
    Bucket,
    Consistency,
    ContainerName,
    Endpoint,
    MountName,
    MountPath,
    ObjectName,
    ProxyEnvVar,
    Quantity,
    Region,
)
from asya_operator.api.problems import ManifestError, Problem, from_pydantic, show
from asya_operator.api.quantity import parse_quantity
from asya_operator.api.rules import DEFAULT_HTTP_PORT, refused_proxy_env
from asya_operator.settings import Settings

# The key prefix that a template was made for; the webhook uses its own and refuses a pod that was made for another.
KEY_PREFIX_ANNOTATION = f"{GROUP}/key-prefix"
DEFAULT_BUCKET = "asya-state"
CREDENTIALS_ROOT = "/var/run/asya/credentials"
DEFAULT_REQUESTS = {"cpu": "20m", "memory": "64Mi"}
DEFAULT_LIMITS = {"memory": "256Mi"}

Amounts = Annotated[dict[str, Quantity], Field(max_length=16)]


class MountState(Base):
    """One mount. `actor` is whose state it shows (`fromActor`), where that is not the actor's own."""

    name: MountName
    path: MountPath
    backend: Backend
    bucket: Bucket
    consistency: Consistency
    read_only: bool = False
    actor: ActorName | None = None
    endpoint: Endpoint | None = None
    region: Region | None = None
    secret_name: ObjectName
    # The default Secret of a backend may be absent: then the SDK's own chain answers.
    secret_optional: bool = False


class StateConfig(Base):
    """Everything the webhook needs to know of an actor's state."""

    version: Literal[1] = 1
    actor: ActorName
    mounts: Annotated[list[MountState], Field(min_length=1, max_length=9)]
    containers: Annotated[list[ContainerName], Field(min_length=1, max_length=17)]
    http_port: Annotated[int, Field(ge=1024, le=65535)] = DEFAULT_HTTP_PORT
    env: Annotated[list[ProxyEnvVar], Field(max_length=128)] = Field(default_factory=list)
    requests: Amounts
    limits: Amounts

    def to_annotation(self) -> str:
        """JSON, the same for the same configuration."""
        return json.dumps(self.model_dump(by_alias=True, exclude_none=True), sort_keys=True, separators=(",", ":"))


def from_annotation(text: str) -> StateConfig:
    """The inverse of `to_annotation`, for text that anybody may have written.

    Raises:
        ManifestError: with all that is wrong.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError("", [Problem((), f"is not JSON: {error}")]) from None
    if not isinstance(body, dict):
        raise ManifestError("", [Problem((), f"expected an object, got {show(body)}")])
    try:
        config = StateConfig.model_validate(body)
    except ValidationError as error:
        raise ManifestError("", from_pydantic(StateConfig, error, body)) from None
    problems = [
        Problem(("env", index, "name"), refused)
        for index, variable in enumerate(config.env)
        if (refused := refused_proxy_env(variable.name))
    ]
    names = [mount.name for mount in config.mounts]
    if names[0] != DEFAULT_MOUNT or len(set(names)) != len(names):
        problems.append(Problem(("mounts",), f"the first is {DEFAULT_MOUNT!r} and no name is there twice"))
    for index, mount in enumerate(config.mounts):
        if not re.fullmatch(patterns.BUCKET_OF[mount.backend], mount.bucket):
            problems.append(Problem(("mounts", index, "bucket"), f"{mount.bucket!r} is no name of {mount.backend}"))
    if problems:
        raise ManifestError("", problems)
    return config


def resolve(actor: AsyncActor, settings: Settings, runtime_container: str) -> StateConfig:
    """The configuration of an actor that has state, with the installation's defaults field by field.

    Raises:
        ValueError: an actor without `stateProxy`.
    """
    state = actor.spec.state_proxy
    if state is None:
        raise ValueError(f"{actor.name} has no stateProxy")
    defaults = settings.defaults(state.backend)
    own = {variable.name for variable in state.env}
    requests, limits = resources(
        [r for r in (state.resources, defaults.resources) if r is not None],
    )
    return StateConfig(
        actor=actor.name,
        mounts=[
            _mount(DEFAULT_MOUNT, state.mount_path, state, settings),
            *(_mount(mount.name, mount.mount_path, mount, settings) for mount in state.mounts),
        ],
        containers=[runtime_container, *state.containers],
        httpPort=state.http_port or DEFAULT_HTTP_PORT,
        env=[*(v for v in defaults.env if v.name not in own), *state.env],
        requests=requests,
        limits=limits,
    )


def _mount(name: str, path: str, mount: Mounted, settings: Settings) -> MountState:
    defaults = settings.defaults(mount.backend)
    named = mount.credentials.secret_name if mount.credentials else defaults.secret_name
    stated = {
        "name": name,
        "path": path,
        "backend": mount.backend,
        "bucket": mount.bucket or DEFAULT_BUCKET,
        "consistency": mount.consistency,
        "readOnly": mount.is_read_only,
        "actor": mount.from_actor,
        "endpoint": mount.endpoint or defaults.endpoint,
        "region": mount.region or (defaults.region if mount.backend == "s3" else None),
        "secretName": named or default_secret(mount.backend),
        "secretOptional": named is None,
    }
    return MountState.model_validate({field: value for field, value in stated.items() if value is not None})


def resources(stated: Sequence[Any]) -> tuple[dict[str, Quantity], dict[str, Quantity]]:
    """Requests and limits of the proxy from what is stated, the first having precedence.

    Of one resource, one of request and limit given sets both; a limit of 0 is none; what nobody
    states is the default.
    """
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    names = {name for r in stated for part in (r.requests, r.limits) for name in part or {}}
    for name in sorted(names | DEFAULT_REQUESTS.keys() | DEFAULT_LIMITS.keys()):
        source = next((r for r in stated if name in (r.requests or {}) or name in (r.limits or {})), None)
        if source is None:
            request, limit = DEFAULT_REQUESTS.get(name), DEFAULT_LIMITS.get(name)
        else:
            request, limit = (source.requests or {}).get(name), (source.limits or {}).get(name)
            unlimited = limit is not None and parse_quantity(limit) == 0
            if unlimited:
                request, limit = DEFAULT_REQUESTS.get(name) if request is None else request, None
            elif limit is None:
                limit = request
            elif request is None:
                request = limit
        if request is not None:
            requests[name] = request
        if limit is not None:
            limits[name] = limit
    return requests, limits


def shim_env(actor: AsyncActor, state: StateProxy) -> ShimEnv:
    """What activates the shim in the containers that see the mounts."""
    mounts = [(DEFAULT_MOUNT, state.mount_path), *((m.name, m.mount_path) for m in state.mounts)]
    return ShimEnv(
        mounts=format_mounts([Mount(name, path) for name, path in mounts]),
        request_timeout=parse_seconds(state.request_timeout),
        max_file_size=parse_size(state.max_file_size),
        actor=f"{actor.namespace}/{actor.name}",
    )


_ENDPOINT_VARIABLE = {
    "s3": "AWS_ENDPOINT_URL",
    "gcs": "STORAGE_EMULATOR_HOST",
    "redis": "REDIS_URL",
    "nats": "NATS_URL",
}


def credentials_dir(mount: MountState) -> str:
    """Where the proxy finds the files of the mount's Secret."""
    return f"{CREDENTIALS_ROOT}/{mount.name}"


def _variables(
    config: StateConfig, mount: MountState, namespace: str, key_prefix: str
) -> tuple[ProxyEnv, dict[str, str]]:
    part = DEFAULT_MOUNT if mount.actor else mount.name
    env = ProxyEnv(
        backend=mount.backend,
        bucket=mount.bucket,
        prefix=state_prefix(namespace, mount.actor or config.actor, part, key_prefix),
        consistency=mount.consistency,
        socket=f"{SOCKET_DIR}/{mount.name}.sock",
        http_addr=f":{config.http_port}",
        read_only=mount.read_only,
        actor=f"{namespace}/{config.actor}",
        credentials_dir=credentials_dir(mount),
    )
    sdk = {_ENDPOINT_VARIABLE[mount.backend]: mount.endpoint} if mount.endpoint else {}
    return env, sdk | ({"AWS_REGION": mount.region} if mount.region else {})


def _full(env: ProxyEnv) -> dict[str, str]:
    """All that is the operator's to say, defaults as well; what may be set in `stateProxy.env` is not here."""
    settable = {spec.name for spec in variables(ProxyEnv).values() if spec.settable}
    written = write_env(env, every=True)
    return {name: text for name, text in written.items() if name not in settable and text not in ("", "[]")}


def proxy_variables(config: StateConfig, namespace: str, key_prefix: str) -> dict[str, str]:
    """The environment of the proxy but for what `config.env` adds: STATE_* and the SDK's own variables."""
    main, sdk = _variables(config, config.mounts[0], namespace, key_prefix)
    first = {**_full(main), **sdk}
    further = []
    for mount in config.mounts[1:]:
        env, own = _variables(config, mount, namespace, key_prefix)
        # What the first mount's server is told must not reach another's.
        here = {**dict.fromkeys(sdk, ""), **_full(env), **own}
        further.append({"name": mount.name, **{name: text for name, text in here.items() if first.get(name) != text}})
    return {**_full(replace(main, mounts=tuple(further))), **sdk}


def left_behind(before: str | None, after: str | None) -> str:
    """What an old and a new annotation say of state that stays where nobody looks any more; else empty."""
    old, new = _places(before), _places(after)
    return "; ".join(
        f"mount {name}: state is now in {new[name]}; what lies in {place} stays there and is not moved"
        for name, place in old.items()
        if name in new and new[name] != place
    )


def _places(annotation: str | None) -> dict[str, str]:
    """Backend and bucket of each mount whose state is the actor's own."""
    if annotation is None:
        return {}
    try:
        mounts = from_annotation(annotation).mounts
    except ManifestError:
        # Of another release, or somebody's: nothing is known of it.
        return {}
    return {mount.name: f"{mount.backend} bucket {mount.bucket}" for mount in mounts if mount.actor is None}
