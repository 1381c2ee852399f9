"""From the environment to what the proxy is built from: one process, one or more mounts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from asya_contract.env import EnvError, ProxyEnv, variables
from asya_contract.names import DEFAULT_MOUNT
from asya_proxy import credentials
from asya_proxy.stores.base import StoreConfig

MAX_SOCKET_PATH = 106
"""Bytes of a Unix socket's path, one left for the name it is bound by first."""

_FIELDS = {name: spec.name for name, spec in variables(ProxyEnv).items()}
# What holds for the process and not for a mount.
_PROCESS = frozenset(
    {
        "STATE_MOUNTS",
        "STATE_HTTP_ADDR",
        "STATE_DRAIN_TIMEOUT",
        "STATE_MAX_IN_FLIGHT",
        "STATE_MAX_BUFFERED",
        "STATE_LOG_LEVEL",
    }
)


@dataclass(frozen=True, slots=True)
class MountSettings:
    """One mount: its name, what STATE_* says of it, and the variables its backend's SDK reads."""

    name: str
    env: ProxyEnv
    environ: Mapping[str, str]

    @property
    def backend(self) -> str:
        return self.env.backend

    @property
    def consistency(self) -> str:
        return self.env.consistency

    @property
    def cas(self) -> bool:
        return self.env.consistency == "cas"

    @property
    def actor(self) -> str:
        return self.env.actor

    @property
    def socket(self) -> str:
        return self.env.socket

    @property
    def read_only(self) -> bool:
        return self.env.read_only

    @property
    def max_object_size(self) -> int:
        return self.env.max_object_size

    def store_config(self) -> StoreConfig:
        """What the store is built from, credentials as they are now. Raises PermissionDenied."""
        env = self.env
        environ = self.environ
        if env.credentials_dir:
            environ = {**environ, **credentials.read(env.credentials_dir)}
        window = 2 * max(env.attempt_timeout + env.commit_timeout, env.request_timeout)
        return StoreConfig(env.bucket, env.prefix, environ, env.attempt_timeout, max(120.0, window))


@dataclass(frozen=True, slots=True)
class Settings:
    """A process. `address` is (host, port) of health and metrics; None where there is none."""

    mounts: tuple[MountSettings, ...]
    address: tuple[str, int] | None
    env: ProxyEnv


def load(environ: Mapping[str, str]) -> Settings:
    """Read and check everything.

    Raises:
        EnvError: with name, value, what is allowed and what to do.
    """
    env = ProxyEnv.from_env(environ)
    name = os.path.basename(env.socket).removesuffix(".sock") or DEFAULT_MOUNT
    mounts = [_mount(name, env, environ)]
    for number, given in enumerate(_list(env.mounts)):
        mounts.append(_further(number, given, env, environ))
    _distinct(mounts)
    return Settings(tuple(mounts), _address(env.http_addr), env)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise EnvError(f"STATE_MOUNTS: expected a JSON list of objects, not {type(value).__name__}")
    return list(value)


def _further(number: int, given: Any, env: ProxyEnv, environ: Mapping[str, str]) -> MountSettings:
    """A mount of STATE_MOUNTS: what it does not say is as in the environment, but for its socket."""
    where = f"STATE_MOUNTS[{number}]"
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or not given["name"]:
        raise EnvError(f"{where}: expected an object with a name, such as {{'name': 'shared', 'bucket': ...}}")
    name = given["name"]
    overlay = {"STATE_SOCKET": os.path.join(os.path.dirname(env.socket), f"{name}.sock")}
    for key, value in given.items():
        if key == "name":
            continue
        variable = str(_FIELDS.get(key, key))
        if variable in _PROCESS:
            raise EnvError(f"{where}: {key} is the process's, not a mount's; set it in the environment")
        if variable == key and not key.isupper():
            raise EnvError(f"{where}: {key!r} is unknown; known are name, {', '.join(sorted(_FIELDS))}")
        overlay[variable] = _text(value)
    merged = {**{k: v for k, v in environ.items() if k != "STATE_MOUNTS"}, **overlay}
    try:
        return _mount(name, ProxyEnv.from_env(merged), merged)
    except EnvError as error:
        raise EnvError(f"{where}: {error}") from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _mount(name: str, env: ProxyEnv, environ: Mapping[str, str]) -> MountSettings:
    if env.prefix and not env.prefix.endswith("/"):
        raise EnvError(f"STATE_PREFIX={env.prefix!r}: expected a prefix that ends with a slash, or none")
    if not os.path.isabs(env.socket):
        raise EnvError(f"STATE_SOCKET={env.socket!r}: expected an absolute path")
    if len(os.fsencode(env.socket)) > MAX_SOCKET_PATH:
        raise EnvError(
            f"STATE_SOCKET={env.socket!r}: expected at most {MAX_SOCKET_PATH} bytes; take a shorter directory"
        )
    return MountSettings(name, replace(env, mounts=()), environ)


def _distinct(mounts: list[MountSettings]) -> None:
    for what, values in (("name", [m.name for m in mounts]), ("socket", [m.socket for m in mounts])):
        for value in values:
            if values.count(value) > 1:
                raise EnvError(f"STATE_MOUNTS: two mounts have the {what} {value!r}; give each its own")


def _address(text: str) -> tuple[str, int] | None:
    if text == "off":
        return None
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise EnvError(f"STATE_HTTP_ADDR={text!r}: expected host:port, :port, or off")
    return host.strip("[]"), int(port)
